"""A number's surroundings in memory: changelogs, who reads them, and what numbers share."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from app.engine import Agent, Clock, Table, Unit, faults
from app.engine.changelog import Write
from app.engine.errors import CheckpointFailed
from app.engine.number import Number
from app.engine.positions import Bounds
from app.engine.recovery import Recovery
from app.engine.restore import Sink
from app.engine.store import Store
from tests.support.engine import ROWS, FakeRecord, RecordingOutputs, Row

TP = tuple[str, int]


class Empty(msgspec.Struct, frozen=True):
    """A row nobody writes."""


PLACES = Table("places", 2, Empty)
"""Only positions; several agents may have it as their home."""


class MemoryLog:
    """Changelog topics as committed reads see them: all of a transaction or nothing, a control record behind it."""

    def __init__(self) -> None:
        self.transactions: list[list[Write]] = []
        self.records: defaultdict[TP, list[FakeRecord]] = defaultdict(list)
        self.ends: defaultdict[TP, int] = defaultdict(int)

    def append(self, writes: Sequence[Write]) -> dict[str, int]:
        self.transactions.append(list(writes))
        offsets = {}
        for write in writes:
            tp = (write.topic, write.partition)
            for key, value in write.items:
                self.records[tp].append(FakeRecord(*tp, offset=self.ends[tp], key=key, value=value))
                self.ends[tp] += 1
            offsets[write.topic] = self.ends[tp]
            self.ends[tp] += 1
        return offsets

    def rows(self, topic: str, number: int = 0) -> dict[bytes, bytes]:
        """The fold of a topic: the truth."""
        rows: dict[bytes, bytes | None] = {r.key: r.value for r in self.records[topic, number]}
        return {key: value for key, value in rows.items() if value is not None}

    async def bounds(self, partitions: Sequence[TP]) -> dict[TP, tuple[int, int]]:
        return {tp: (0, self.ends[tp]) for tp in partitions}

    async def read(self, start: Mapping[TP, int], until: Mapping[TP, int], sink: Sink) -> None:
        for tp, first in start.items():
            if first < until[tp]:
                await sink(tp, [r for r in self.records[tp] if first <= r.offset < until[tp]], until[tp])


class MemoryChangelog:
    """One number's way into a `MemoryLog`, with the fault points of the real one.

    Attributes:
        failures: Raised by the next writes.
        answer_lost: The next write is committed, but nobody hears of it.
        gate: Writes wait for it.
    """

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.failures: list[Exception] = []
        self.answer_lost = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.opened = self.dropped = self.waiting = 0

    async def open(self, may: Callable[[], Awaitable[bool]]) -> None:
        self.opened += 1

    async def write(self, writes: Sequence[Write]) -> dict[str, int]:
        try:
            faults.point("checkpoint:begun")
            self.waiting += 1
            await self.gate.wait()
            self.waiting -= 1
            faults.point("checkpoint:sending")
            if self.failures:
                raise self.failures.pop(0)
            faults.point("checkpoint:sent")
        except faults.FaultInjected as error:
            raise CheckpointFailed(repr(error)) from error
        offsets = self.log.append(writes)
        if self.answer_lost:
            self.answer_lost = False
            raise CheckpointFailed("the answer was lost")
        return offsets

    async def drop(self) -> None:
        await asyncio.sleep(0.01)
        self.dropped += 1


class FakeServices:
    """What numbers share; sources are `sources`, their ends `bounds_of`."""

    numbers_count = 1
    quarantine_topic = "quarantine"
    checkpoint_interval_s = 0.02

    def __init__(self, path: Path, *agents: Agent) -> None:
        self.path = path
        self.agents = agents
        self.clock = Clock()
        self.outputs = RecordingOutputs()
        self.replicas = []
        self.recovery = Recovery(self.clock.monotonic_s)
        self.reader = MemoryLog()
        self.changelog = MemoryChangelog(self.reader)
        self.sources: dict[str, list[TP]] = {}
        self.bounds_of: dict[TP, Bounds] = {}
        self.stores: dict[str, Store] = {}
        self.committed: dict[TP, int] = {}
        self.gaps: list[tuple[str, int, int, int]] = []
        self.died: list[tuple[str, int]] = []
        self.stopped: dict[tuple[str, int], str] = {}

    def changelog_topic(self, table: str) -> str:
        return table

    def new_changelog(self, number: int) -> MemoryChangelog:
        return self.changelog

    def store(self, agent: Agent, number: int) -> Store:
        if agent.name not in self.stores:
            self.stores[agent.name] = Store(self.path / agent.name, agent.tables, 1e9)
        return self.stores[agent.name]

    def fresh(self, tables: object) -> bool:
        return True

    async def topic_ids(self, topics: list[str]) -> dict[str, str]:
        return {}

    def partitions_of(self, number: int, agent: Agent) -> list[TP]:
        return self.sources.get(agent.name, [])

    async def confirm(self) -> bool:
        return True

    def lease_valid(self) -> bool:
        return True

    async def bounds(self, partitions: Sequence[TP]) -> dict[TP, Bounds]:
        return {tp: self.bounds_of[tp] for tp in partitions}

    def on_disk(self, agent: str, key: bytes) -> bytes | None:
        return self.stores[agent].get(ROWS.store_key(key))

    async def commit_offsets(self, offsets: Mapping[TP, int]) -> None:
        self.committed |= offsets

    async def gap(self, *gap: object) -> None:
        self.gaps.append(gap)

    def room(self) -> None: ...

    def die(self, why: str, code: int) -> None:
        self.died.append((why, code))


async def until(condition: Callable[[], object], deadline_s: float = 10.0) -> None:
    """Let others run until it is true."""
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.005)


async def ready_number(services: FakeServices) -> Number:
    number = Number(services, 0)
    await until(lambda: number.ready)
    return number


def put(key: bytes) -> Callable[[Unit], None]:
    """A job that writes one row."""
    return lambda unit: unit.put(ROWS, key, Row(n=1))


def running() -> set[str]:
    """The tasks of number 0 and of its runners."""
    return {name for task in asyncio.all_tasks() if (name := task.get_name()).endswith("-0")}
