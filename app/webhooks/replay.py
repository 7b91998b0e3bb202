"""What a replay asks for, which events it is for, and the intents that it sends (contracts 8.3 and 9.5, Replay).

A replay reads the log of vault events again, for one webhook. What it sends is a function of the record and of the
request: the same delivery id and bytes as the router's, and a request id by which the owner of the webhook knows an
intent that it has seen. So a replay that is asked for again under its request id repeats nothing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

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
    parse_time_ms,
)
from app.webhooks.errors import InvalidField, pointer
from app.webhooks.intents import IntentReason
from app.webhooks.matching import MatchIndex
from app.webhooks.model import Status
from app.webhooks.patterns import canonical_patterns, patterns_matching

if TYPE_CHECKING:
    from app.webhooks.model import DeliveryRow, WebhookRow

__all__ = [
    "DEFAULT_RATE_PER_S",
    "MAX_RATE_PER_S",
    "Aim",
    "DisabledTime",
    "LogRecord",
    "Only",
    "ReplayIntent",
    "ReplayLimits",
    "ReplayRequest",
    "Selection",
    "read_replay",
    "show_request",
]

DEFAULT_RATE_PER_S: Final = 1000.0
"""Replayed events queue before the live ones of the same number, so that not asking for a rate is not asking for all
that the broker takes."""
MIN_RATE_PER_S: Final = 0.001
MAX_RATE_PER_S: Final = 100_000.0
MAX_REQUEST_ID_CHARS: Final = 255
MAX_PARTITIONS: Final = 10_000
CLOCKS_DIFFER_MS: Final = 60_000
"""Between the broker, which dates commands, and the workers, which date rows."""

_DELIVERED: Final = frozenset({EventKind.VAULT, EventKind.OPERATOR})
_PING: Final = str(OperatorEventType.WEBHOOK_PING)
_REQUEST_ID_BYTES: Final = 15
# One way to write a number, so that two names are two partitions.
_PARTITION: Final = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)
_STARTS: Final = ("since", "from_offset", "since_disabled")

TP = tuple[str, int]
Header = tuple[str, bytes]


class Only(StrEnum):
    """Which of the matching events, by what their rows say of them."""

    MISSED = "missed"
    FAILED = "failed"
    ALL = "all"


class ReplayRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A checked request; exactly one of the first three says where it begins.

    Attributes:
        from_offset: By `topic/partition`; no other partition is read.
        until_ms: Records of this time and later are left out.
        event_types: Canonical patterns; empty: all that the webhook asks for.
        only: None: what the beginning implies, `missed` for `since_disabled` and `all` for the others.
    """

    since_ms: int | None = None
    from_offset: dict[str, int] | None = None
    since_disabled: bool = False
    until_ms: int | None = None
    event_types: tuple[str, ...] = ()
    only: Only | None = None
    rate_per_s: float = DEFAULT_RATE_PER_S
    request_id: str

    @property
    def offsets(self) -> dict[TP, int]:
        """`from_offset` by topic and partition."""
        found = {}
        for place, offset in (self.from_offset or {}).items():
            topic, _, partition = place.rpartition("/")
            found[topic, int(partition)] = offset
        return found


@dataclass(frozen=True, slots=True)
class ReplayLimits:
    """What this deployment allows.

    Attributes:
        topics: What the router reads.
        history_ms: How long ended deliveries are remembered.
    """

    topics: Collection[str]
    history_ms: int


def read_replay(body: Any, limits: ReplayLimits, now_ms: int, new_request_id: Callable[[], str]) -> ReplayRequest:
    """Read the body of a request.

    Raises:
        InvalidField: `field` is a JSON pointer, and no value is shown.
    """
    if not isinstance(body, Mapping):
        raise InvalidField("must be an object", field="")
    unknown = sorted(set(body) - {*_STARTS, *_READERS})
    if unknown:
        raise InvalidField(f"unknown; one of {', '.join((*_STARTS, *_READERS))}", field=pointer(unknown[0]))
    # `"since_disabled": false` asks for nothing.
    starts = [name for name in _STARTS if name in body and body[name] is not False]
    if len(starts) != 1:
        field = pointer(starts[1]) if starts else ""
        raise InvalidField("give exactly one of since, from_offset and since_disabled: true", field=field)
    values = {_NAMES.get(name, name): read(body[name]) for name, read in _READERS.items() if name in body}
    values.setdefault("request_id", None)
    values["request_id"] = values["request_id"] or new_request_id()
    if starts == ["since"]:
        values["since_ms"] = _since(body["since"], values, limits, now_ms)
    elif starts == ["from_offset"]:
        values["from_offset"] = _from_offset(body["from_offset"], limits.topics)
    else:
        values["since_disabled"] = _true(body["since_disabled"])
    return ReplayRequest(**values)


