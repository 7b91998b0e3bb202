"""Deliveries once more: one by its id, or dead letters (contracts 8.3; architecture 5, resend).

A resend is an intent with the bytes that were posted before. They come from the row while it waits, else from the
origin of the event, else from the delivery's dead letter.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from app.engine import LogUnavailable, Message, OutputFailed
from app.events import STRUCTURED_HEADERS, AdminEventType, InvalidEvent, decode_record, format_time, new_event
from app.web.auth import principal_of
from app.web.deliveries import no_delivery, number_of_delivery, owned_delivery
from app.web.problems import Problem
from app.web.requests import fields_of, idempotency_key, query_of
from app.web.webhook_commands import RETRY_AFTER_S, uuid7
from app.webhooks.dead_letters import read_dead_letter
from app.webhooks.errors import SerializationFailed
from app.webhooks.intents import IntentReason, intent_headers
from tables.webhooks import webhook_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.engine import Outputs, Ownership, Record, TopicLog
    from app.web.forward import Forwarder
    from app.web.webhook_commands import CommandGate
    from app.webhooks.dead_letters import DeadLetter
    from app.webhooks.model import DeliveryRow
    from tables.delivery_queries import Readers

__all__ = ["Again", "ResendApi", "Resender", "resend_routes"]

# Of the dead letters of one webhook, looked through for the body of one delivery.
SEARCH_LIMIT: Final = 100_000
_ID_BYTES: Final = 15


@dataclass(frozen=True, slots=True)
class ResendApi:
    """What the routes work with.

    Attributes:
        gate: Has all webhooks.
        deliveries: The topic of intents.
        events: Where auditors read who sent what again.
        source: Of those events.
        dead_letters: Their topic.
        log_of: A topic by its name and the number of its partitions.
    """

    gate: CommandGate
    outputs: Outputs
    deliveries: str
    events: str
    source: str
    dead_letters: TopicLog
    log_of: Callable[[str, int], TopicLog]
    readers: Readers
    ownership: Ownership
    forwarder: Forwarder
    now_ms: Callable[[], int]
    random_bytes: Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Again:
    """One delivery that is to be made again."""

    delivery_id: str
    webhook_id: str
    origin: str
    body: bytes


class Resender:
    """Sends intents for deliveries that were made, or given up, before."""

    def __init__(self, api: ResendApi) -> None:
        self._api = api

    def request_id(self, request: web.Request) -> str:
        """Of this request: a function of the caller and its idempotency key, if it gives one."""
        api, key = self._api, idempotency_key(request)
        if key is None:
            return uuid7(api.now_ms(), api.random_bytes)
        return _digest(principal_of(request).name, key)

    def refusal(self, webhook_id: str, event_expires_ms: int | None) -> tuple[str, str] | None:
        """Why an event cannot be sent to a webhook: a stable name, and what to do; None: it can."""
        row = self._api.gate.rows().get(webhook_key(webhook_id))
        if row is None or row.deleting:
            return "webhook_gone", "The webhook was deleted."
        if not row.enabled:
            return "disabled", "The webhook is disabled; enable it first."
        if event_expires_ms is not None and event_expires_ms <= self._api.now_ms():
            # Its owner would give it up without an attempt.
            return "expired", "The event is past its own expirytime, so it is sent to nobody any more."
        return None

    async def send(self, deliveries: Sequence[Again], request_id: str, actor: str) -> dict[str, str]:
        """Tell the auditors, then send intents, acknowledged; the request id of each by delivery id.

        Raises:
            Problem: 503: not all were acknowledged. With the same Idempotency-Key nothing is sent a second time.
        """
        ids = {one.delivery_id: _digest(request_id, one.delivery_id) for one in deliveries}
        by_webhook: dict[str, list[str]] = {}
        for one in deliveries:
            by_webhook.setdefault(one.webhook_id, []).append(one.delivery_id)
        told = [self._told(webhook_id, made, request_id, actor) for webhook_id, made in by_webhook.items()]
        messages = [self._message(one, ids[one.delivery_id]) for one in deliveries]
        try:
            # In this order: what they do not know of does not happen.
            await self._api.outputs.send_many(told)
            await self._api.outputs.send_many(messages)
        except OutputFailed:
            detail = "The broker did not take everything; repeat the request with an Idempotency-Key of your own."
            raise Problem(503, "unconfirmed", detail, retry_after_s=RETRY_AFTER_S) from None
        return ids

    def _told(self, webhook_id: str, delivery_ids: Sequence[str], request_id: str, actor: str) -> Message:
        """What auditors hear; a repeated request has the same id."""
        api = self._api
        event = new_event(
            id=_digest(request_id, webhook_id, *delivery_ids),
            source=api.source,
            type=str(AdminEventType.OPERATOR_REPLAYED),
            subject=webhook_id,
            time=format_time(api.now_ms()),
            data={
                "id": request_id,
                "webhook_id": webhook_id,
                "deliveries": list(delivery_ids),
                "actor": {"id": actor, "type": "token"},
            },
        )
        return Message(api.events, webhook_key(webhook_id), event.posted, STRUCTURED_HEADERS)

    def _message(self, one: Again, request_id: str) -> Message:
        headers = intent_headers(
            one.delivery_id, one.webhook_id, IntentReason.RESEND, request_id=request_id, origin=one.origin
        )
        return Message(self._api.deliveries, webhook_key(one.webhook_id), one.body, headers)


def resend_routes(api: ResendApi) -> list[web.RouteDef]:
    """`POST /v1/deliveries/{id}/resend`."""
    return [web.post("/v1/deliveries/{id}/resend", _Resend(api).resend)]


class _Resend:
    def __init__(self, api: ResendApi) -> None:
        self._api = api
        self._resender = Resender(api)

    async def resend(self, request: web.Request) -> web.StreamResponse:
        query_of(request, ())
        await fields_of(request, ())
        request_id = self._resender.request_id(request)
        number = number_of_delivery(request.match_info["id"], self._api.ownership.count)
        if number is None:
            raise no_delivery()
        if (answer := await self._api.forwarder.to_owner(request, number)) is not None:
            return answer
        row = (await owned_delivery(self._api.readers, number, request.match_info["id"])).row
        if (why := self._resender.refusal(row.webhook_id, row.event_expires_ms)) is not None:
            raise Problem(409, *why)
        body = await self._body(row)
        if body is None:
            detail = "The event is neither at its origin any more nor in a dead letter, so there is nothing to send."
            raise Problem(410, "body_gone", detail)
        again = Again(row.delivery_id, row.webhook_id, row.origin, body)
        ids = await self._resender.send([again], request_id, principal_of(request).name)
        return web.json_response({"delivery_id": row.delivery_id, "request_id": ids[row.delivery_id]}, status=202)

    async def _body(self, row: DeliveryRow) -> bytes | None:
        """The bytes that were posted; None: they are nowhere any more.

        Raises:
            Problem: 503: nobody says.
        """
        if row.body is not None:
            return row.body
        silent = False
        try:
            if (body := await self._at_origin(row)) is not None:
                return body
        except LogUnavailable:
            # Also a topic that was deleted; the dead letter may have it.
            silent = True
        try:
            letter = await self._dead_letter(row)
        except LogUnavailable:
            silent, letter = True, None
        if letter is not None and letter.event is not None:
            return letter.event
        if silent:
            detail = "The broker does not say whether it has the event. Try again."
            raise Problem(503, "log_unavailable", detail, retry_after_s=RETRY_AFTER_S)
        return None

    async def _at_origin(self, row: DeliveryRow) -> bytes | None:
        topic, _, rest = row.origin.partition("/")
        partition, _, offset = rest.partition("/")
        if not (partition.isdigit() and offset.isdigit()):
            return None
        record = await self._api.log_of(topic, int(partition) + 1).record(int(partition), int(offset))
        if record is None:
            return None
        try:
            event = decode_record(record.value, record.headers)
        except InvalidEvent:
            return None
        # A topic that was made again has other records at the same offsets.
        return event.posted if (event.id, event.source) == (row.event_id, row.event_source) else None

    async def _dead_letter(self, row: DeliveryRow) -> DeadLetter | None:
        def read(record: Record) -> DeadLetter | None:
            letter = letter_of(record)
            return letter if letter is not None and letter.delivery_id == row.delivery_id else None

        number, looked = self._api.ownership.number_of(webhook_key(row.webhook_id)), 0
        async for place in self._api.dead_letters.newest_first(read, only=[number]):
            looked += 1
            if place.read is not None:
                return place.read
            if looked >= SEARCH_LIMIT:
                break
        return None


def letter_of(record: Record) -> DeadLetter | None:
    """The dead letter of a record; None: somebody else wrote it."""
    try:
        return read_dead_letter(record.partition, record.offset, record.timestamp, record.value)
    except SerializationFailed:
        return None


def _digest(*parts: str) -> str:
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=_ID_BYTES).digest()
    return base64.b32encode(digest).decode().lower()
