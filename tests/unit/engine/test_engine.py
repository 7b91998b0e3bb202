"""The engine of a process, without its group."""

import asyncio
import json
from pathlib import Path

import pytest

from app.engine import Connection
from app.engine.checkpoint import stretched_interval_s
from app.engine.engine import Engine, EngineConfig
from app.engine.membership import Membership


def new_engine(path: Path) -> Engine:
    config = EngineConfig(
        app_id="app",
        connection=Connection("127.0.0.1:1"),
        numbers=2,
        data_dir=path,
        instance="w",
        url="http://w",
        quarantine_topic="quarantine",
    )
    return Engine(config, [])


async def test_no_number_is_opened_by_an_assignment_that_a_shutdown_overtook(tmp_path: Path) -> None:
    engine = new_engine(tmp_path)
    closing = asyncio.Event()

    async def finish(*, lost: bool) -> None:
        if lost:
            closing.set()
            await asyncio.sleep(0.02)

    engine._copies.finish = finish
    opening = asyncio.create_task(engine.opened({("in", 0), ("in", 1)}, 1))
    await closing.wait()

    await engine.shutdown()
    await opening

    assert engine.numbers == {}
    await engine.stop()


@pytest.mark.parametrize(("left", "kept"), [(True, ""), (False, "me")])
async def test_who_could_not_leave_its_group_is_remembered_for_the_next_start_to_take_out(
    tmp_path: Path, left: bool, kept: str
) -> None:
    engine = new_engine(tmp_path)
    engine.data_dir.remember(Membership("me", 7, (0, 1)))
    engine.left = left

    await engine.shutdown()
    await engine.stop()

    assert json.loads((tmp_path / "membership.json").read_bytes())["member_id"] == kept


@pytest.mark.parametrize(
    ("configured_s", "numbers", "pause_s"),
    [(0.2, 1, 0.2), (0.2, 8, 0.2), (0.2, 12, 0.3), (0.2, 96, 1.0), (5.0, 96, 5.0)],
)
def test_a_worker_with_many_numbers_pauses_longer_between_checkpoints_up_to_a_second(
    configured_s: float, numbers: int, pause_s: float
) -> None:
    assert stretched_interval_s(configured_s, numbers) == pytest.approx(pause_s)
