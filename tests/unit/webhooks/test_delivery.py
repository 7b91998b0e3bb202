"""The state table of architecture 5, row by row."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.webhooks.delivery import (
    Abandoned,
    Arrived,
    Delivery,
    DeliveryEvent,
    Due,
    NotInTable,
    NotMade,
    Step,
    Terms,
    TimePassed,
    WebhookEnded,
    transition,
)
from app.webhooks.intents import IntentReason
from app.webhooks.model import AttemptResult, DeliveryRow, Reason, Status, WebhookState
from app.webhooks.schedule import RetrySchedule
from tests.support.delivery_steps import BODY, ENDED, NOW, TERMS, after, answered, arrived, in_flight, intent, row

# -- none


def test_an_intent_for_a_disabled_webhook_is_missed_without_a_body() -> None:
    step = transition(Delivery(), arrived(webhook=WebhookState.DISABLED), NOW, TERMS)

    assert step.changed
    assert (after(step).status, after(step).body) == (Status.MISSED, None)
    assert after(step).expires_at_ms == NOW + TERMS.history_ms


def test_an_intent_that_can_start_is_in_flight_and_nothing_is_written() -> None:
    step = transition(Delivery(), arrived(), NOW, TERMS)

    assert step.after.in_flight
    assert not step.changed
    assert (after(step).status, after(step).body) == (Status.PENDING, BODY)


@pytest.mark.parametrize("wait", [Reason.SLOT, Reason.RATE, Reason.PACE, Reason.HOLD, Reason.ORDER, Reason.NO_KEY])
def test_an_intent_that_cannot_start_is_pending_with_its_body(wait: Reason) -> None:
    step = transition(Delivery(), arrived(wait=wait), NOW, TERMS)

    assert step.changed
    assert not step.after.in_flight
    assert (after(step).status, after(step).reason, after(step).body) == (Status.PENDING, wait, BODY)
    assert after(step).expires_at_ms == NOW + TERMS.max_age_ms


def test_an_intent_past_its_expirytime_is_given_up_without_asking_for_a_slot() -> None:
    def admit() -> Reason | None:
        raise AssertionError("it must not take a slot")

    event = Arrived(intent(event_expires_ms=NOW), WebhookState.ACTIVE, admit, NOW)
    step = transition(Delivery(), event, NOW, TERMS)

    assert (after(step).status, after(step).reason) == (Status.FAILED, Reason.EXPIRED)
    assert (step.dead_letter, step.body) == (Reason.EXPIRED, BODY)


# -- in flight, and its receiver was not asked


@pytest.mark.parametrize("reason", [Reason.NO_KEY, Reason.SLOT])
@pytest.mark.parametrize(
    "before",
    [row(), row(Status.RETRYING, attempts=3, attempts_before=1, rejections=2, next_at_ms=NOW - 5, error="timeout")],
)
def test_an_attempt_that_was_not_made_leaves_the_delivery_as_it_was_but_for_the_reason(
    before: DeliveryRow, reason: Reason
) -> None:
    step = transition(Delivery(before, in_flight=True), NotMade(reason, WebhookState.ACTIVE), NOW + 900_000, TERMS)

    assert step == Step(Delivery(msgspec.structs.replace(before, reason=reason)), changed=True)


@pytest.mark.parametrize(
    ("webhook", "status"), [(WebhookState.DISABLED, Status.MISSED), (WebhookState.DELETED, Status.CANCELLED)]
)
def test_of_a_webhook_that_ended_it_waits_no_more(webhook: WebhookState, status: Status) -> None:
    step = transition(in_flight(attempts=1), NotMade(Reason.SLOT, webhook), NOW, TERMS)

    assert (after(step).status, after(step).body, after(step).attempts) == (status, None, 1)
    assert (step.attempt, step.dead_letter) == (None, None)


# -- any


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("reason", [IntentReason.EVENT, IntentReason.PING])
def test_an_intent_that_is_known_changes_nothing(status: Status, reason: IntentReason) -> None:
    before = Delivery(row(status))

    assert transition(before, arrived(reason=reason), NOW, TERMS) == Step(before)


def test_an_intent_that_is_known_in_flight_changes_nothing() -> None:
    before = in_flight()

    assert transition(before, arrived(), NOW, TERMS) == Step(before)


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("reason", [IntentReason.RESEND, IntentReason.REPLAY])
def test_a_resend_or_replay_with_the_rows_own_last_request_id_changes_nothing(
    status: Status, reason: IntentReason
) -> None:
    before = Delivery(row(status, request_id="r1"))

    assert transition(before, arrived(reason=reason, request_id="r1"), NOW, TERMS) == Step(before)


def test_a_resend_in_flight_is_the_attempt_under_way() -> None:
    step = transition(in_flight(), arrived(reason=IntentReason.RESEND, request_id="r1"), NOW, TERMS)

    assert step.after.in_flight
    assert not step.changed
    assert after(step).request_id == "r1"


def test_a_resend_to_a_disabled_webhook_can_be_asked_for_again_once_it_is_enabled() -> None:
    before = Delivery(row(Status.FAILED))
    event = arrived(reason=IntentReason.RESEND, request_id="r1", webhook=WebhookState.DISABLED)

    assert transition(before, event, NOW, TERMS) == Step(before)


@pytest.mark.parametrize(
    ("before", "event"),
    [
        (Delivery(), arrived(reason=IntentReason.REPLAY, request_id="r1", webhook=WebhookState.DISABLED)),
        (Delivery(row(Status.RETRYING, request_id="r1")), WebhookEnded(WebhookState.DISABLED)),
        (in_flight(request_id="r1"), answered(500, webhook=WebhookState.DISABLED)),
    ],
)
def test_a_replay_that_a_disabled_webhook_missed_can_be_asked_for_again_once_it_is_enabled(
    before: Delivery, event: DeliveryEvent
) -> None:
    missed = transition(before, event, NOW, TERMS).after
    again = transition(missed, arrived(reason=IntentReason.REPLAY, request_id="r1"), NOW, TERMS)

    assert missed.row is not None
    assert missed.row.status is Status.MISSED
    assert (after(again).status, after(again).request_id) == (Status.RETRYING, "r1")


# -- in flight


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_2xx_is_delivered(status: int) -> None:
    step = transition(in_flight(), answered(status, response_body="thanks"), NOW, TERMS)

    assert (after(step).status, after(step).body, after(step).response_body) == (Status.DELIVERED, None, None)
    assert after(step).delivered_at_ms == NOW + 12
    assert step.attempt is not None
    assert step.attempt.result is AttemptResult.DELIVERED
    assert step.dead_letter is None


@pytest.mark.parametrize("status", [302, 408, 425, 451, 500, 502, 503])
def test_a_retriable_answer_waits_for_the_next_step(status: int) -> None:
    step = transition(in_flight(), answered(status), NOW, TERMS)

    assert (after(step).status, after(step).reason) == (Status.RETRYING, Reason.RETRY)
    assert after(step).next_at_ms == NOW + 5_000
    assert after(step).body == BODY
    assert step.attempt is not None
    assert (step.attempt.result, step.attempt.next_at_ms) == (AttemptResult.RETRY, NOW + 5_000)
    assert step.hold_until_ms is None


@pytest.mark.parametrize("error", ["dns", "connect", "tls", "timeout", "reset", "too_large", "forbidden_target"])
def test_an_attempt_without_an_answer_waits_for_the_next_step(error: str) -> None:
    step = transition(in_flight(), answered(None, error=error), NOW, TERMS)

    assert (after(step).status, after(step).error, after(step).status_code) == (Status.RETRYING, error, None)


def test_jitter_is_added_to_the_step() -> None:
    step = transition(in_flight(), answered(500, uniform=lambda: 0.5), NOW, TERMS)

    assert after(step).next_at_ms == NOW + 6_000


def test_a_step_of_0_has_no_jitter() -> None:
    terms = Terms(RetrySchedule((0, 0, 5)), 1, 1, 600_000)

    step = transition(in_flight(), answered(500, uniform=lambda: 0.99), NOW, terms)

    assert after(step).next_at_ms == NOW


def test_a_retry_after_is_capped_at_the_longest_step_of_the_schedule() -> None:
    for status in (429, 503):
        step = transition(in_flight(), answered(status, retry_after_s=10**9), NOW, TERMS)
        assert after(step).next_at_ms == NOW + 300_000
        assert step.hold_until_ms == (NOW + 300_000 if status == 429 else None)


def test_the_429_that_is_the_last_attempt_holds_the_webhook_too() -> None:
    step = transition(in_flight(status=Status.RETRYING, attempts=2), answered(429, retry_after_s=60), NOW, TERMS)

    assert (after(step).status, after(step).reason) == (Status.FAILED, Reason.EXHAUSTED)
    assert step.hold_until_ms == NOW + 60_000


def test_a_retry_after_beyond_the_step_is_honoured_and_a_shorter_one_is_not() -> None:
    longer = transition(in_flight(), answered(503, retry_after_s=60), NOW, TERMS)
    shorter = transition(in_flight(), answered(503, retry_after_s=1), NOW, TERMS)

    assert after(longer).next_at_ms == NOW + 60_000
    assert after(shorter).next_at_ms == NOW + 5_000
    assert longer.hold_until_ms is None


def test_429_also_holds_the_webhook() -> None:
    asked = transition(in_flight(), answered(429, retry_after_s=30), NOW, TERMS)
    unasked = transition(in_flight(), answered(429), NOW, TERMS)

    assert asked.hold_until_ms == NOW + 30_000
    assert unasked.hold_until_ms == NOW + 5_000


def test_410_is_gone_and_disables_the_webhook_without_a_dead_letter() -> None:
    step = transition(in_flight(), answered(410), NOW, TERMS)

    assert (after(step).status, after(step).reason) == (Status.FAILED, Reason.GONE)
    assert step.disable_webhook
    assert step.dead_letter is None
    assert step.attempt is not None


def test_without_a_step_left_it_is_exhausted_with_a_dead_letter() -> None:
    step = transition(in_flight(status=Status.RETRYING, attempts=2), answered(500), NOW, TERMS)

    assert (after(step).status, after(step).reason, after(step).attempts) == (Status.FAILED, Reason.EXHAUSTED, 3)
    assert (step.dead_letter, step.body) == (Reason.EXHAUSTED, BODY)
    assert after(step).expires_at_ms == NOW + TERMS.failed_history_ms
    assert step.attempt is not None
    assert step.attempt.result is AttemptResult.FAILED


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 415, 422])
def test_the_third_rejecting_answer_is_the_last(status: int) -> None:
    terms = Terms(RetrySchedule((0, 1, 1, 1, 1)), 1, 1, 600_000)
    state = Delivery(row(), in_flight=True)
    steps = []
    for _ in range(3):
        step = transition(state, answered(status), NOW, terms)
        steps.append((after(step).status, after(step).reason))
        state = Delivery(after(step), in_flight=True)

    assert steps == [(Status.RETRYING, Reason.RETRY)] * 2 + [(Status.FAILED, Reason.REJECTED)]


def test_an_abandoned_attempt_leaves_everything_as_it_was() -> None:
    before = in_flight(status=Status.RETRYING, attempts=1)

    step = transition(before, Abandoned(), NOW, TERMS)

    assert step == Step(Delivery(before.row))


@pytest.mark.parametrize(
    ("webhook", "status"), [(WebhookState.DELETED, Status.CANCELLED), (WebhookState.DISABLED, Status.MISSED)]
)
def test_a_failure_while_the_webhook_ends_is_not_retried(webhook: WebhookState, status: Status) -> None:
    step = transition(in_flight(), answered(500, webhook=webhook), NOW, TERMS)

    assert (after(step).status, after(step).body) == (status, None)
    assert step.attempt is not None


# -- waits


@pytest.mark.parametrize("status", [Status.PENDING, Status.RETRYING])
def test_what_is_due_and_startable_is_in_flight(status: Status) -> None:
    step = transition(Delivery(row(status)), Due(), NOW, TERMS)

    assert step.after.in_flight
    assert not step.changed


@pytest.mark.parametrize("event", [Due(), TimePassed()])
def test_what_waited_too_long_fails_as_expired_without_an_attempt(event: Due | TimePassed) -> None:
    step = transition(Delivery(row(Status.RETRYING, attempts=2)), event, NOW + 600_000, TERMS)

    assert (after(step).status, after(step).reason, after(step).attempts) == (Status.FAILED, Reason.EXPIRED, 2)
    assert (step.dead_letter, step.body, step.attempt) == (Reason.EXPIRED, BODY, None)
    assert not step.after.in_flight


def test_the_events_own_expirytime_counts_when_it_is_earlier() -> None:
    parked = transition(Delivery(), arrived(wait=Reason.SLOT, event_expires_ms=NOW + 1000), NOW, TERMS)

    assert after(parked).expires_at_ms == NOW + 1000


def test_a_row_that_has_not_expired_stays() -> None:
    before = Delivery(row(Status.RETRYING))

    assert transition(before, TimePassed(), NOW, TERMS) == Step(before)


def test_a_resend_makes_what_waits_due_now() -> None:
    before = Delivery(row(Status.RETRYING, next_at_ms=NOW + 300_000, attempts=2))

    step = transition(before, arrived(reason=IntentReason.RESEND, request_id="r1"), NOW, TERMS)

    assert (after(step).status, after(step).reason, after(step).next_at_ms) == (Status.RETRYING, Reason.RESEND, NOW)
    assert (after(step).request_id, after(step).attempts) == ("r1", 2)


@pytest.mark.parametrize("status", [Status.PENDING, Status.RETRYING])
@pytest.mark.parametrize(
    ("webhook", "end"), [(WebhookState.DELETED, Status.CANCELLED), (WebhookState.DISABLED, Status.MISSED)]
)
def test_what_waits_ends_with_its_webhook(status: Status, webhook: WebhookState, end: Status) -> None:
    step = transition(Delivery(row(status)), WebhookEnded(webhook), NOW, TERMS)

    assert step.changed
    assert (after(step).status, after(step).body, after(step).next_at_ms) == (end, None, None)


# -- ended


@pytest.mark.parametrize("status", ENDED)
def test_a_resend_opens_an_ended_delivery_again_with_a_fresh_schedule(status: Status) -> None:
    before = Delivery(row(status, attempts=3, rejections=3))

    step = transition(before, arrived(reason=IntentReason.RESEND, request_id="r1"), NOW + 5, TERMS)

    again = after(step)
    assert (again.status, again.reason, again.next_at_ms, again.body) == (
        Status.RETRYING,
        Reason.RESEND,
        NOW + 5,
        BODY,
    )
    assert (again.resends, again.attempts_before, again.rejections) == (1, 3, 0)
    failed = transition(Delivery(again, in_flight=True), answered(500), NOW + 5, TERMS)
    assert (after(failed).status, after(failed).attempts) == (Status.RETRYING, 4)
    assert after(failed).next_at_ms == NOW + 5 + 5_000


@pytest.mark.parametrize("status", ENDED)
def test_what_is_resent_waits_as_long_as_what_is_new_but_not_past_its_expirytime(status: Status) -> None:
    def expires_ms(event_expires_ms: int | None) -> int:
        resend = arrived(reason=IntentReason.RESEND, request_id="r1")
        before = Delivery(row(status, event_expires_ms=event_expires_ms))
        return after(transition(before, resend, NOW + 9_000, TERMS)).expires_at_ms

    assert expires_ms(None) == NOW + 9_000 + TERMS.max_age_ms
    assert expires_ms(NOW + 10_000) == NOW + 10_000


@pytest.mark.parametrize(
    ("ended", "kept_ms"),
    [
        (transition(in_flight(), answered(200), NOW, TERMS), TERMS.history_ms),
        (transition(Delivery(row()), WebhookEnded(WebhookState.DISABLED), NOW, TERMS), TERMS.history_ms),
        (transition(Delivery(row()), WebhookEnded(WebhookState.DELETED), NOW, TERMS), TERMS.history_ms),
        (transition(in_flight(), answered(410), NOW, TERMS), TERMS.failed_history_ms),
        (transition(Delivery(row()), Due(), NOW + 600_000, TERMS), 600_000 + TERMS.failed_history_ms),
    ],
)
def test_what_failed_is_remembered_for_longer_than_what_ended_well(ended: Step, kept_ms: int) -> None:
    assert after(ended).expires_at_ms == NOW + kept_ms


@pytest.mark.parametrize("status", ENDED)
def test_an_ended_row_is_gone_after_its_history(status: Status) -> None:
    ended = row(status)

    assert transition(Delivery(ended), TimePassed(), ended.expires_at_ms - 1, TERMS) == Step(Delivery(ended))
    assert transition(Delivery(ended), TimePassed(), ended.expires_at_ms, TERMS) == Step(Delivery(), changed=True)


# -- what cannot be


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (Delivery(), Due()),
        (Delivery(), Abandoned()),
        (Delivery(row(Status.DELIVERED)), Due()),
        (Delivery(row(Status.PENDING)), answered(200)),
        (Delivery(row(), in_flight=True), Due()),
        (Delivery(row(), in_flight=True), TimePassed()),
        (Delivery(row(Status.FAILED)), WebhookEnded(WebhookState.DELETED)),
    ],
)
def test_a_pair_that_the_table_does_not_have_is_a_bug_of_the_caller(state: Delivery, event: Any) -> None:
    with pytest.raises(NotInTable):
        transition(state, event, NOW, TERMS)


def test_the_row_keeps_the_last_twenty_attempts() -> None:
    state = Delivery(row(), in_flight=True)
    terms = Terms(RetrySchedule((1,) * 30), 1, 1, 600_000)
    for _ in range(25):
        state = Delivery(after(transition(state, answered(500), NOW, terms)), in_flight=True)

    assert state.row is not None
    assert [a.attempt for a in state.row.attempt_log] == list(range(6, 26))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state.row), type=DeliveryRow) == state.row
