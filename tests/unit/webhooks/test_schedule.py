from __future__ import annotations

import math

import pytest

from app.webhooks.errors import InvalidSchedule
from app.webhooks.schedule import RetrySchedule, jitter_width_s

H = 3600


def no_jitter() -> float:
    return 0.0


def most_jitter() -> float:
    return math.nextafter(1.0, 0.0)


class TestSteps:
    def test_the_default_is_that_of_the_contract(self) -> None:
        schedule = RetrySchedule()

        waits_s = [schedule.next_wait_s(made, no_jitter) for made in range(schedule.attempts)]

        assert waits_s == [0, 5, 300, 1800, 2 * H, 5 * H, 10 * H, 14 * H, 20 * H, 24 * H]

    def test_after_the_last_step_there_is_no_attempt(self) -> None:
        assert RetrySchedule().next_wait_s(10, no_jitter) is None

    def test_a_webhook_may_have_its_own(self) -> None:
        schedule = RetrySchedule.of([0, 1, 1, 2])

        assert [schedule.next_wait_s(made, no_jitter) for made in range(5)] == [0, 1, 1, 2, None]

    def test_the_seeds_settings_make_a_linear_one_with_max_retries_attempts_in_all(self) -> None:
        assert RetrySchedule.linear(4, 10).steps_s == (0, 10, 20, 30)

    @pytest.mark.parametrize(
        ("steps_s", "field"),
        [
            ([], "/retry_schedule_s"),
            ([0] * 51, "/retry_schedule_s"),
            ([0, -1], "/retry_schedule_s/1"),
            ([0, 5, 604_801], "/retry_schedule_s/2"),
            ([math.nan], "/retry_schedule_s/0"),
            ([math.inf], "/retry_schedule_s/0"),
            ([True], "/retry_schedule_s/0"),
            (["5"], "/retry_schedule_s/0"),
        ],
    )
    def test_a_bad_schedule_is_refused_by_the_place(self, steps_s: list[float], field: str) -> None:
        with pytest.raises(InvalidSchedule) as refused:
            RetrySchedule.of(steps_s)

        assert refused.value.field == field

    @pytest.mark.parametrize("max_retries", [-1, 0, 51, 10**12])
    def test_a_linear_schedule_has_the_same_limits(self, max_retries: int) -> None:
        with pytest.raises(InvalidSchedule, match="1 to 50 steps"):
            RetrySchedule.linear(max_retries, 1)


class TestJitter:
    @pytest.mark.parametrize(
        ("step_s", "width_s"),
        [(0, 0), (1, 2), (5, 2), (20, 2), (300, 30), (2 * H, 720), (5 * H, 900), (24 * H, 900)],
    )
    def test_it_adds_up_to_a_tenth_from_2_s_to_15_min_and_nothing_to_a_step_of_0(
        self, step_s: float, width_s: float
    ) -> None:
        assert jitter_width_s(step_s) == pytest.approx(width_s)

    def test_it_is_only_ever_added(self) -> None:
        schedule = RetrySchedule.of([0, 300])

        assert schedule.next_wait_s(1, no_jitter) == 300
        assert schedule.next_wait_s(1, most_jitter) == pytest.approx(330)


class TestRetryAfter:
    def test_a_longer_wait_that_the_receiver_asks_for_is_honoured(self) -> None:
        assert RetrySchedule().next_wait_s(1, no_jitter, retry_after_s=120) == 120

    def test_a_shorter_one_does_not_shorten_the_step(self) -> None:
        assert RetrySchedule().next_wait_s(2, no_jitter, retry_after_s=1) == 300

    def test_it_is_capped_at_the_longest_step(self) -> None:
        assert RetrySchedule().next_wait_s(1, no_jitter, retry_after_s=10**9) == 24 * H
        assert RetrySchedule.of([0, 1, 1, 2]).next_wait_s(1, no_jitter, retry_after_s=120) == 2

    def test_it_adds_no_attempt(self) -> None:
        assert RetrySchedule.of([0]).next_wait_s(1, no_jitter, retry_after_s=120) is None


class TestHold:
    def test_a_429_holds_the_webhook_as_long_as_it_asks_capped_at_the_longest_step(self) -> None:
        assert RetrySchedule().hold_s(1, retry_after_s=120) == 120
        assert RetrySchedule().hold_s(1, retry_after_s=10**9) == 24 * H

    def test_without_a_retry_after_it_holds_for_the_deliverys_next_step_at_most_60_s(self) -> None:
        assert RetrySchedule().hold_s(1) == 5
        assert RetrySchedule().hold_s(2) == 60

    def test_where_no_step_is_left_it_holds_for_the_last_one_at_most_60_s(self) -> None:
        assert RetrySchedule().hold_s(10) == 60
        assert RetrySchedule.of([0, 3]).hold_s(2) == 3
