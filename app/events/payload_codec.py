"""From the ``data`` of an event to the payload of its type (contracts 1.2)."""

from collections.abc import Callable
from typing import Any, Final

from msgspec import ValidationError, convert

from app.events.catalog import unknown_type
from app.events.envelope import CloudEvent
from app.events.errors import InvalidEvent
from app.events.payloads import PAYLOADS, AccessFields, DatasetFields, Payload, PolicyViolation


def decode_payload(event: CloudEvent) -> Payload:
    """The payload of an event, by its type.

    ``subject_id`` is read as ``principal_id``; tags come as ``"key"``, ``{"key", "value"}`` or ``{"name", "value"}``.

    Raises:
        InvalidEvent: ``unknown_type``; or ``invalid_data``, naming the field that is missing or of another type.
    """
    found = _BY_TYPE.get(event.type)
    if found is None:
        raise unknown_type(event.type)
    payload, normalise = found
    data = event.data
    if data.__class__ is not dict:
        raise InvalidEvent("invalid_data", "data is missing" if data is None else "data is not a JSON object")
    try:
        return convert(data if normalise is None else normalise(data), payload)
    except ValidationError as error:
        raise InvalidEvent("invalid_data", f"data: {error}") from error


def _with_principal(data: dict[str, Any]) -> dict[str, Any]:
    if "subject_id" in data and data.get("principal_id") is None:
        return {**data, "principal_id": data["subject_id"]}
    return data


def _with_tags(data: dict[str, Any]) -> dict[str, Any]:
    tags = data.get("tags")
    if tags.__class__ is not list:
        return data
    return {**data, "tags": [_tag(tag) for tag in tags]}


def _tag(tag: Any) -> Any:
    if tag.__class__ is str:
        return {"key": tag}
    if tag.__class__ is dict and "key" not in tag and "name" in tag:
        return {**tag, "key": tag["name"]}
    return tag


_NORMALISERS: Final[dict[type[Payload], Callable[[dict[str, Any]], dict[str, Any]]]] = {
    payload: normalise
    for base, normalise in (
        (DatasetFields, _with_tags),
        (AccessFields, _with_principal),
        (PolicyViolation, _with_principal),
    )
    for payload in PAYLOADS.values()
    if issubclass(payload, base)
}
_BY_TYPE: Final = {type_: (payload, _NORMALISERS.get(payload)) for type_, payload in PAYLOADS.items()}
