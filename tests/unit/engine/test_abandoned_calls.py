"""A call abandoned in flight is counted; one that began nothing, or whose outcome was taken, is not."""

import asyncio
from pathlib import Path

import pytest

from app.engine import Unit
from app.observability import metrics
from tests.support.engine import ROWS, Row
from tests.support.runner_rig import Rig


def unknown() -> float:
    return metrics.REGISTRY.get_sample_value("vault_stream_outcome_unknown_total") or 0.0


@pytest.fixture
async def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path, lambda record, unit: None)
    await rig.runner.opened.wait()
    return rig


async def test_calls_in_flight_at_the_close_are_counted(rig: Rig) -> None:
    before, begun = unknown(), []

    async def call() -> None:
        await rig.runner.until_may_act()
        begun.append(1)
        await asyncio.Event().wait()

    for _ in range(3):
        rig.runner.spawn(call())
    await rig.until(lambda: len(begun) == 3)
    await rig.runner.close()

    assert unknown() - before == 3


async def test_a_call_that_was_not_allowed_to_begin_is_not_counted(rig: Rig) -> None:
    before = unknown()
    rig.host.member = False
    task = rig.runner.spawn(rig.runner.until_may_act())
    await asyncio.sleep(0.1)
    await rig.runner.close()

    assert task.done()
    assert unknown() == before


async def test_a_call_whose_outcome_was_taken_is_not_counted_though_its_task_goes_on(rig: Rig) -> None:
    before, taken = unknown(), asyncio.Event()

    def outcome(unit: Unit) -> None:
        unit.put(ROWS, b"k", Row(n=1))

    async def call() -> None:
        await rig.runner.until_may_act()
        await rig.runner.submit(outcome)
        taken.set()
        await asyncio.Event().wait()

    rig.runner.spawn(call())
    await taken.wait()
    await rig.runner.close()

    assert unknown() == before
