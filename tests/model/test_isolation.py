"""Dead receivers next to healthy ones, in virtual time: what a healthy one waits, no dead one decides.

Only slots and pace are looked at; what the machine itself costs, `make bench` measures.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from app.webhooks.scheduler import Limits
from tests.support.simulation import Behaviour, Hook, Reply, World, breaks, from_then_on, hangs, refuses, resets, well

TOOK_S = 0.005
MOMENT_S = 0.02
"""Some time of a healthy receiver: so long may a delivery wait while another one of it is under way."""


def drips(attempt: int, now_s: float) -> Reply:
    """A body that never ends is cut by the total timeout."""
    return Reply(3600.0)


WAYS: Sequence[Behaviour] = (refuses, hangs(), resets, drips, breaks)


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize("timeout_s", [10.0, 30.0])
def test_next_to_one_that_hangs_15_s_a_healthy_receiver_waits_for_nothing(share: float, timeout_s: float) -> None:
    healthy, hanging = Hook("wh_a", well(TOOK_S)), Hook("wh_b", hangs(15.0), timeout_s)
    world = World([healthy, hanging])
    world.feed(healthy, 500 * (1 - share), 60)
    world.feed(hanging, 500 * share, 60)
    world.run_until(61)

    assert healthy.delivered == healthy.arrived
    assert max(healthy.waited_s) == 0.0


@pytest.mark.parametrize("numbers", [1, 4])
def test_next_to_30_dead_of_100_the_others_wait_for_nothing(numbers: int) -> None:
    hooks = [
        Hook(f"wh_{n:02}", WAYS[n % len(WAYS)] if n % 10 < 3 else well(TOOK_S), 15.0 if n % 20 < 10 else 60.0)
        for n in range(100)
    ]
    world = World(hooks, numbers=numbers)
    for hook in hooks:
        world.feed(hook, 4, 40)
    world.run_until(41)

    for healthy in (hook for n, hook in enumerate(hooks) if n % 10 >= 3):
        assert healthy.delivered == healthy.arrived
        assert max(healthy.waited_s) <= MOMENT_S


@pytest.mark.parametrize("numbers", [1, 4])
def test_when_30_of_100_begin_to_hang_at_one_time_the_others_do_not_stand(numbers: int) -> None:
    limits = Limits(max_in_flight=32)
    hooks = [
        Hook(f"wh_{n:02}", from_then_on(5, well(TOOK_S), hangs()) if n % 10 < 3 else well(TOOK_S), limits=limits)
        for n in range(100)
    ]
    world = World(hooks, numbers=numbers)
    for hook in hooks:
        world.feed(hook, 12, 21)
    world.run_until(22)

    for healthy in (hook for n, hook in enumerate(hooks) if n % 10 >= 3):
        assert healthy.delivered == healthy.arrived
        assert healthy.waited_at_most_s(0.99) <= MOMENT_S
        assert max(healthy.waited_s) <= 0.1


def test_30_that_answer_after_15_s_and_never_fail_leave_the_others_their_slots() -> None:
    hooks = [Hook(f"wh_{n:02}", hangs(15.0) if n % 10 < 3 else well(TOOK_S), 30.0) for n in range(100)]
    world = World(hooks)
    for hook in hooks:
        world.feed(hook, 3, 60)
    world.run_until(61)

    slow = [hook for n, hook in enumerate(hooks) if n % 10 < 3]
    for healthy in (hook for hook in hooks if hook not in slow):
        assert healthy.delivered == healthy.arrived
        assert max(healthy.waited_s) <= MOMENT_S
    # The half of the worker that is theirs is shared evenly.
    delivered = [hook.delivered for hook in slow]
    assert sum(delivered) >= 0.8 * 128 * 30 / 15
    assert max(delivered) <= 3 * min(delivered)


def test_a_subject_with_a_backlog_keeps_no_other_subject_waiting() -> None:
    hook = Hook("wh_a", well(0.1))
    world = World([hook])
    world.feed(hook, 30, 60, subjects=itertools.repeat("busy"))
    world.feed(hook, 5, 60, subjects=(f"calm-{n}" for n in itertools.count()))
    world.run_until(60)
    busy_arrived = 30 * 60

    # One at a time, 10/s: the busy subject is behind for two thirds of its events, and none of the others is.
    assert hook.delivered >= busy_arrived / 3 + 5 * 60 - 10
    assert world.waiting(hook) <= busy_arrived * 2 / 3 + 10
