"""The JSON format of CloudEvents: structured events to bytes and back.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from app.events.envelope import (
    MAX_EVENT_BYTES,
    SPECVERSION,
    CloudEvent,
    EventFields,
    ExtensionValue,
    event_from_attributes,
)
from app.events.errors import InvalidEvent
from app.events.strict_json import JsonRefused, loads_strict

_JSON_MEDIA_TYPE: Final = re.compile(r"[^/;\s]+/(?:[^/;\s]+\+)?json\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)


@lru_cache(maxsize=1024)
def is_json(datacontenttype: str | None) -> bool:
    """True if data of this media type is JSON: ``*/json``, ``*/*+json``, or none given."""
    return datacontenttype is None or _JSON_MEDIA_TYPE.fullmatch(datacontenttype) is not None


def decode_structured(value: bytes) -> CloudEvent:
    """The event in a structured record's value; its ``posted`` is that value.

    Raises:
        InvalidEvent: ``invalid_envelope`` or ``too_large``.
    """
    if len(value) > MAX_EVENT_BYTES:
        raise too_large(len(value))
    try:
        tree = loads_strict(value)
    except JsonRefused as error:
        raise InvalidEvent("invalid_envelope", str(error)) from error
    return event_from_object(tree, value)


def event_from_object(tree: Any, value: bytes) -> CloudEvent:
    """The event that a parsed structured value holds; ``tree`` is consumed.

    Raises:
        InvalidEvent: ``invalid_envelope``.
    """
    if tree.__class__ is not dict:
        raise InvalidEvent("invalid_envelope", "the value is not a JSON object")
    data = tree.pop("data", None)
    if "data_base64" in tree:
        encoded = tree.pop("data_base64")
        if encoded is not None:
            data = _decode_base64(encoded, data)
    return event_from_attributes(tree, data, value)


def _decode_base64(encoded: Any, data: Any) -> bytes:
    if data is not None:
        raise InvalidEvent("invalid_envelope", "data and data_base64 are both there: give one of them")
    try:
        return b64decode(encoded, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise InvalidEvent("invalid_envelope", "data_base64 is not base64") from error


def encode_structured(event: EventFields) -> bytes:
    """The event as one structured JSON object: context attributes, extensions by name, then the data.

    Raises:
        TypeError: The data is not JSON.
    """
    attributes = attribute_object(event)
    if isinstance(event.data, bytes):
        attributes["data_base64"] = b64encode(event.data).decode()
    elif event.data is not None:
        attributes["data"] = event.data
    return orjson.dumps(attributes)


def attribute_object(event: EventFields) -> dict[str, Any]:
    """The attributes that are there, in the order of contracts 9.2."""
    attributes: dict[str, Any] = {
        "specversion": SPECVERSION,
        "id": event.id,
        "source": event.source,
        "type": event.type,
    }
    optional = {
        "subject": event.subject,
        "time": event.time,
        "datacontenttype": event.datacontenttype,
        "dataschema": event.dataschema,
    }
    attributes.update((name, value) for name, value in optional.items() if value is not None)
    attributes.update(sorted(event.extensions.items()))
    return attributes


def new_event(
    *,
    id: str,  # noqa: A002  (the attribute's name)
    source: str,
    type: str,  # noqa: A002  (the attribute's name)
    subject: str | None = None,
    time: str | None = None,
    datacontenttype: str | None = "application/json",
    dataschema: str | None = None,
    data: Any = None,
    extensions: Mapping[str, ExtensionValue] | None = None,
) -> CloudEvent:
    """An event of our own, under the same rules as one from outside.

    Raises:
        InvalidEvent: An attribute breaks the rules, or the event is too large.
        TypeError: The data is not JSON.
    """
    draft = CloudEvent(id, source, type, subject, time, datacontenttype, dataschema, data, extensions or {}, b"")
    return decode_structured(encode_structured(draft))


def too_large(size_bytes: int) -> InvalidEvent:
    """The refusal of an event of that size."""
    return InvalidEvent("too_large", f"{size_bytes} bytes; at most {MAX_EVENT_BYTES} are allowed")
