"""Rate limits and the worker's slots under any load."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from app.webhooks.pace import LATENESS_S, GlobalSlots, TokenBucket

rates = st.floats(0.001, 1000)
SLACK = 1e-6


def attempts(rate_per_s: float, lateness_s: list[float], pauses_s: dict[int, float]) -> list[float]:
    """When attempts are made if there is always one to make but for some pauses, and timers are late."""
    now_s, made = 1000.0, []
    bucket = TokenBucket(rate_per_s, now_s)
    for turn, late_s in enumerate(lateness_s):
        now_s += pauses_s.get(turn, 0.0)
        while (ready_s := bucket.ready_at_s(now_s)) > now_s:
            now_s = ready_s + late_s
        bucket.take(now_s)
        made.append(now_s)
    return made


@given(rates, st.lists(st.floats(0, 1), min_size=2, max_size=60), st.dictionaries(st.integers(0, 59), st.floats(0, 5)))
def test_no_window_of_any_length_has_more_than_its_rate_and_one(
    rate_per_s: float, lateness_s: list[float], pauses_s: dict[int, float]
) -> None:
    made = attempts(rate_per_s, lateness_s, pauses_s)

    for first in range(len(made)):
        for last in range(first, len(made)):
            window_s = made[last] - made[first] + LATENESS_S
            assert last - first + 1 <= 1 + rate_per_s * window_s + SLACK


@given(st.floats(0.001, 1000), st.lists(st.floats(0, LATENESS_S), min_size=2, max_size=60))
def test_timers_that_are_late_cost_nothing_of_the_rate(rate_per_s: float, lateness_s: list[float]) -> None:
    made = attempts(rate_per_s, lateness_s, {})

    assert made[-1] - made[0] <= (len(made) - 1) / rate_per_s + LATENESS_S + SLACK


@given(rates, st.lists(st.floats(0, 100), min_size=1, max_size=60))
def test_the_next_token_is_never_further_away_than_one_step(rate_per_s: float, steps_s: list[float]) -> None:
    now_s = 0.0
    bucket = TokenBucket(rate_per_s, now_s)
    for step_s in steps_s:
        now_s += step_s
        ready_s = bucket.ready_at_s(now_s)
        assert now_s <= ready_s <= now_s + 1 / rate_per_s + SLACK
        bucket.take(ready_s)
        now_s = ready_s


@given(st.integers(2, 256), st.integers(1, 400))
def test_however_many_receivers_hang_the_next_one_finds_its_share(limit: int, hanging: int) -> None:
    slots = GlobalSlots(limit)
    for webhook in map(str, range(hanging)):
        while slots.available(webhook):
            slots.take(webhook)

    held = [slots._held.get(str(n), 0) for n in range(hanging)]
    assert sum(held) + slots.free == limit
    assert slots.free >= min(math.floor(limit / 2**hanging), limit)
    assert max(held) <= math.ceil(limit / 2)
