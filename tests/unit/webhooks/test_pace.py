"""Slots, pace, rate limit, and the worker's own cap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from app.webhooks.pace import GlobalSlots, Pace, PaceRules, Slots, TokenBucket

if TYPE_CHECKING:
    from collections.abc import Iterable


def test_slots_start_at_four_double_to_the_limit_and_halve_to_one() -> None:
    slots = Slots(32)
    caps = [slots.cap]
    for _ in range(4):
        slots.grow()
        caps.append(slots.cap)
    for _ in range(6):
        slots.shrink()
        caps.append(slots.cap)

    assert caps == [4, 8, 16, 32, 32, 16, 8, 4, 2, 1, 1]


def test_slots_never_pass_a_lower_limit() -> None:
    slots = Slots(2)
    slots.grow()

    assert slots.cap == 2


def gaps_of(times_s: Iterable[float], rules: PaceRules | None = None) -> list[float | None]:
    """After failures at these times, each the only attempt in flight: the gap; None: not paced."""
    pace = Pace(rules or PaceRules())
    gaps: list[float | None] = []
    for now_s in times_s:
        pace.failed(now_s)
        gaps.append(round(pace.next_s - now_s, 6) if pace.paced else None)
    return gaps


def test_ten_failures_over_a_second_let_attempts_go_one_by_one_ten_a_second() -> None:
    assert gaps_of(n * 0.12 for n in range(12)) == [None] * 9 + [0.1] * 3


@pytest.mark.parametrize(
    "times_s",
    [
        pytest.param([n * 0.01 for n in range(50)], id="a moment"),
        pytest.param([n * 1.2 for n in range(9)], id="nine failures"),
    ],
)
def test_a_moment_or_a_few_failures_slow_nothing_down(times_s: list[float]) -> None:
    assert gaps_of(times_s) == [None] * len(times_s)


def test_ten_seconds_of_failures_begin_the_gaps_that_grow() -> None:
    assert gaps_of([n * 1.2 for n in range(10)] + [12.0, 14.0, 18.0]) == [None] * 9 + [1, 2, 4, 8]
    assert gaps_of([n * 0.5 for n in range(22)])[18:] == [0.1, 0.1, 1, 2]


def test_a_shorter_limit_than_a_second_begins_them_sooner() -> None:
    assert gaps_of([n * 0.1 for n in range(12)], PaceRules(after_s=0.5)) == [None] * 9 + [1, 2, 4]


def test_what_was_under_way_when_attempts_began_to_go_one_by_one_moves_none_of_them() -> None:
    pace = Pace(PaceRules())
    for n in range(40):
        pace.failed(n * 0.12, last=False)
    assert pace.next_s == pytest.approx(9 * 0.12 + 0.1)


def test_the_gap_doubles_up_to_its_maximum_and_one_success_ends_it() -> None:
    pace = Pace(PaceRules(after_failures=1, after_s=0, max_gap_s=30))
    gaps = []
    for _ in range(8):
        pace.failed(100.0)
        gaps.append(pace.next_s - 100)
    assert gaps == [1, 2, 4, 8, 16, 30, 30, 30]

    pace.succeeded()
    assert not pace.paced
    assert not pace.troubled


def test_what_was_under_way_when_the_pace_began_does_not_widen_the_gap() -> None:
    pace = Pace(PaceRules())
    for n in range(10):
        pace.failed(n * 1.2, last=False)
    began_s = pace.next_s
    for _ in range(20):
        pace.failed(11.0, last=False)
    assert pace.next_s == began_s == 9 * 1.2 + 1

    pace.failed(12.0)
    assert pace.next_s == 14


def test_no_failures_turn_pace_off() -> None:
    pace = Pace(PaceRules(after_failures=0))
    for n in range(100):
        pace.failed(n)

    assert not pace.paced


def test_a_rate_limit_lets_attempts_through_one_by_one() -> None:
    bucket = TokenBucket(2, 0.0)
    bucket.take(0.0)

    assert bucket.ready_at_s(0.0) == pytest.approx(0.45)
    assert bucket.ready_at_s(0.5) == 0.5
    bucket.take(0.5)
    assert bucket.ready_at_s(0.5) == pytest.approx(0.95)


def test_a_start_that_came_to_nothing_costs_no_token() -> None:
    bucket = TokenBucket(2, 0.0)
    bucket.take(0.0)
    bucket.give_back()

    assert bucket.ready_at_s(0.0) == 0.0


def test_a_rate_below_one_still_lets_one_through() -> None:
    bucket = TokenBucket(0.1, 0.0)
    bucket.take(0.0)

    assert bucket.ready_at_s(0.0) == pytest.approx(9.95)


def test_troubled_webhooks_hold_half_of_the_worker_together() -> None:
    slots = GlobalSlots(8)
    for webhook in ("a", "b"):
        slots.mark(webhook, troubled=True)
        slots.take(webhook)
        slots.take(webhook)

    assert not slots.available("a")
    assert slots.available("healthy")


def test_a_webhook_that_gets_into_trouble_counts_with_what_it_holds() -> None:
    slots = GlobalSlots(6)
    for webhook in ("a", "b", "b"):
        slots.take(webhook)
    slots.mark("b", troubled=True)
    slots.mark("a", troubled=True)
    assert not slots.available("a")

    slots.mark("a", troubled=False)
    assert slots.available("a")


def test_one_webhook_gets_no_more_slots_than_it_leaves_free() -> None:
    slots = GlobalSlots(8)
    while slots.available("a"):
        slots.take("a")
    assert slots.free == 4
    while slots.available("b"):
        slots.take("b")

    assert slots.free == 2
    assert slots.available("c")


def test_a_free_slot_wakes_who_waits_longest_and_once() -> None:
    slots = GlobalSlots(1)
    slots.take("a")
    woken: list[str] = []
    first, second = (lambda: woken.append("first")), (lambda: woken.append("second"))
    slots.wait(first)
    slots.wait(second)
    slots.wait(first)
    slots.give_back("a")
    assert woken == ["first"]

    slots.wake()
    slots.wake()
    assert woken == ["first", "second"]


def test_who_waits_for_the_troubled_half_is_not_woken_by_others() -> None:
    slots = GlobalSlots(4)
    for webhook in ("a", "a", "b"):
        slots.take(webhook)
    slots.mark("a", troubled=True)
    woken: list[str] = []
    slots.wait(lambda: woken.append("troubled"))
    slots.give_back("b")
    assert woken == []

    slots.give_back("a")
    assert woken == ["troubled"]
