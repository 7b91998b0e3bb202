"""A process with one number on a loop that a test turns by hand: two agents, real stores, and the real engine."""

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from app.engine import Agent, Processor, Revoked, Slice, Table, Unit
from app.engine.changelog import FencedChangelog
from app.engine.intake import Intake
from app.engine.number import Number, State
from app.engine.positions import Bounds
from app.engine.records import Record
from app.engine.recovery import Recovery
from app.engine.store import Store
from tests.support.cluster import Cluster, MemoryOutputs, MemoryReader, Wire, confirmed, source_bounds
from tests.support.engine import ROWS, Row
from tests.support.number import PLACES
from tests.support.stepping import SteppedClock, SteppedLoop

TP = tuple[str, int]

LASTS = Table("lasts", 3, Row)
"""The last record of each source."""
COUNTED = (("in", 0), ("more", 0))
RELAYED = ("relay", 0)
HELD_EACH = 3


class Count(Processor):
    """Adds one to the row of each record's key: a record done twice, or not at all, shows."""

    def __init__(self, context: Any, process: "Process") -> None:
        super().__init__(context)
        self._process = process

    async def opened(self, unit: Unit) -> None:
        self._process.on_open(self._process)

    async def process(self, slice_: Slice, unit: Unit) -> None:
        for record in slice_.records:
            n = (unit.get(ROWS, record.key) or Row()).n + 1
            unit.put(ROWS, record.key, Row(n=n, tag="odd" if n % 2 else ""))
            unit.put(LASTS, record.topic.encode(), Row(n=record.offset))
        await asyncio.sleep(0)
        if self._process.fail_next and len(slice_.records) > 1:
            self._process.fail_next = False
            raise ValueError("one bad moment")


