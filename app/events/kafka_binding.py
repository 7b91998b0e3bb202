"""The Kafka binding of CloudEvents: records to events and back, structured and binary.

The content-type decides, not the presence of ``ce_`` headers (contracts 1.1).
Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Final

import orjson

from app.events.codec import attribute_object, decode_structured, event_from_object, is_json, too_large
from app.events.envelope import (
    MAX_EVENT_BYTES,
    CloudEvent,
    EventFields,
    event_from_attributes,
    extension_text,
)
from app.events.errors import InvalidEvent, shown
from app.events.strict_json import MAX_DEPTH, JsonRefused, loads_strict

CONTENT_TYPE: Final = "content-type"
STRUCTURED_CONTENT_TYPE: Final = b"application/cloudevents+json; charset=utf-8"
STRUCTURED_HEADERS: Final[Sequence[tuple[str, bytes]]] = ((CONTENT_TYPE, STRUCTURED_CONTENT_TYPE),)

_STRUCTURED_HEADER: Final = STRUCTURED_HEADERS[0]
_CLOUDEVENTS: Final = b"application/cloudevents"
_JSON_FORMAT: Final = b"application/cloudevents+json"
_PREFIX: Final = "ce_"
# In binary mode these travel as content-type and as the value.
_NOT_A_HEADER: Final = frozenset({"datacontenttype", "data", "data_base64"})


def decode_record(value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> CloudEvent:
    """The event that a record carries.

    Structured if the header ``content-type`` starts with ``application/cloudevents``, or if there is none and the value
    is a JSON object with ``specversion``; else binary: attributes in ``ce_`` headers, the value is the data. An empty
    value is no data.

    Raises:
        InvalidEvent: Whatever is wrong with it: ``invalid_envelope``, ``invalid_data`` (the data of a binary record is
            not JSON) or ``too_large``. No other exception, for any bytes.
    """
    if len(headers) == 1 and headers[0] == _STRUCTURED_HEADER and value is not None:
        return decode_structured(value)
    if value is not None and len(value) > MAX_EVENT_BYTES:
        raise too_large(len(value))
    content_type, attributes = _read_headers(headers) if headers else (None, None)
    if content_type is not None:
        if not content_type.lower().startswith(_CLOUDEVENTS):
            return _decode_binary(value, content_type, attributes or {})
        if content_type.partition(b";")[0].strip().lower() != _JSON_FORMAT:
            raise InvalidEvent(
                "invalid_envelope", "content-type: of the structured formats only JSON is read, one event"
            )
    elif attributes:
        structured = _structured_without_content_type(value)
        if structured is None:
            return _decode_binary(value, None, attributes)
        return structured
    if value is None:
        raise InvalidEvent("invalid_envelope", "the record has no value")
    return decode_structured(value)


def _read_headers(headers: Sequence[tuple[str, bytes]]) -> tuple[bytes | None, dict[str, bytes] | None]:
    """The content-type, and the values of ``ce_`` headers by attribute name (None if there is none)."""
    content_type: bytes | None = None
    attributes: dict[str, bytes] | None = None
    for name, value in headers:
        folded = name.lower()
        if folded == CONTENT_TYPE:
            if content_type is not None:
                raise InvalidEvent("invalid_envelope", "header content-type is given twice")
            content_type = value or b""
        elif folded.startswith(_PREFIX):
            attribute = name[len(_PREFIX) :]
            attributes = {} if attributes is None else attributes
            if attribute in attributes:
                raise InvalidEvent("invalid_envelope", f"header {shown(name)} is given twice")
            attributes[attribute] = value
    return content_type, attributes


def _structured_without_content_type(value: bytes | None) -> CloudEvent | None:
    try:
        tree = loads_strict(value or b"")
    except JsonRefused:
        return None
    if tree.__class__ is not dict or "specversion" not in tree:
        return None
    return event_from_object(tree, value or b"")


def _decode_binary(value: bytes | None, content_type: bytes | None, headers: dict[str, bytes]) -> CloudEvent:
    attributes: dict[str, Any] = {name: _text(raw, f"header {shown(_PREFIX + name)}") for name, raw in headers.items()}
    for name in _NOT_A_HEADER.intersection(attributes):
        raise InvalidEvent("invalid_envelope", f"header ce_{name}: in binary mode it is not a header of that name")
    datacontenttype = None if content_type is None else _text(content_type, "header content-type")
    attributes["datacontenttype"] = datacontenttype
    head = event_from_attributes(attributes, None, b"")
    data, member = _binary_data(value, is_json(datacontenttype))
    posted = orjson.dumps(attribute_object(head))[:-1] + member + b"}"
    if len(posted) > MAX_EVENT_BYTES:
        raise too_large(len(posted))
    return CloudEvent(
        head.id,
        head.source,
        head.type,
        head.subject,
        head.time,
        head.datacontenttype,
        head.dataschema,
        data,
        head.extensions,
        posted,
    )


def _text(raw: bytes | None, name: str) -> str:
    try:
        return (raw or b"").decode()
    except UnicodeDecodeError as error:
        raise InvalidEvent("invalid_envelope", f"{name} is not UTF-8") from error


def _binary_data(value: bytes | None, json: bool) -> tuple[Any, bytes]:
    """The data of a binary record, and the member that it becomes in the structured form (with its comma)."""
    if not value:
        return None, b""
    if not json:
        return value, b',"data_base64":"' + b64encode(value) + b'"'
    try:
        # One level less: the structured form that webhooks get puts an object around it.
        return loads_strict(value, depth=MAX_DEPTH - 1), b',"data":' + value
    except JsonRefused as error:
        raise InvalidEvent("invalid_data", f"data: {error}") from error


def encode_binary(event: EventFields) -> tuple[list[tuple[str, bytes]], bytes]:
    """The event as headers and value of a binary record.

    Extension values become strings. No data, and empty data, is an empty value. An event without ``datacontenttype``
    gets the content-type that its data has: in binary mode nothing is implied.

    Raises:
        TypeError: The data is not JSON.
    """
    attributes = attribute_object(event)
    default = "application/octet-stream" if isinstance(event.data, bytes) else "application/json"
    headers = [(CONTENT_TYPE, attributes.pop("datacontenttype", default).encode())]
    headers += [(_PREFIX + name, extension_text(value).encode()) for name, value in attributes.items()]
    if event.data is None:
        return headers, b""
    if isinstance(event.data, bytes):
        return headers, event.data
    if isinstance(event.data, str) and not is_json(event.datacontenttype):
        return headers, event.data.encode()
    return headers, orjson.dumps(event.data)
