"""The life of one delivery: the state table of architecture 5, as one pure function.

A delivery is *none* (never heard of), *in flight* (a POST is under way; memory only), *waiting* (`pending` or
`retrying` in a row) or *ended*. `transition` says what an event makes of it, and what must be written with it.
Clock, randomness and the state of the webhook come in with the event.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec

from app.webhooks.model import (
    ATTEMPT_LOG_LIMIT,
    Attempt,
    AttemptResult,
    DeliveryRow,
    Reason,
    Status,
    WebhookState,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.webhooks.intents import Intent
    from app.webhooks.schedule import RetrySchedule

__all__ = [
    "REJECTIONS_LIMIT",
    "Abandoned",
    "Answered",
    "Arrived",
    "Delivery",
    "DeliveryEvent",
    "Due",
    "NotInTable",
    "NotMade",
    "Step",
    "Terms",
    "TimePassed",
    "WebhookEnded",
    "transition",
]

REJECTIONS_LIMIT: Final = 3
_REJECTING: Final = frozenset({400, 401, 403, 404, 405, 413, 415, 422})


class NotInTable(AssertionError):  # says what it is: a pair that the state table does not have
    """A caller's bug: this event cannot happen in this state."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the settings and the webhook lay down for its deliveries.

    Attributes:
        schedule: When to try again.
        history_ms: How long an ended delivery is remembered.
        failed_history_ms: The same for a failed one.
        max_age_ms: How long a delivery may wait.
    """

    schedule: RetrySchedule
    history_ms: int
    failed_history_ms: int
    max_age_ms: int


class Delivery(msgspec.Struct, frozen=True):
    """The state of one delivery.

    Attributes:
        row: Its row; in flight it may be one that was never written.
        in_flight: Whether a POST is under way.
    """

    row: DeliveryRow | None = None
    in_flight: bool = False


class Arrived(msgspec.Struct, frozen=True):
    """An intent was read.

    Attributes:
        admit: Asked once, and only for a delivery that could start: why it must wait; None: its slot is taken.
        next_at_ms: When it is due, if it must wait.
    """

    intent: Intent
    webhook: WebhookState
    admit: Callable[[], Reason | None]
    next_at_ms: int


class Answered(msgspec.Struct, frozen=True):
    """The POST ended.

    Attributes:
        status_code: Of a complete answer.
        error: None for 2xx; else the names of contracts 2.
        webhook: Its state now: it may have changed during the POST.
        moved: It has another URL now, so that the answer says nothing about its receiver.
        uniform: A number from [0, 1), for the jitter.
    """

    started_ms: int
    duration_ms: int
    status_code: int | None
    error: str | None
    response_body: str
    retry_after_s: float | None
    webhook: WebhookState
    uniform: Callable[[], float]
    moved: bool = False


class Abandoned(msgspec.Struct, frozen=True):
    """The number was taken away during the POST; its outcome is unknown."""


class NotMade(msgspec.Struct, frozen=True):
    """It had its slot, and its receiver was not asked, for a reason of ours.

    Attributes:
        reason: Why it waits now.
        webhook: Its state now: it may have changed meanwhile.
    """

    reason: Reason
    webhook: WebhookState


class Due(msgspec.Struct, frozen=True):
    """The scheduler offers it a slot."""


class TimePassed(msgspec.Struct, frozen=True):
    """Its row was found to have expired, or not."""


class WebhookEnded(msgspec.Struct, frozen=True):
    """Its webhook was deleted or disabled."""

    webhook: WebhookState


DeliveryEvent = Arrived | Answered | Abandoned | NotMade | Due | TimePassed | WebhookEnded


class Step(msgspec.Struct, frozen=True):
    """What an event makes of a delivery; `changed` False: nothing is written.

    Attributes:
        after: The state afterwards.
        changed: The row must be written, or removed if there is none.
        attempt: The attempt to publish.
        dead_letter: Give the event to the dead letters, for this reason; its body is `body`.
        body: The event's bytes, which an ended row does not keep.
        hold_until_ms: No attempt for the whole webhook before this time.
        disable_webhook: The receiver is gone.
    """

    after: Delivery
    changed: bool = False
    attempt: Attempt | None = None
    dead_letter: Reason | None = None
    body: bytes | None = None
    hold_until_ms: int | None = None
    disable_webhook: bool = False


def transition(before: Delivery, event: DeliveryEvent, now_ms: int, terms: Terms) -> Step:
    """Apply one event.

    Raises:
        NotInTable: The state table has no such row.
    """
    row = before.row
    match event:
        case Arrived():
            return _first(event, now_ms, terms) if row is None else _known(before, row, event, now_ms, terms)
        case Answered() | NotMade() if before.in_flight and row is not None:
            return (
                _answered(row, event, now_ms, terms)
                if isinstance(event, Answered)
                else _not_made(row, event, now_ms, terms)
            )
        case Abandoned() if before.in_flight:
            return Step(Delivery(row))
        case Due() if row is not None and row.status.waits and not before.in_flight:
            expired = now_ms >= row.expires_at_ms
            return _given_up(row, Reason.EXPIRED, now_ms, terms) if expired else Step(Delivery(row, in_flight=True))
        case TimePassed() if row is not None and not before.in_flight:
            return _time_passed(before, row, now_ms, terms)
        case WebhookEnded() if row is not None and row.status.waits and not before.in_flight:
            return Step(Delivery(_ended(row, _end_of(event.webhook), None, now_ms, terms)), changed=True)
    raise NotInTable(f"{type(event).__name__} for {before.row and before.row.status}, in flight: {before.in_flight}")


def _first(event: Arrived, now_ms: int, terms: Terms) -> Step:
    row = _row_of(event.intent, now_ms, terms)
    if event.webhook is not WebhookState.ACTIVE:
        return Step(Delivery(_ended(row, _end_of(event.webhook), None, now_ms, terms)), changed=True)
    if now_ms >= row.expires_at_ms:
        return _given_up(row, Reason.EXPIRED, now_ms, terms)
    wait = event.admit()
    if wait is None:
        return Step(Delivery(row, in_flight=True))
    parked = msgspec.structs.replace(row, reason=wait, next_at_ms=event.next_at_ms)
    return Step(Delivery(parked), changed=True)


def _known(before: Delivery, row: DeliveryRow, event: Arrived, now_ms: int, terms: Terms) -> Step:
    intent = event.intent
    asks_again = intent.reason.asks_again and event.webhook is WebhookState.ACTIVE
    if not asks_again or intent.request_id == row.request_id:
        return Step(before)
    if before.in_flight:
        # The POST that was asked for is under way.
        return Step(Delivery(msgspec.structs.replace(row, request_id=intent.request_id), in_flight=True))
    if row.status.waits:
        due = msgspec.structs.replace(
            row, request_id=intent.request_id, reason=Reason.RESEND, next_at_ms=min(now_ms, row.next_at_ms or now_ms)
        )
        return Step(Delivery(due), changed=True)
    again = msgspec.structs.replace(
        row,
        request_id=intent.request_id,
        status=Status.RETRYING,
        reason=Reason.RESEND,
        attempts_before=row.attempts,
        rejections=0,
        resends=row.resends + 1,
        waiting_since_ms=now_ms,
        next_at_ms=now_ms,
        expires_at_ms=_gives_up_ms(now_ms, row.event_expires_ms, terms),
        body=intent.body,
    )
    return Step(Delivery(again), changed=True)


def _answered(row: DeliveryRow, event: Answered, now_ms: int, terms: Terms) -> Step:
    """What comes of it, from the row as it was; then `_with_attempt` adds what every attempt that failed leaves."""
    if event.error is None:
        return _delivered(row, event, now_ms, terms)
    if event.status_code == HTTPStatus.GONE and not event.moved:
        gone = _with_attempt(_ended(row, Status.FAILED, Reason.GONE, now_ms, terms), event)
        return msgspec.structs.replace(gone, disable_webhook=True)
    spent = row.attempts + 1 - row.attempts_before
    hold_until_ms = None
    if event.status_code == HTTPStatus.TOO_MANY_REQUESTS and not event.moved:
        hold_until_ms = now_ms + round(terms.schedule.hold_s(spent, event.retry_after_s) * 1000)
    wait_s = terms.schedule.next_wait_s(spent, event.uniform, event.retry_after_s)
    rejected = _rejections(row, event) >= REJECTIONS_LIMIT
    dead_letter = None
    if rejected or wait_s is None:
        dead_letter = Reason.REJECTED if rejected else Reason.EXHAUSTED
        after = _ended(row, Status.FAILED, dead_letter, now_ms, terms)
    elif event.webhook is not WebhookState.ACTIVE:
        after = _ended(row, _end_of(event.webhook), None, now_ms, terms)
    else:
        next_at_ms = now_ms + round(wait_s * 1000)
        after = msgspec.structs.replace(row, status=Status.RETRYING, reason=Reason.RETRY, next_at_ms=next_at_ms)
    return msgspec.structs.replace(
        _with_attempt(after, event),
        dead_letter=dead_letter,
        body=None if dead_letter is None else row.body,
        hold_until_ms=hold_until_ms,
    )


def _not_made(row: DeliveryRow, event: NotMade, now_ms: int, terms: Terms) -> Step:
    """It waits as before it started: its class, its schedule and its place among those of its subject are the same."""
    if event.webhook is not WebhookState.ACTIVE:
        return Step(Delivery(_ended(row, _end_of(event.webhook), None, now_ms, terms)), changed=True)
    return Step(Delivery(msgspec.structs.replace(row, reason=event.reason)), changed=True)


def _delivered(row: DeliveryRow, event: Answered, now_ms: int, terms: Terms) -> Step:
    # In one go, as nearly every delivery ends here: it is `_ended`, with what an attempt leaves.
    attempt = Attempt(
        attempt=row.attempts + 1,
        started_ms=event.started_ms,
        duration_ms=event.duration_ms,
        result=AttemptResult.DELIVERED,
        status_code=event.status_code,
    )
    after = msgspec.structs.replace(
        row,
        status=Status.DELIVERED,
        reason=None,
        next_at_ms=None,
        expires_at_ms=now_ms + terms.history_ms,
        body=None,
        attempts=attempt.attempt,
        first_at_ms=event.started_ms if row.first_at_ms is None else row.first_at_ms,
        last_at_ms=event.started_ms,
        delivered_at_ms=event.started_ms + event.duration_ms,
        status_code=event.status_code,
        error=None,
        duration_ms=event.duration_ms,
        response_body=None,
        attempt_log=(*row.attempt_log, attempt)[-ATTEMPT_LOG_LIMIT:],
    )
    return Step(Delivery(after), changed=True, attempt=attempt)


def _time_passed(before: Delivery, row: DeliveryRow, now_ms: int, terms: Terms) -> Step:
    if now_ms < row.expires_at_ms:
        return Step(before)
    return _given_up(row, Reason.EXPIRED, now_ms, terms) if row.status.waits else Step(Delivery(), changed=True)


def _row_of(intent: Intent, now_ms: int, terms: Terms) -> DeliveryRow:
    return DeliveryRow(
        delivery_id=intent.delivery_id,
        webhook_id=intent.webhook_id,
        event_id=intent.event_id,
        event_source=intent.event_source,
        event_type=intent.event_type,
        subject=intent.subject,
        correlation_id=intent.correlation_id,
        traceparent=intent.traceparent,
        origin=intent.origin,
        sequence=intent.sequence,
        request_id=intent.request_id,
        status=Status.PENDING,
        created_at_ms=now_ms,
        waiting_since_ms=now_ms,
        next_at_ms=now_ms,
        expires_at_ms=_gives_up_ms(now_ms, intent.event_expires_ms, terms),
        event_time_ms=intent.event_time_ms,
        event_expires_ms=intent.event_expires_ms,
        body=intent.body,
    )


def _gives_up_ms(now_ms: int, event_expires_ms: int | None, terms: Terms) -> int:
    too_old_ms = now_ms + terms.max_age_ms
    return too_old_ms if event_expires_ms is None else min(too_old_ms, event_expires_ms)


def _rejections(row: DeliveryRow, event: Answered) -> int:
    return row.rejections + (event.status_code in _REJECTING)


def _with_attempt(row: DeliveryRow, event: Answered) -> Step:
    """The row with what every attempt that failed leaves in it, whatever came of it."""
    attempt = Attempt(
        attempt=row.attempts + 1,
        started_ms=event.started_ms,
        duration_ms=event.duration_ms,
        result=AttemptResult.RETRY if row.status.waits else AttemptResult.FAILED,
        status_code=event.status_code,
        error=event.error,
        next_at_ms=row.next_at_ms,
    )
    after = msgspec.structs.replace(
        row,
        attempts=attempt.attempt,
        rejections=_rejections(row, event),
        first_at_ms=event.started_ms if row.first_at_ms is None else row.first_at_ms,
        last_at_ms=event.started_ms,
        delivered_at_ms=None,
        status_code=event.status_code,
        error=event.error,
        duration_ms=event.duration_ms,
        response_body=event.response_body or None,
        attempt_log=(*row.attempt_log, attempt)[-ATTEMPT_LOG_LIMIT:],
    )
    return Step(Delivery(after), changed=True, attempt=attempt)


def _given_up(row: DeliveryRow, reason: Reason, now_ms: int, terms: Terms) -> Step:
    ended = _ended(row, Status.FAILED, reason, now_ms, terms)
    return Step(Delivery(ended), changed=True, dead_letter=reason, body=row.body)


def _ended(row: DeliveryRow, status: Status, reason: Reason | None, now_ms: int, terms: Terms) -> DeliveryRow:
    kept_ms = terms.failed_history_ms if status is Status.FAILED else terms.history_ms
    return msgspec.structs.replace(
        row,
        status=status,
        reason=reason,
        # What was missed had no effect, so that whoever asks for it again under the same id gets it.
        request_id=None if status is Status.MISSED else row.request_id,
        next_at_ms=None,
        expires_at_ms=now_ms + kept_ms,
        body=None,
    )


def _end_of(webhook: WebhookState) -> Status:
    return Status.CANCELLED if webhook is WebhookState.DELETED else Status.MISSED