class Relay(Processor):
    """Sends each record's offset, every other one late; some records are held, and sent by a timer."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self._held: list[Record] = []

    async def process(self, slice_: Slice, unit: Unit) -> None:
        for record in slice_.records:
            if record.offset % HELD_EACH == 0:
                unit.hold(record)
                unit.on_done(partial(self._hold, record))
            else:
                (unit.send_late if record.offset % 2 else unit.send)("out", b"", b"%d" % record.offset)

    def _hold(self, record: Record) -> None:
        self._held.append(record)
        self.context.tick_at(self.context.clock.monotonic_s() + 0.3)

    async def tick(self, unit: Unit) -> None:
        ended, self._held = self._held, []
        for record in reversed(ended):
            unit.send("out", b"", b"%d" % record.offset)
            unit.finish(record)


class Process:
    """What `Services` and the consumer are to a number.

    Args:
        on_open: Called when the restored rows are there, before anything else.
    """

    numbers_count = 1
    quarantine_topic = "quarantine"
    checkpoint_interval_s = 0.2

    def __init__(self, cluster: Cluster, path: Path, on_open: Callable[["Process"], None]) -> None:
        self.cluster = cluster
        self._path = path
        self.on_open = on_open
        self.loop = SteppedLoop()
        self.clock = SteppedClock(self.loop.time)
        self.wire = Wire(cluster)
        self.outputs = MemoryOutputs(self.wire)
        self.reader = MemoryReader(self.wire)
        self.replicas: list[Any] = []
        self.recovery = Recovery(self.loop.time)
        self.stopped: dict[tuple[str, int], str] = {}
        self.agents = (
            Agent(
                name="count",
                topics=tuple(topic for topic, _ in COUNTED),
                processor=lambda context: Count(context, self),
                home=PLACES,
                tables=(PLACES, ROWS, LASTS),
                slice_records=4,
            ),
            Agent(name="relay", topics=("relay",), processor=Relay, home=PLACES, tables=(PLACES,), slice_records=4),
        )
        self.stores = {agent.name: Store(path / agent.name, agent.tables, 1e9) for agent in self.agents}
        self.number: Number | None = None
        self.generation = -1
        self.frozen = False
        self.fail_next = False
        self.deaths: list[str] = []
        self._fetched: list[tuple[dict[TP, list[Record]], Mapping[TP, Any]]] = []
        self._slices: list[Slice] = []
        self._read_at: dict[TP, int] = {}
        self.intake = Intake(
            SimpleNamespace(
                numbers={}, numbers_count=1, clock=self.clock, agent_of={t: a for a in self.agents for t in a.topics}
            )
        )

    # -- Services

    def changelog_topic(self, table: str) -> str:
        return table

    def new_changelog(self, number: int) -> FencedChangelog:
        return FencedChangelog(
            SimpleNamespace(aiokafka=lambda: {"wire": self.wire}, adopt=lambda client: client), "app", number
        )

    def store(self, agent: Agent, number: int) -> Store:
        return self.stores[agent.name]

    def fresh(self, tables: Sequence[Table[Any]]) -> bool:
        return True

    async def topic_ids(self, topics: list[str]) -> dict[str, str]:
        return {}

    def partitions_of(self, number: int, agent: Agent) -> list[TP]:
        return [(topic, 0) for topic in agent.topics]

    async def confirm(self) -> bool:
        return await confirmed(self.wire, self, self.generation)

    def lease_valid(self) -> bool:
        return True

    async def bounds(self, partitions: Sequence[TP]) -> dict[TP, Bounds]:
        return await source_bounds(self.wire, partitions)

    async def commit_offsets(self, offsets: Mapping[TP, int]) -> None:
        await self.wire.ask(lambda: self.cluster.offsets.update(offsets))

    async def gap(self, *gap: object) -> None:
        self.deaths.append(f"gap {gap}")

    def room(self) -> None: ...

    def die(self, why: str, code: int) -> None:
        self.deaths.append(why)

    # -- the group

    def assign(self, generation: int) -> None:
        self.give_up(lost=True)
        self.generation = generation

        async def make() -> Number:
            return Number(self, 0)

        self.number = self.loop.finish(make())
        self.intake._engine.numbers = {0: self.number}

    def give_up(self, *, lost: bool) -> None:
        number, self.number = self.number, None
        self.intake._engine.numbers = {}
        if number is not None:
            self.loop.finish(number.close(0.0 if lost else 3.0, lost=lost))

    @property
    def open(self) -> bool:
        return self.number is not None and self.number.state is State.OPEN

    # -- the consumer

    def fetch(self, count: int) -> None:
        """Place what is not placed, and ask for records; they are taken later."""
        wanted = self.intake.wanted()
        for tp, tracker in wanted.items():
            if not tracker.placed:
                self._read_at[tp], tracker.placed = tracker.start, True
        records = {}
        for tp in wanted:
            at = self._read_at[tp]
            records[tp] = self.cluster.sources[tp][at : at + count]
            self._read_at[tp] = at + len(records[tp])
        self._fetched.append((records, wanted))

    def fetch_fails(self) -> None:
        """What was fetched is lost on its way."""
        for _, wanted in self._fetched:
            for tracker in wanted.values():
                tracker.unplace()
        self._fetched = []

    def take(self) -> None:
        """What was fetched is cut, in order."""
        fetched, self._fetched = self._fetched, []
        for records, wanted in fetched:
            self._slices += self.intake.slices(records, wanted)

    def hand_over(self) -> None:
        slices, self._slices = self._slices, []
        for slice_ in slices:
            topic = slice_.records[0].topic
            self.intake.accept(self.intake._engine.agent_of[topic].name, slice_)

    def work(self, count: int) -> None:
        """All of it, as a consumer does that nothing disturbs."""
        self.fetch(count)
        self.take()
        self.hand_over()

    def left_over(self) -> list[str]:
        """Tasks that still run, and producers that are not closed."""
        self.run(200)
        tasks = [task.get_name() for task in asyncio.all_tasks(self.loop) if not task.done()]
        return tasks + [f"producer {producer.producer_id}" for producer in self.wire.producers if not producer.closed]

    def submit(self, job: Callable[[Unit], None], logged: Callable[[], None]) -> None:
        """Run a job of the first agent; `logged` when it is said to be in the changelog."""
        runner = self.number.runners.get("count") if self.number is not None else None
        if runner is None:
            return

        async def ask() -> None:
            try:
                await runner.submit(job)
                await runner.checkpoint()
            except Revoked:
                return
            logged()

        self.loop.start(ask())

    # -- life

    def run(self, steps: int) -> None:
        for _ in range(steps):
            if not self.loop.step():
                return

    def kill(self, disk: Path) -> Path:
        """Nothing that it does any more is seen by anybody; what had reached its disk is left in a new place."""
        self.wire.cut = True
        shutil.copytree(self._path, disk, ignore=shutil.ignore_patterns("LOCK", "LOG*"))
        self.close()
        self.number = None
        return disk

    def close(self) -> None:
        for store in self.stores.values():
            store.close()
            store.write = _gone
        self.loop.end()


def _gone(*_: object, **__: object) -> None:
    raise OSError("this process is dead")