def show_request(request: ReplayRequest) -> dict[str, Any]:
    """The request as the API shows it."""
    optional = {
        "since": _shown_time(request.since_ms),
        "from_offset": request.from_offset,
        "since_disabled": request.since_disabled or None,
        "until": _shown_time(request.until_ms),
        "event_types": list(request.event_types) or None,
        "only": None if request.only is None else request.only.value,
    }
    shown = {name: value for name, value in optional.items() if value is not None}
    return {**shown, "rate_per_s": request.rate_per_s, "request_id": request.request_id}


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
        at_ms: The time of the record that it came from.
    """

    delivery_id: str
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
    headers: list[Header] = [
        ("vs-delivery-id", id_.encode()),
        ("vs-webhook-id", key),
        ("vs-reason", IntentReason.REPLAY.value.encode()),
        ("vs-request-id", _request_id_of(request_id, id_).encode()),
        ("vs-origin", f"{record.topic}/{record.partition}/{record.offset}".encode()),
    ]
    trace = event.extensions.get("traceparent")
    if isinstance(trace, str):
        headers.append(("traceparent", trace.encode()))
    return ReplayIntent(id_, key, event.posted, tuple(headers), record.timestamp)


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
        """Whether rows are to be asked for at all."""
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


def _since(value: Any, values: Mapping[str, Any], limits: ReplayLimits, now_ms: int) -> int:
    since_ms = _time(value, "/since")
    until_ms = values.get("until_ms")
    if since_ms > now_ms:
        raise InvalidField("must be a time that has passed", field="/since")
    if until_ms is not None and until_ms <= since_ms:
        raise InvalidField("must be later than since", field="/until")
    if values.get("only") in {Only.MISSED, Only.FAILED} and since_ms < now_ms - limits.history_ms:
        raise InvalidField(
            f"asks for what is remembered for {limits.history_ms // 1000} s; take a later since, or leave only out",
            field="/only",
        )
    return since_ms


def _from_offset(value: Any, topics: Collection[str]) -> dict[str, int]:
    if not isinstance(value, Mapping) or not 1 <= len(value) <= MAX_PARTITIONS:
        raise InvalidField('must be an object such as {"vault.events/0": 42}', field="/from_offset")
    for place, offset in value.items():
        topic, _, partition = place.rpartition("/")
        if topic not in topics:
            raise InvalidField("must name a topic of vault events and a partition", field=pointer("from_offset", place))
        if _PARTITION.fullmatch(partition) is None:
            raise InvalidField("must end in /partition, such as /0", field=pointer("from_offset", place))
        if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset < 2**63:
            raise InvalidField("must be an offset, 0 or more", field=pointer("from_offset", place))
    return dict(value)


def _true(value: Any) -> bool:
    if value is not True:
        raise InvalidField("must be true", field="/since_disabled")
    return True


def _time(value: Any, field: str) -> int:
    try:
        return parse_time_ms(value)
    except (TypeError, ValueError):
        raise InvalidField("must be an RFC 3339 time, such as 2026-01-31T12:00:00Z", field=field) from None


def _types(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidField("must be a list of types and patterns, such as dataset.*", field="/event_types")
    try:
        return canonical_patterns(value)
    except InvalidField as error:
        place = error.field.removeprefix("/events")
        raise InvalidField(error.detail, field=f"/event_types{place}") from None


def _only(value: Any) -> Only:
    if value not in tuple(Only):
        raise InvalidField(f"must be one of {', '.join(Only)}", field="/only")
    return Only(value)


def _rate(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not MIN_RATE_PER_S <= value <= MAX_RATE_PER_S:
        raise InvalidField(f"must be a number from {MIN_RATE_PER_S:g} to {MAX_RATE_PER_S:g}", field="/rate_per_s")
    return float(value)


def _request_id(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_REQUEST_ID_CHARS or not value.isascii():
        raise InvalidField(f"must be a text of 1 to {MAX_REQUEST_ID_CHARS} ASCII characters", field="/request_id")
    if not value.isprintable():
        raise InvalidField("must have no control characters", field="/request_id")
    return value


def _shown_time(at_ms: int | None) -> str | None:
    return None if at_ms is None else format_time(at_ms)


_NAMES: Final = {"until": "until_ms"}
_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "until": lambda value: _time(value, "/until"),
    "event_types": _types,
    "only": _only,
    "rate_per_s": _rate,
    "request_id": _request_id,
}
