"""Intents: the records of `webhook.deliveries`, each asking for one event to go to one webhook (contracts 9.2)."""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Final

import msgspec

from app.events import parse_time_ms
from app.webhooks.errors import SerializationFailed, TooLargeToKeep

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Intent", "IntentReason", "decode_intent", "fits_a_row", "intent_headers"]

Header = tuple[str, bytes]

# A waiting row holds the body and, beside it, attributes out of it. Rows end at 512 KiB; the rest of that is for
# what attempts leave in one: twenty in the log, and 2 KiB of an answer.
MAX_KEPT_BYTES: Final = 496 * 1024


class IntentReason(StrEnum):
    """Who asks."""

    EVENT = "event"
    RESEND = "resend"
    PING = "ping"
    REPLAY = "replay"

    @property
    def asks_again(self) -> bool:
        """Whether a delivery that is known already is to be made again."""
        return self is IntentReason.RESEND or self is IntentReason.REPLAY


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """One decoded intent.

    Attributes:
        sequence: The offset of its record.
        request_id: Of the resend, ping or replay; None for an event.
        origin: `topic/partition/offset` of the event.
        body: Exactly the bytes to POST.
    """

    delivery_id: str
    webhook_id: str
    reason: IntentReason
    request_id: str | None = None
    origin: str = ""
    sequence: int
    traceparent: str | None = None
    event_id: str
    event_source: str
    event_type: str
    subject: str | None = None
    correlation_id: str | None = None
    event_time_ms: int | None = None
    event_expires_ms: int | None = None
    body: bytes


def intent_headers(
    delivery_id: str,
    webhook_id: str,
    reason: IntentReason,
    *,
    request_id: str | None = None,
    origin: str = "",
    traceparent: str | None = None,
) -> tuple[Header, ...]:
    """The headers of an intent; what is None or empty is left out."""
    optional = (("vs-request-id", request_id), ("vs-origin", origin), ("traceparent", traceparent))
    return (
        ("vs-delivery-id", delivery_id.encode()),
        ("vs-webhook-id", webhook_id.encode()),
        ("vs-reason", reason.value.encode()),
        *((name, value.encode()) for name, value in optional if value),
    )


_Extension = str | int | bool | None


class _Head(msgspec.Struct):
    """What is read of the event; the rest of it is skipped, not parsed into objects."""

    id: str
    source: str
    type: str
    subject: str | None = None
    time: str | None = None
    expirytime: str | None = None
    # Extensions whose type nobody checks (CloudEvents 1.0, Extension Context Attributes).
    correlationid: _Extension = None
    traceparent: _Extension = None


_decode_head = msgspec.json.Decoder(_Head).decode


def decode_intent(value: bytes | None, headers: Sequence[Header], offset: int) -> Intent:
    """Read one record.

    Raises:
        SerializationFailed: A header is missing or the value is not a structured event; the message names what,
            without any value.
        TooLargeToKeep: The event with its attributes is larger than a row may be.
    """
    body, found = value or b"", dict(headers)
    try:
        head = _decode_head(body)
        # What is kept beside the body is in it, too, so a body of half the limit has room for that.
        if len(body) > MAX_KEPT_BYTES // 2:
            _check_size(body, head)
        reason = _reason(found["vs-reason"])
        return Intent(
            delivery_id=_header(found["vs-delivery-id"]),
            webhook_id=_header(found["vs-webhook-id"]),
            reason=reason,
            request_id=None if reason is IntentReason.EVENT else _header(found["vs-request-id"]),
            origin=_header(found.get("vs-origin")),
            sequence=offset,
            traceparent=_header(found.get("traceparent")) or _text(head.traceparent),
            event_id=head.id,
            event_source=head.source,
            event_type=head.type,
            subject=head.subject,
            correlation_id=_text(head.correlationid),
            event_time_ms=_time_ms(head.time),
            event_expires_ms=_time_ms(head.expirytime),
            body=body,
        )
    except KeyError as error:
        raise SerializationFailed(f"an intent without the header {error.args[0]}") from None
    except msgspec.MsgspecError:
        raise SerializationFailed("the value of an intent is not a structured CloudEvent") from None
    except ValueError:
        raise SerializationFailed("the header vs-reason of an intent is not event, resend, ping or replay") from None


def _header(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")


@cache
def _reason(data: bytes | None) -> IntentReason:
    return IntentReason(_header(data))


def fits_a_row(value: bytes) -> bool:
    """Whether an event becomes a delivery; of one that does not, the owner of the webhook quarantines the intent."""
    if len(value) <= MAX_KEPT_BYTES // 2:
        return True
    try:
        _check_size(value, _decode_head(value))
    except (TooLargeToKeep, msgspec.MsgspecError):
        return False
    return True


def _check_size(body: bytes, head: _Head) -> None:
    kept = sum(len((_text(value) or "").encode()) for value in msgspec.structs.astuple(head))
    if len(body) + kept > MAX_KEPT_BYTES:
        raise TooLargeToKeep("the event and its attributes together are larger than a row may be: shorten the subject")


def _text(value: _Extension) -> str | None:
    """The canonical string of an attribute (CloudEvents 1.0, Type System)."""
    return value if value is None or isinstance(value, str) else str(value).lower()


def _time_ms(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_time_ms(text)
    except ValueError:
        # An expirytime is an extension, which the envelope does not check; what cannot be read does not expire.
        return None
