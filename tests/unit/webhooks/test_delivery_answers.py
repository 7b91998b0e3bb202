"""What an answer leaves in the row of its delivery, for any row and any answer, field by field."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from app.webhooks.delivery import Answered, Delivery, transition
from app.webhooks.model import ATTEMPT_LOG_LIMIT, Attempt, AttemptResult, DeliveryRow, Reason, Status, WebhookState
from tests.support.delivery_steps import NOW, TERMS

REJECTING: Final = {400, 401, 403, 404, 405, 413, 415, 422}
RESULTS: Final = {Status.DELIVERED: AttemptResult.DELIVERED, Status.RETRYING: AttemptResult.RETRY}

names = st.text("abc", min_size=1, max_size=3)
counts = st.integers(0, 9)
times_ms = st.integers(NOW - 10**6, NOW + 10**6)
codes = st.sampled_from([301, 400, 404, 408, 410, 413, 422, 429, 500, 503])
attempts = st.builds(
    Attempt,
    attempt=st.integers(1, 9),
    started_ms=times_ms,
    duration_ms=counts,
    result=st.sampled_from(AttemptResult),
    status_code=st.none() | codes,
    error=st.none() | names,
    next_at_ms=st.none() | times_ms,
)


@st.composite
def rows(draw: st.DrawFn) -> DeliveryRow:
    """Whatever a row may hold while its POST is under way, and what no row does: more fails here than can happen."""
    before = draw(counts)
    return draw(
        st.builds(
            DeliveryRow,
            delivery_id=names,
            webhook_id=names,
            event_id=names,
            event_source=names,
            event_type=names,
            subject=st.none() | names,
            correlation_id=st.none() | names,
            traceparent=st.none() | names,
            origin=names,
            sequence=counts,
            request_id=names,
            status=st.sampled_from([Status.PENDING, Status.RETRYING]),
            reason=st.none() | st.sampled_from(Reason),
            attempts=st.integers(before, before + 4),
            attempts_before=st.just(before),
            rejections=st.integers(0, 3),
            resends=counts,
            created_at_ms=times_ms,
            waiting_since_ms=times_ms,
            next_at_ms=times_ms,
            expires_at_ms=times_ms,
            event_time_ms=st.none() | times_ms,
            event_expires_ms=st.none() | times_ms,
            first_at_ms=st.none() | times_ms,
            last_at_ms=st.none() | times_ms,
            delivered_at_ms=times_ms,
            status_code=st.none() | codes,
            error=st.none() | names,
            duration_ms=st.none() | counts,
            response_body=names,
            attempt_log=st.lists(attempts, max_size=2).map(tuple)
            | st.lists(attempts, min_size=1, max_size=1).map(lambda one: tuple(one * ATTEMPT_LOG_LIMIT)),
            body=names.map(str.encode),
        )
    )


@st.composite
def answers(draw: st.DrawFn) -> Answered:
    """A success, a refusal, or no answer."""
    status_code = draw(st.none() | st.sampled_from([200, 204, 299]) | codes)
    ok = status_code is not None and status_code < 300
    return Answered(
        started_ms=draw(times_ms),
        duration_ms=draw(st.integers(10, 99)),
        status_code=status_code,
        error=None if ok else draw(names),
        response_body=draw(st.just("") | names),
        retry_after_s=draw(st.none() | st.just(45.0)),
        webhook=draw(st.sampled_from(WebhookState)),
        uniform=lambda: 0.5,
        moved=draw(st.booleans()),
    )


def left_by(row: DeliveryRow, answer: Answered, after: DeliveryRow) -> dict[str, Any]:
    """What every attempt leaves; of what comes of it the log alone says something."""
    ok = answer.error is None
    attempt = Attempt(
        attempt=row.attempts + 1,
        started_ms=answer.started_ms,
        duration_ms=answer.duration_ms,
        result=RESULTS.get(after.status, AttemptResult.FAILED),
        status_code=answer.status_code,
        error=answer.error,
        next_at_ms=after.next_at_ms,
    )
    return {
        "attempts": row.attempts + 1,
        "rejections": row.rejections + (answer.status_code in REJECTING),
        "first_at_ms": row.first_at_ms or answer.started_ms,
        "last_at_ms": answer.started_ms,
        "delivered_at_ms": answer.started_ms + answer.duration_ms if ok else None,
        "status_code": answer.status_code,
        "error": answer.error,
        "duration_ms": answer.duration_ms,
        "response_body": None if ok else answer.response_body or None,
        "attempt_log": (*row.attempt_log, attempt)[-20:],
    }


def made_of(row: DeliveryRow, answer: Answered, after: DeliveryRow) -> dict[str, Any]:
    """What `after.status` makes of the row: it waits again, or has ended and keeps what was asked for no longer."""
    if after.status is Status.RETRYING:
        return {"reason": Reason.RETRY, "next_at_ms": after.next_at_ms}
    kept_ms = 604_800_000 if after.status is Status.FAILED else 86_400_000
    return {
        "reason": reason_of(row, answer, after),
        "next_at_ms": None,
        "expires_at_ms": NOW + kept_ms,
        "body": None,
        "request_id": None if after.status is Status.MISSED else row.request_id,
    }


def reason_of(row: DeliveryRow, answer: Answered, after: DeliveryRow) -> Reason | None:
    if after.status is not Status.FAILED:
        return None
    if answer.status_code == 410 and not answer.moved:
        return Reason.GONE
    return Reason.REJECTED if row.rejections + (answer.status_code in REJECTING) >= 3 else Reason.EXHAUSTED


def check(row: DeliveryRow, answer: Answered) -> None:
    step = transition(Delivery(row, in_flight=True), answer, NOW, TERMS)
    after = step.after.row
    assert after is not None
    assert step.changed
    assert not step.after.in_flight
    assert (after.status is Status.DELIVERED) is (answer.error is None)
    changes = {"status": after.status, **left_by(row, answer, after), **made_of(row, answer, after)}
    assert msgspec.structs.asdict(after) == msgspec.structs.asdict(row) | changes
    assert step.attempt == after.attempt_log[-1]
    given_up = after.status is Status.FAILED and after.reason is not Reason.GONE
    assert (step.dead_letter, step.body) == ((after.reason, row.body) if given_up else (None, None))


@given(rows(), answers())
def test_every_answer_leaves_the_same_in_the_row_and_touches_nothing_else(row: DeliveryRow, answer: Answered) -> None:
    check(row, answer)


@pytest.mark.parametrize(
    "field",
    [
        "status", "reason", "request_id", "next_at_ms", "expires_at_ms", "body", "attempts", "rejections",
        "first_at_ms", "last_at_ms", "delivered_at_ms", "status_code", "error", "duration_ms",
        "response_body", "attempt_log",
    ],
)  # fmt: skip
def test_one_that_is_forgotten_is_found(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    replace = msgspec.structs.replace

    def forgetful(struct: Any, **changes: Any) -> Any:
        if isinstance(struct, DeliveryRow):
            changes.pop(field, None)
        return replace(struct, **changes)

    monkeypatch.setattr(msgspec.structs, "replace", forgetful)
    seek = settings(max_examples=500, phases=[Phase.generate], database=None, derandomize=True)
    with pytest.raises((AssertionError, ExceptionGroup)):
        seek(given(rows(), answers())(check))()
