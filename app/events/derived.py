"""The structured CloudEvents that this system writes to its derived topics, and reads there (contracts 9.1)."""

from typing import Any, Final

import orjson

from app.events.codec import event_from_object
from app.events.envelope import SPECVERSION, CloudEvent, clean_text
from app.events.errors import InvalidEvent

DERIVED_NAMESPACE: Final = "llm.vault-stream."
_CARRIED_OVER: Final = ("traceparent", "correlationid")


def derived_event(
    type_: str,
    *,
    id_: str,
    source: str,
    subject: str,
    time: str,
    data: bytes | dict[str, Any],
    cause: CloudEvent | None = None,
) -> bytes:
    """One derived event as structured JSON.

    Args:
        type_: Below ``llm.vault-stream.``, such as ``audit.recorded``.
        id_: The event's id.
        source: The event's source.
        subject: The record key; what an attribute may not contain is replaced.
        time: RFC 3339.
        data: A JSON object, or JSON already, which is spliced in as it is.
        cause: The event that this one follows from; its ``traceparent`` and ``correlationid`` are carried over.
    """
    attributes: dict[str, Any] = {
        "specversion": SPECVERSION,
        "id": id_,
        "source": source,
        "type": DERIVED_NAMESPACE + type_,
        "subject": clean_text(subject),
        "time": time,
        "datacontenttype": "application/json",
    }
    if cause is not None and cause.extensions:
        for name in _CARRIED_OVER:
            if name in cause.extensions:
                attributes[name] = cause.extensions[name]
    attributes["data"] = orjson.Fragment(data) if isinstance(data, bytes) else data
    return orjson.dumps(attributes)


def decode_derived(value: bytes | None) -> CloudEvent:
    """The derived event in a record's value.

    Without the limits that hold at the edge: an audit record is larger and one level deeper than the vault event in it.

    Raises:
        InvalidEvent: ``invalid_envelope``: it is not one of ours.
    """
    try:
        tree = orjson.loads(value or b"")
    except orjson.JSONDecodeError as error:
        raise InvalidEvent("invalid_envelope", f"not JSON: {error}") from error
    return event_from_object(tree, value or b"")
