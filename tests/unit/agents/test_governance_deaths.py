"""The seal state table of governance, row by row: a worker that dies at any step, and the one that takes over."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.integrations.governance import Flush
from tests.support.audit_world import World


def split(world: World) -> None:
    world.dashboard.limit = 1


def poisoned(world: World) -> None:
    world.log[0].clear()
    world.append(0, "good", "poison", "good", "good", "good", "good")


def timed_out(world: World) -> None:
    world.answers = ["timeout"]


def unavailable(world: World) -> None:
    world.answers = ["503", "429", "lost"]


def plain(world: World) -> None:
    world.answers = []


async def played(prepare: Callable[[World], None], dies_in: int | None) -> World:
    """Two batches of three, with a death in so many steps."""
    world = World(Flush(size=3, interval_s=5.0))
    world.append(0, *["good"] * 6)
    prepare(world)
    await world.start()
    world.dies_in = dies_in
    await world.deliver(0, 6)
    world.check()
    for _ in range(4):
        await world.advance(61)
    await world.finish()
    world.check_all_done()
    await world.context.close()
    return world


@pytest.mark.parametrize("prepare", [plain, split, poisoned, timed_out, unavailable])
async def test_whenever_it_dies_every_record_is_in_one_accepted_batch_under_one_id(
    prepare: Callable[[World], None],
) -> None:
    alive = await played(prepare, None)
    assert alive.steps > 10
    for step in range(1, alive.steps + 1):
        world = await played(prepare, step)
        assert world.deaths == 1, step
        # Whatever was sent is what would have been sent: but for the cut of batches that nobody had seen.
        assert {key.split("-")[0] for key in world.dashboard.bodies} == {
            key.split("-")[0] for key in alive.dashboard.bodies
        }


async def test_a_death_at_every_step_in_turn_loses_nothing() -> None:
    world = World(Flush(size=3, interval_s=5.0))
    world.dashboard.limit = 2
    world.append(0, "good", "good", "poison", "good", "good", "good", "good", "good")
    await world.start()
    for step in range(1, 60):
        world.dies_in = step % 9 + 1
        await world.deliver(0, 8)
        await world.advance(6)
        world.check()
    await world.finish()
    world.check_all_done()
    assert world.deaths > 5
    await world.context.close()
