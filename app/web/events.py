"""`POST /v1/events`: vault events over HTTP, by the CloudEvents HTTP binding (contracts 8.3 and 9.5).

One event structured or binary, or a batch. An event is answered for once the broker has it, each for itself; it is
refused here if the router would put it into quarantine.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote

import orjson
from aiohttp import web

from app.engine import Message, OutputTooLarge
from app.events import (
    STRUCTURED_HEADERS,
    EventKind,
    InvalidEvent,
    JsonRefused,
    check_type,
    decode_record,
    decode_structured,
    loads_strict,
    record_key,
    topic_of,
    traceparent_of,
)
from app.publishing import SerializationError, checked
from app.web.problems import FieldError, Problem
from app.web.requests import BodyTypes, query_of, takes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.engine import OutputFailed
    from app.events import CloudEvent, TopicLayout

__all__ = ["MAX_EVENTS", "EventsApi", "SendsEach", "event_routes"]

MAX_EVENTS: Final = 1000
RETRY_AFTER_S: Final = 2
NOT_ACKNOWLEDGED: Final = "not_acknowledged"
STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
_TYPES: Final = BodyTypes(
    (STRUCTURED, BATCH, "application/json"),
    f"Send one event as JSON in UTF-8, with Content-Type: {STRUCTURED}, or several as a list, with {BATCH};"
    " or data alone as application/json, and the attributes in ce- headers.",
)
_PREFIX: Final = "ce-"


class SendsEach(Protocol):
    """Takes records."""

    async def send_each(self, messages: Sequence[Message]) -> list[OutputFailed | None]:
        """In order within a partition; for each, None once it is acknowledged, else the error."""


@dataclass(frozen=True, slots=True)
class EventsApi:
    """What the route works with.

    Attributes:
        outputs: Take the records.
        prefix: Of the topics.
        layout: Which topic a type travels on.
    """

    outputs: SendsEach
    prefix: str
    layout: TopicLayout


@dataclass(frozen=True, slots=True)
class _Refused:
    """What is told of an event that was not accepted, whatever the status of the answer."""

    index: int
    id: str | None
    code: str
    message: str
    attribute: str | None = None

    def document(self, *, batch: bool) -> dict[str, Any]:
        """`{field, index, id, code, message}`; `field` is where it, or its attribute, stands in the body."""
        steps = [*([str(self.index)] if batch else []), *([self.attribute] if self.attribute else [])]
        return {
            "field": "".join(f"/{step}" for step in steps),
            "index": self.index,
            "id": self.id,
            "code": self.code,
            "message": self.message,
        }


def event_routes(api: EventsApi) -> list[web.RouteDef]:
    """The route."""
    return [web.post("/v1/events", _Events(api).publish)]


class _Events:
    def __init__(self, api: EventsApi) -> None:
        self._api = api

    @takes(_TYPES)
    async def publish(self, request: web.Request) -> web.Response:
        """202 if at least one was accepted; the answer names every other one."""
        query_of(request, ())
        given = await _given(request)
        refused: list[_Refused] = []
        events: list[tuple[int, CloudEvent]] = []
        for index, one in enumerate(given):
            try:
                events.append((index, _accepted(one)))
            except InvalidEvent as error:
                # In binary mode the attributes are no part of the body.
                attribute = error.attribute if isinstance(one, bytes | dict) else None
                refused.append(_Refused(index, _id_of(one), error.reason, error.detail, attribute))
        # The request is the last hop of all that came with it.
        hop = traceparent_of((), {"traceparent": request.headers.get("traceparent")})
        headers = STRUCTURED_HEADERS if hop is None else (*STRUCTURED_HEADERS, ("traceparent", hop.encode()))
        outcomes = await self._api.outputs.send_each([self._message(event, headers) for _, event in events])
        for (index, event), failure in zip(events, outcomes, strict=True):
            if failure is not None:
                refused.append(_failed(index, event, failure))
        accepted = len(given) - len(refused)
        refused.sort(key=lambda one: one.index)
        errors = [one.document(batch=not isinstance(given, _One)) for one in refused]
        if not accepted:
            raise _none_accepted(refused, errors)
        body = orjson.dumps({"accepted": accepted, "errors": errors})
        return web.Response(status=HTTPStatus.ACCEPTED, body=body, content_type="application/json")

    def _message(self, event: CloudEvent, headers: Sequence[tuple[str, bytes]]) -> Message:
        topic = topic_of(event.type, self._api.prefix, self._api.layout)
        return Message(topic, record_key(event), event.posted, headers)


class _One(list[Any]):
    """One event, not a batch of one."""


async def _given(request: web.Request) -> list[Any]:
    """Bytes of a structured event, a decoded binary one, or the members of a batch.

    Raises:
        Problem: 400 or 413; nothing of it was taken.
    """
    raw = await request.read()
    kind = request.content_type.lower()
    if kind not in (STRUCTURED, BATCH) and any(name.lower().startswith(_PREFIX) for name in request.headers):
        return _One([_binary(request, raw)])
    if kind == STRUCTURED or (kind != BATCH and not raw.lstrip().startswith(b"[")):
        return _One([raw])
    try:
        members = loads_strict(raw)
    except JsonRefused as error:
        raise _unreadable(f"the batch cannot be read: {error}") from None
    if not isinstance(members, list) or not members:
        raise _unreadable("a batch is a list of at least one event")
    if len(members) > MAX_EVENTS:
        detail = f"A batch has at most {MAX_EVENTS} events, this one has {len(members)}; send it in parts."
        raise Problem(413, "too_large", detail)
    return members


def _binary(request: web.Request, raw: bytes) -> InvalidEvent | CloudEvent:
    """The binary mode: attributes in `ce-` headers, percent-encoded where they are no printable ASCII (3.1.3.2)."""
    headers = [("content-type", request.headers.get("Content-Type", "").encode())]
    for name, value in request.headers.items():
        if name.lower().startswith(_PREFIX):
            headers.append((f"ce_{name.lower().removeprefix(_PREFIX)}", unquote(value, errors="replace").encode()))
    try:
        return decode_record(raw, headers)
    except InvalidEvent as error:
        return error


def _accepted(one: Any) -> CloudEvent:
    """The event as it will be sent.

    Raises:
        InvalidEvent: The router would put it into quarantine, or it is not for vault services to publish.
    """
    if isinstance(one, InvalidEvent):
        raise one
    if isinstance(one, bytes):
        event = decode_structured(one)
    elif isinstance(one, dict | list | str | int | float) or one is None:
        event = decode_structured(orjson.dumps(one))
    else:
        event = one
    if check_type(event) is not EventKind.VAULT:
        raise InvalidEvent("unknown_type", "type: only the 22 types of vault services are published here", "type")
    try:
        return checked(event)
    except SerializationError as error:
        if isinstance(error.__cause__, InvalidEvent):
            raise error.__cause__ from None
        raise InvalidEvent("invalid_data", str(error)) from None


def _id_of(one: Any) -> str | None:
    """What an event that was refused calls itself, as far as that can be read."""
    if isinstance(one, bytes):
        try:
            one = loads_strict(one)
        except JsonRefused:
            return None
    found = one.get("id") if isinstance(one, dict) else getattr(one, "id", None)
    return found if isinstance(found, str) else None


def _failed(index: int, event: CloudEvent, error: OutputFailed) -> _Refused:
    if isinstance(error, OutputTooLarge):
        return _Refused(index, event.id, "too_large", f"its topic takes no record of {len(event.posted)} bytes")
    told = "Kafka has not acknowledged it, and may have it all the same: send it again under the same id"
    return _Refused(index, event.id, NOT_ACKNOWLEDGED, told)


def _none_accepted(refused: Sequence[_Refused], errors: Sequence[dict[str, Any]]) -> Problem:
    told = {"errors": errors}
    if any(one.code == NOT_ACKNOWLEDGED for one in refused):
        detail = "Kafka has acknowledged none of the events; send them again under the same ids."
        return Problem(503, "broker_unavailable", detail, retry_after_s=RETRY_AFTER_S, extra=told)
    return Problem(422, refused[0].code, f"No event was accepted: {refused[0].message}.", extra=told)


def _unreadable(why: str) -> Problem:
    error = FieldError("", "invalid_json", why)
    return Problem(400, "invalid_json", f"The body cannot be read: {why}.", errors=[error])
