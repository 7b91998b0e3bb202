"""What tests of numbers have in common."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from app.engine import Agent
from tests.support.engine import ROWS
from tests.support.number import FakeServices
from tests.support.quiet import Quiet


@pytest.fixture
def closings() -> list[str]:
    return []


@pytest.fixture
async def rig(tmp_path: Path, closings: list[str]) -> AsyncIterator[Callable[..., FakeServices]]:
    """Makes services whose agents have these processor classes; each agent is named by a letter."""
    made: list[FakeServices] = []

    def make(**processors: type[Quiet]) -> FakeServices:
        def agent(name: str, processor: type[Quiet]) -> Agent:
            mine = type(processor.__name__, (processor,), {"closings": closings})
            return Agent(name=name, topics=(name,), processor=mine, home=ROWS, tables=(ROWS,))

        made.append(FakeServices(tmp_path, *(agent(name, p) for name, p in processors.items())))
        return made[-1]

    yield make
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    for store in (store for services in made for store in services.stores.values()):
        store.close()
