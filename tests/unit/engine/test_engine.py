"""The engine of a process, without its group."""

import asyncio
from pathlib import Path

from app.engine import Connection
from app.engine.engine import Engine, EngineConfig


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
