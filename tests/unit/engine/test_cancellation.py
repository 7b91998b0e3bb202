"""A task ends although what it waits for swallows its cancellation."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from app.engine import Agent, Slice, Unit, cancellation, slice_handler
from app.engine.cancellation import cancelled
from app.engine.number import Number
from app.engine.restore import Sink
from tests.support.engine import ROWS
from tests.support.number import FakeServices, MemoryLog, running, until


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "CANCEL_AGAIN_S", 0.05)


async def test_a_task_that_swallows_its_cancellation_is_cancelled_again() -> None:
    swallowed: list[int] = []

    async def stubborn() -> None:
        for at in range(3):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            swallowed.append(at)
        await asyncio.sleep(60)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await cancelled(task)

    assert swallowed == [0, 1, 2]
    assert task.cancelled()


async def test_tasks_that_have_ended_or_fail_while_they_are_cancelled_are_fine() -> None:
    async def done() -> None: ...

    async def fails() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("while it cleans up")

    tasks = [asyncio.create_task(done()), asyncio.create_task(fails())]
    await asyncio.sleep(0)

    await cancelled(*tasks)

    assert all(task.done() for task in tasks)


class StubbornLog(MemoryLog):
    """Its reader stops, and while it stops it takes no notice of a cancellation."""

    def __init__(self) -> None:
        super().__init__()
        self.ends["rows", 0] = 1
        self.reading = asyncio.Event()

    async def read(
        self, start: Mapping[tuple[str, int], int], until: Mapping[tuple[str, int], int], sink: Sink
    ) -> None:
        self.reading.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


async def test_a_number_whose_restore_swallows_the_cancellation_closes_and_never_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handle(slice_: Slice, unit: Unit) -> None: ...

    services = FakeServices(
        tmp_path, Agent(name="x", topics=("x",), processor=slice_handler(handle), home=ROWS, tables=(ROWS,))
    )
    services.reader = reader = StubbornLog()
    rooms: list[None] = []
    monkeypatch.setattr(services, "room", lambda: rooms.append(None))
    number = Number(services, 0)
    await until(reader.reading.is_set)

    async with asyncio.timeout(5):
        await number.close(0.0, lost=True)

    assert rooms == []
    assert number.runners == {}
    assert running() == set()
    assert services.died == []
    services.stores["x"].close()
