"""Far more deliveries wait than fit into memory: what is in memory is bounded, and the rest is not late for it."""

from __future__ import annotations

import itertools

import pytest

from app.webhooks.scheduler import ENTRIES_LIMIT, Limits
from tests.support.simulation import START_MS, Hook, World, well

HELD_S = 600.0
TOOK_S = 0.05
HELD = Limits(max_in_flight=32, hold_until_ms=START_MS + round(HELD_S * 1000))


def in_memory(world: World) -> int:
    return sum(len(found.backlog) for found in world.numbers[0].scheduler._receivers.values())


@pytest.mark.parametrize("webhooks", [1, 40])
def test_what_was_held_is_out_at_its_slot_rate_from_the_moment_the_hold_ends(webhooks: int) -> None:
    hooks = [Hook(f"wh_{n}", well(TOOK_S), limits=HELD) for n in range(webhooks)]
    world = World(hooks)
    for hook in hooks:
        world.feed(hook, 20_000 / HELD_S / webhooks, HELD_S)
    for second in range(0, round(HELD_S), 60):
        world.run_until(second)
        assert in_memory(world) <= ENTRIES_LIMIT
    world.run_until(HELD_S)
    assert sum(len(hook.started) for hook in hooks) <= 4 * webhooks
    world.run_until(HELD_S + 1)

    started = [at_s for hook in hooks for at_s in hook.started if at_s >= HELD_S]
    assert min(started) <= HELD_S + 0.01
    assert in_memory(world) <= ENTRIES_LIMIT
    # Slots begin with 4 and double with each success: less than the full rate only at the very beginning.
    at_once = min(32 * webhooks, 256)
    assert len(started) >= 0.8 * at_once / TOOK_S
    world.run_until(HELD_S + 40)
    assert sum(hook.delivered for hook in hooks) == sum(hook.arrived for hook in hooks)


def test_a_subject_with_more_than_fits_into_memory_is_delivered_in_order() -> None:
    hook = Hook("wh_a", well(0.001), limits=HELD)
    world = World([hook])
    world.feed(hook, 5, HELD_S, subjects=itertools.repeat("one"))
    world.run_until(HELD_S + 10)

    assert hook.delivered == hook.arrived == 5 * HELD_S
    assert in_memory(world) == 0
