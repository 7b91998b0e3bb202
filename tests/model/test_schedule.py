"""Whatever the schedule, the luck and the receiver: the promises of contracts 2 about the time of a retry."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.webhooks.schedule import MAX_JITTER_S, MAX_STEP_S, MAX_STEPS, MAX_UNASKED_HOLD_S, RetrySchedule, jitter_width_s

steps = st.lists(st.one_of(st.integers(0, MAX_STEP_S), st.floats(0, MAX_STEP_S)), min_size=1, max_size=MAX_STEPS)
schedules = steps.map(RetrySchedule.of)
luck = st.floats(0, 1, exclude_max=True)
asked_s = st.none() | st.integers(0, 10**12)


@given(schedules, st.data())
def test_a_delivery_ends_after_as_many_attempts_as_there_are_steps(
    schedule: RetrySchedule, data: st.DataObject
) -> None:
    made = 0
    while schedule.next_wait_s(made, lambda: data.draw(luck), data.draw(asked_s)) is not None:
        made += 1

    assert made == len(schedule.steps_s)


@given(schedules, luck, asked_s, st.data())
def test_a_wait_is_never_shorter_than_its_step_nor_than_what_may_be_asked(
    schedule: RetrySchedule, drawn: float, retry_after_s: int | None, data: st.DataObject
) -> None:
    made = data.draw(st.integers(0, schedule.attempts - 1))

    wait_s = schedule.next_wait_s(made, lambda: drawn, retry_after_s)

    assert wait_s is not None
    assert wait_s >= schedule.steps_s[made]
    assert wait_s >= min(retry_after_s or 0, schedule.longest_s)


@given(schedules, luck, asked_s, st.data())
def test_no_receiver_can_push_an_attempt_beyond_the_longest_step_and_its_jitter(
    schedule: RetrySchedule, drawn: float, retry_after_s: int | None, data: st.DataObject
) -> None:
    made = data.draw(st.integers(0, schedule.attempts - 1))

    wait_s = schedule.next_wait_s(made, lambda: drawn, retry_after_s)

    assert wait_s is not None
    assert wait_s <= schedule.longest_s + jitter_width_s(schedule.longest_s)


@given(st.floats(0, MAX_STEP_S), st.floats(0, MAX_STEP_S))
def test_jitter_grows_with_the_step_and_has_an_end(one_s: float, other_s: float) -> None:
    low_s, high_s = sorted((one_s, other_s))

    assert 0 <= jitter_width_s(low_s) <= jitter_width_s(high_s) <= MAX_JITTER_S


@given(schedules, asked_s, st.integers(1, MAX_STEPS + 1))
def test_a_hold_never_outlasts_the_longest_step_nor_a_minute_unasked(
    schedule: RetrySchedule, retry_after_s: int | None, made: int
) -> None:
    hold_s = schedule.hold_s(made, retry_after_s)

    assert 0 <= hold_s <= schedule.longest_s
    assert retry_after_s is not None or hold_s <= MAX_UNASKED_HOLD_S
