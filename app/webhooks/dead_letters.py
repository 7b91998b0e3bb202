"""Dead letters read back: deliveries that were given up, with their event (contracts 9.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from app.events import format_time, parse_time_ms
from app.webhooks.errors import SerializationFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DeadLetter", "DeadLetterFilter", "read_dead_letter", "show_dead_letter"]

_NAMESPACE = "llm.data-vault."
_SPACES = frozenset({b" ", b"\t", b"\r", b"\n"})


class _Data(msgspec.Struct):
    delivery_id: str
    webhook_id: str
    reason: str
    attempts: int
    first_at: str
    last_at: str
    event: msgspec.Raw
    last_code: int | None = None
    last_error: str | None = None
    origin: str = ""


class _Letter(msgspec.Struct):
    time: str
    data: _Data


class _Head(msgspec.Struct):
    id: str
    source: str
    type: str
    # What is no time does not expire, and hides no dead letter.
    expirytime: object = None


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One record of `webhook.dead-letters`.

    Attributes:
        id: `{partition}-{offset}` there.
        at_ms: When it was written, by the record.
        event_expires_ms: The event's own `expirytime`.
        event: The bytes to POST; None: they were lost before it was given up.
    """

    id: str
    at_ms: int
    given_up_at: str
    delivery_id: str
    webhook_id: str
    event_id: str | None
    event_source: str | None
    event_type: str | None
    event_expires_ms: int | None
    reason: str
    attempts: int
    first_at: str
    last_at: str
    last_code: int | None
    last_error: str | None
    origin: str
    event: bytes | None = None

    def without_event(self) -> DeadLetter:
        """The same for a list."""
        return msgspec.structs.replace(self, event=None)


class DeadLetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters; what is None does not matter."""

    webhook_id: str | None = None
    reason: str | None = None
    event_type: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def takes(self, letter: DeadLetter) -> bool:
        """Whether it is meant."""
        return (
            self.webhook_id in (None, letter.webhook_id)
            and self.reason in (None, letter.reason)
            and (self.event_type is None or letter.event_type in (self.event_type, _NAMESPACE + self.event_type))
            and (self.since_ms is None or letter.at_ms >= self.since_ms)
            and (self.until_ms is None or letter.at_ms < self.until_ms)
        )


_decode = msgspec.json.Decoder(_Letter).decode
_decode_head = msgspec.json.Decoder(_Head).decode


def read_dead_letter(partition: int, offset: int, at_ms: int, value: bytes | None) -> DeadLetter:
    """One record of the topic, its event byte for byte.

    Raises:
        SerializationFailed: It is none of ours.
    """
    try:
        letter = _decode(value or b"")
        raw = bytes(letter.data.event)
        event = None if raw == b"null" else _spliced(value or b"", raw)
        head = None if event is None else _decode_head(event)
    except msgspec.MsgspecError as error:
        raise SerializationFailed(f"a dead letter does not decode: {error}") from None
    data = letter.data
    return DeadLetter(
        id=f"{partition}-{offset}",
        at_ms=at_ms,
        given_up_at=letter.time,
        delivery_id=data.delivery_id,
        webhook_id=data.webhook_id,
        event_id=None if head is None else head.id,
        event_source=None if head is None else head.source,
        event_type=None if head is None else head.type,
        event_expires_ms=None if head is None else _time_ms(head.expirytime),
        reason=data.reason,
        attempts=data.attempts,
        first_at=data.first_at,
        last_at=data.last_at,
        last_code=data.last_code,
        last_error=data.last_error,
        origin=data.origin,
        event=event,
    )


def _time_ms(expirytime: object) -> int | None:
    if not isinstance(expirytime, str):
        return None
    try:
        at_ms = parse_time_ms(expirytime)
        # With an offset it may lie in a year that has no date in UTC.
        format_time(at_ms)
    except ValueError:
        return None
    return at_ms


def _spliced(value: bytes, event: bytes) -> bytes:
    """The event as it was spliced in, with the white space around it: what we write ourselves has none.

    No string before it can look like it, as quotes inside of strings are escaped.
    """
    start = value.index(event)
    end = start + len(event)
    while value[start - 1 : start] in _SPACES:
        start -= 1
    while value[end : end + 1] in _SPACES:
        end += 1
    return value[start:end]


def show_dead_letter(letter: DeadLetter) -> Mapping[str, Any]:
    """As the API shows it, without its event."""
    hidden = {"at_ms", "event", "event_expires_ms"}
    shown = {name: getattr(letter, name) for name in letter.__struct_fields__ if name not in hidden}
    if letter.event_expires_ms is not None:
        shown["event_expires_at"] = format_time(letter.event_expires_ms)
    return {name: value for name, value in shown.items() if value is not None}
