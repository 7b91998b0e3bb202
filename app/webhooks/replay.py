"""What a replay asks for, which events it is for, and the intents that it sends (contracts 8.3 and 9.5, Replay).

A replay reads the log of vault events again, for one webhook. What it sends is a function of the record and of the
request: the same delivery id and bytes as the router's, and a request id by which the owner of the webhook knows an
intent that it has seen. So a replay that is asked for again under its request id repeats nothing.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from app.events import (
    CloudEvent,
    EventKind,
    InvalidEvent,
    OperatorEventType,
    check_type,
    decode_payload,
    decode_record,
    delivery_id,
    format_time,
    traceparent_of,
)
from app.webhooks.intents import IntentReason
from app.webhooks.matching import MatchIndex
from app.webhooks.model import Status
from app.webhooks.patterns import patterns_matching
from app.webhooks.replay_request import Only

if TYPE_CHECKING:
    from app.webhooks.model import DeliveryRow, WebhookRow
    from app.webhooks.replay_request import ReplayRequest

__all__ = ["Aim", "DisabledTime", "LatelySent", "LogRecord", "ReplayIntent", "Selection"]

CLOCKS_DIFFER_MS: Final = 60_000
"""Between the broker, which dates commands, and the workers, which date rows."""

_DELIVERED: Final = frozenset({EventKind.VAULT, EventKind.OPERATOR})
_PING: Final = str(OperatorEventType.WEBHOOK_PING)
_REQUEST_ID_BYTES: Final = 15
_LATELY_SENT: Final = 16_384

TP = tuple[str, int]
Header = tuple[str, bytes]


class LogRecord(Protocol):
    """One Kafka record of a topic that the router reads."""

    @property
    def topic(self) -> str:
        """Where it was read from."""

    @property
    def partition(self) -> int:
        """Its partition."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""

    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970."""

    @property
    def value(self) -> bytes | None:
        """The record value."""

    @property
    def headers(self) -> Sequence[Header]:
        """In order, names may repeat."""


class ReplayIntent(NamedTuple):
    """One record for `webhook.deliveries`, and what is asked of it before it is sent.

    Attributes:
        request_id: What the row of its delivery shows once it was asked for.
        at_ms: The time of the record that it came from.
    """

    delivery_id: str
    request_id: str
    key: bytes
    value: bytes
    headers: tuple[Header, ...]
    at_ms: int


class Aim:
    """The events that a replay is for: what the webhook asks for now, narrowed by the request."""

    def __init__(self, request: ReplayRequest) -> None:
        self._request = request
        self._types = frozenset(request.event_types)
        self._index = MatchIndex()
        self._row: WebhookRow | None = None

    def use(self, row: WebhookRow) -> None:
        """The webhook as it is now."""
        if row is not self._row:
            self._row = row
            self._index.set(row.webhook_id, row.events, row.filter)

    def intent(self, record: LogRecord) -> ReplayIntent | None:
        """The intent of a record; None: its event is not for this replay.

        Raises:
            InvalidEvent: It is in quarantine: the router could not read it either.
        """
        request = self._request
        event = decode_record(record.value, record.headers)
        if not _has_calendar_time(record.timestamp):
            raise InvalidEvent("invalid_envelope", "the record's timestamp is outside the years 1 to 9999")
        kind = check_type(event)
        decode_payload(event)
        if kind not in _DELIVERED or event.type == _PING or self._row is None:
            return None
        if request.since_ms is not None and record.timestamp < request.since_ms:
            return None
        if request.until_ms is not None and record.timestamp >= request.until_ms:
            return None
        if self._types and self._types.isdisjoint(patterns_matching(event.type)):
            return None
        webhook_id = self._row.webhook_id
        return _intent(record, event, webhook_id, request.request_id) if self._index.match(event) else None


def _intent(record: LogRecord, event: CloudEvent, webhook_id: str, request_id: str) -> ReplayIntent:
    id_, key = delivery_id(webhook_id, event.source, event.id), webhook_id.encode()
    mine = _request_id_of(request_id, id_)
    headers: list[Header] = [
        ("vs-delivery-id", id_.encode()),
        ("vs-webhook-id", key),
        ("vs-reason", IntentReason.REPLAY.value.encode()),
        ("vs-request-id", mine.encode()),
        ("vs-origin", f"{record.topic}/{record.partition}/{record.offset}".encode()),
    ]
    trace = traceparent_of(record.headers, event.extensions)
    if trace is not None:
        headers.append(("traceparent", trace.encode()))
    return ReplayIntent(id_, mine, key, event.posted, tuple(headers), record.timestamp)


def _request_id_of(request_id: str, delivery: str) -> str:
    """What the row of a delivery remembers of a replay."""
    digest = blake2b(f"{request_id}\x00{delivery}".encode(), digest_size=_REQUEST_ID_BYTES).digest()
    return "rpl_" + base64.b32encode(digest).decode().lower()


def _has_calendar_time(timestamp_ms: int) -> bool:
    try:
        format_time(timestamp_ms)
    except ValueError:
        return False
    return True


class LatelySent:
    """The last deliveries that a replay has sent.

    An event that was published twice is in the log twice, mostly soon after, and the row of its delivery says that it
    was sent only once the owner has read that.
    """

    __slots__ = ("_ids",)

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, delivery_id: str) -> bool:
        """Whether it is one of them."""
        return delivery_id in self._ids

    def add(self, intents: Sequence[ReplayIntent]) -> None:
        """They were sent."""
        self._ids.update(dict.fromkeys(intent.delivery_id for intent in intents))
        while len(self._ids) > _LATELY_SENT:
            self._ids.popitem(last=False)


@dataclass(frozen=True, slots=True)
class DisabledTime:
    """When a webhook was disabled last, and when it was enabled again."""

    from_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of the matching events are sent, by their rows.

    A row says for certain what became of an event, for as long as it is remembered. What was missed longer ago than
    that has no row any more; there the time of the record decides, which is why a replay since the webhook was disabled
    needs no rows. Where neither is certain an event is rather sent twice than not at all.

    Attributes:
        only: What is asked for.
        disabled: For a replay of what was missed since then; None for all others.
        history_ms: How long a row of a missed event is remembered.
    """

    only: Only
    disabled: DisabledTime | None
    history_ms: int

    @classmethod
    def of(cls, request: ReplayRequest, disabled: DisabledTime | None, history_ms: int) -> Selection:
        """What a request asks for."""
        only = request.only or (Only.MISSED if request.since_disabled else Only.ALL)
        return cls(only, disabled if request.since_disabled and only is Only.MISSED else None, history_ms)

    @property
    def needs_rows(self) -> bool:
        """Whether nothing can be chosen without rows."""
        return self.only is not Only.ALL

    def takes(self, row: DeliveryRow | None, at_ms: int) -> bool:
        """Whether an event is sent.

        Args:
            row: Of its delivery; None: there is none.
            at_ms: The time of its record.
        """
        if self.only is Only.ALL:
            return True
        if self.only is Only.FAILED:
            return row is not None and row.status is Status.FAILED
        if row is not None:
            return row.status is Status.MISSED and self.missed_now(row)
        return self.disabled is not None and self.disabled.from_ms <= at_ms < self.disabled.until_ms

    def missed_now(self, row: DeliveryRow) -> bool:
        """Whether a missed row was missed in the time that is asked for, not at another one before."""
        if self.disabled is None:
            return True
        # What waited when the webhook was disabled is older than that. `HISTORY_TTL_S` may have been another one.
        missed_at_ms = max(row.created_at_ms, row.expires_at_ms - self.history_ms)
        return missed_at_ms >= self.disabled.from_ms - CLOCKS_DIFFER_MS
