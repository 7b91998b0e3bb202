"""One delivery under any order of events: what always holds, whatever happens."""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.webhooks.delivery import (
    REJECTIONS_LIMIT,
    Abandoned,
    Answered,
    Arrived,
    Delivery,
    Due,
    NotMade,
    Step,
    Terms,
    TimePassed,
    WebhookEnded,
    transition,
)
from app.webhooks.intents import Intent, IntentReason
from app.webhooks.model import DeliveryRow, Reason, Status, WebhookState
from app.webhooks.schedule import RetrySchedule

BODY = b"{}"
STEPS_S = (0.0, 5.0, 30.0, 60.0)
TERMS = Terms(RetrySchedule(STEPS_S), history_ms=50_000, failed_history_ms=90_000, max_age_ms=300_000)
LETTERS = {Reason.EXHAUSTED, Reason.REJECTED, Reason.EXPIRED}


class DeliveryMachine(RuleBasedStateMachine):
    """Keeps the table's row beside the state in memory, as the agent does."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_000_000
        self.state = Delivery()
        self.stored: DeliveryRow | None = None
        self.webhook = WebhookState.ACTIVE
        self.requests = 0
        self.posts_since_opened = 0
        self.letters = 0

    def apply(self, step: Step) -> None:
        before = self.state.row
        self.state = step.after
        after = step.after.row
        if step.changed:
            self.stored = after
            if after is not None:
                assert msgspec.msgpack.decode(msgspec.msgpack.encode(after), type=DeliveryRow) == after
        gave_up = after is not None and step.changed and after.status is Status.FAILED and after.reason in LETTERS
        assert (step.dead_letter is not None) == gave_up
        if step.dead_letter is not None:
            assert step.body == BODY
            self.letters += 1
        if before is not None and after is not None:
            assert after.attempts - before.attempts == (step.attempt is not None)

    @rule(seconds=st.sampled_from([0.5, 5, 40, 400]))
    def time_passes(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)

    @rule(wait=st.sampled_from([None, Reason.SLOT, Reason.ORDER]), again=st.booleans(), new_request=st.booleans())
    def intent_arrives(self, wait: Reason | None, again: bool, new_request: bool) -> None:
        self.requests += new_request
        intent = Intent(
            delivery_id="dlv_1",
            webhook_id="wh_1",
            reason=IntentReason.RESEND if again else IntentReason.EVENT,
            request_id=f"r{self.requests}" if again else None,
            sequence=1,
            event_id="e1",
            event_source="/v",
            event_type="t",
            body=BODY,
        )
        ended = self.state.row is not None and not self.state.row.status.waits
        if self.state.row is None:
            self.posts_since_opened = 0
        event = Arrived(intent, self.webhook, lambda: wait, self.now_ms)
        self.apply(transition(self.state, event, self.now_ms, TERMS))
        if ended and self.state.row is not None and self.state.row.status.waits:
            assert again
            self.posts_since_opened = 0

    @precondition(lambda self: self.state.in_flight)
    @rule(
        status=st.sampled_from([200, 204, 302, 400, 404, 410, 429, 500, 503, None]),
        retry_after_s=st.none() | st.just(45),
    )
    def answer(self, status: int | None, retry_after_s: int | None) -> None:
        error = "timeout" if status is None else None if 200 <= status < 300 else f"status_{status}"
        self.posts_since_opened += 1
        event = Answered(
            started_ms=self.now_ms,
            duration_ms=1,
            status_code=status,
            error=error,
            response_body="",
            retry_after_s=retry_after_s,
            webhook=self.webhook,
            uniform=lambda: 0.5,
        )
        step = transition(self.state, event, self.now_ms, TERMS)
        assert step.attempt is not None
        if step.after.row is not None and step.after.row.next_at_ms is not None:
            assert step.after.row.next_at_ms >= self.now_ms + STEPS_S[self.posts_since_opened] * 1000
        assert step.disable_webhook == (status == 410)
        self.apply(step)
        if step.disable_webhook:
            self.webhook = WebhookState.DISABLED

    @precondition(lambda self: self.state.in_flight)
    @rule(reason=st.sampled_from([Reason.NO_KEY, Reason.SLOT]))
    def attempt_is_not_made(self, reason: Reason) -> None:
        before = self.state.row
        step = transition(self.state, NotMade(reason, self.webhook), self.now_ms, TERMS)
        assert (step.attempt, step.dead_letter, step.hold_until_ms, step.disable_webhook) == (None, None, None, False)
        self.apply(step)
        if self.webhook is WebhookState.ACTIVE:
            assert before is not None
            assert self.stored == msgspec.structs.replace(before, reason=reason)
        else:
            assert not self.waits

    @precondition(lambda self: self.state.in_flight)
    @rule()
    def worker_dies(self) -> None:
        transition(self.state, Abandoned(), self.now_ms, TERMS)
        self.state = Delivery(self.stored)
        if self.stored is None:
            self.posts_since_opened = 0

    @precondition(lambda self: self.waits and self.webhook is WebhookState.ACTIVE)
    @rule()
    def is_pulled(self) -> None:
        row = self.state.row
        assert row is not None
        expired = self.now_ms >= row.expires_at_ms
        self.apply(transition(self.state, Due(), self.now_ms, TERMS))
        assert self.state.in_flight != expired

    @precondition(lambda self: self.state.row is not None and not self.state.in_flight)
    @rule()
    def is_swept(self) -> None:
        self.apply(transition(self.state, TimePassed(), self.now_ms, TERMS))

    @precondition(lambda self: self.webhook is WebhookState.ACTIVE)
    @rule(state=st.sampled_from([WebhookState.DISABLED, WebhookState.DELETED]))
    def webhook_ends(self, state: WebhookState) -> None:
        self.webhook = state
        if self.waits:
            self.apply(transition(self.state, WebhookEnded(state), self.now_ms, TERMS))

    @precondition(lambda self: self.webhook is WebhookState.DISABLED)
    @rule()
    def webhook_is_enabled(self) -> None:
        self.webhook = WebhookState.ACTIVE

    @property
    def waits(self) -> bool:
        return self.state.row is not None and self.state.row.status.waits and not self.state.in_flight

    @invariant()
    def a_row_has_its_body_exactly_while_it_waits(self) -> None:
        row = self.state.row
        if row is not None:
            assert (row.body is not None) == row.status.waits
            assert (row.next_at_ms is not None) == row.status.waits

    @invariant()
    def memory_and_table_agree_unless_it_is_in_flight(self) -> None:
        if not self.state.in_flight:
            assert self.state.row == self.stored

    @invariant()
    def nobody_is_asked_more_often_than_the_schedule_says(self) -> None:
        assert self.posts_since_opened <= len(STEPS_S)
        row = self.state.row
        if row is not None:
            assert row.rejections <= REJECTIONS_LIMIT

    @invariant()
    def only_pending_has_no_attempt_behind_it(self) -> None:
        row = self.state.row
        if row is not None and row.status is Status.PENDING:
            assert row.attempts == 0


TestDeliveryMachine = DeliveryMachine.TestCase
TestDeliveryMachine.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
