"""Slots, pace, rate limit, and the worker's own cap."""

from __future__ import annotations

import pytest

from app.webhooks.pace import FAILING_PER_S, FIRST_GAP_S, GlobalSlots, Pace, PaceRules, Slots, TokenBucket


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


def test_pace_begins_after_ten_failures_over_ten_seconds() -> None:
    fast, slow = Pace(PaceRules()), Pace(PaceRules())
    for n in range(10):
        fast.failed(n * 0.5)
        slow.failed(n * 1.2)

    assert not fast.paced
    assert slow.paced
    assert slow.next_s == 9 * 1.2 + 1


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


def steady_after(failures: int, over_s: float, rules: PaceRules | None = None) -> bool:
    pace = Pace(rules or PaceRules())
    for n in range(failures):
        pace.failed(n * over_s / (failures - 1))
    return pace.steady


def test_a_webhook_fails_steadily_after_ten_failures_over_a_second_until_it_is_paced() -> None:
    assert steady_after(10, 1.0)
    assert not steady_after(10, 0.9)
    assert not steady_after(9, 5.0)
    assert steady_after(20, 9.9)
    assert not steady_after(20, 10.0)
    assert not steady_after(20, 5.0, PaceRules(after_failures=0))
    assert not steady_after(20, 5.0, PaceRules(after_s=2))


def test_one_success_is_the_end_of_failing_steadily() -> None:
    pace = Pace(PaceRules())
    for n in range(20):
        pace.failed(n * 0.1)
    pace.succeeded()
    assert not pace.steady

    pace.failed(2.1)
    assert not pace.steady


def test_those_that_fail_steadily_share_their_attempts_and_one_alone_has_nobody_to_share_with() -> None:
    slots, gaps_s = GlobalSlots(8), []
    for n in range(3):
        slots.mark_steady(f"wh_{n}", 5.0, steady=True)
        slots.mark_steady(f"wh_{n}", 5.0, steady=True)
        gaps_s.append(slots.failing_gap_s(5.0))
    assert gaps_s == [0, 1 / FAILING_PER_S, 2 / FAILING_PER_S]

    slots.mark_steady("wh_1", 5.0, steady=False)
    assert slots.failing_gap_s(5.0) == 1 / FAILING_PER_S
    for n in range(10_000):
        slots.mark_steady(f"wh_{n}", 5.0, steady=True)
    assert slots.failing_gap_s(5.0) == FIRST_GAP_S


def test_one_that_tries_nothing_any_more_shares_nothing() -> None:
    slots = GlobalSlots(8)
    for n in range(3):
        slots.mark_steady(f"wh_{n}", 5.0 + n, steady=True)
    slots.mark_steady("wh_0", 8.0, steady=True)

    assert slots.failing_gap_s(7.0) == 2 / FAILING_PER_S
    assert slots.failing_gap_s(8.5) == 1 / FAILING_PER_S
    assert slots.failing_gap_s(9.5) == 0


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
