"""An engine in memory, for tests of agents: the `Unit`, the `Context` and their clock over dicts.

`MemoryContext` plays one number of one agent. It keeps the engine's promises that an agent leans on: a unit that fails
changes nothing, jobs and ticks run strictly between slices, rows survive their encoding, what is sent becomes visible
when the unit is done, and nothing runs after `close`.

    context = MemoryContext()
    processor = SomeProcessor(context)
    await context.open(processor)
    await context.deliver(processor, record(b"value", topic="in"))
    assert context.sent[0].topic == "out"
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar, cast

from app.engine import Clock, Processor, Record, Revoked, Slice, Table, Unit

R = TypeVar("R")
T = TypeVar("T")
Header = tuple[str, bytes]
START_MS = 1_750_000_000_000


class FakeClock(Clock):
    """Both clocks, moved by hand."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self._start_ms = now_ms
        self._passed_ms = 0

    def now_ms(self) -> int:
        return self._start_ms + self._passed_ms

    def monotonic_s(self) -> float:
        return self._passed_ms / 1000

    def advance(self, seconds: float) -> None:
        self._passed_ms += round(seconds * 1000)

    def advance_wall(self, seconds: float) -> None:
        """The time of day is set."""
        self._start_ms += round(seconds * 1000)


@dataclass(frozen=True, slots=True)
class FakeRecord:
    """A Kafka record."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()


@dataclass(frozen=True, slots=True)
class Sent:
    """A record that a unit sent."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()

    def header(self, name: str) -> bytes | None:
        return next((value for found, value in self.headers if found == name), None)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A record that a unit put aside."""

    record: Record
    reason: str
    detail: str


def record(
    value: bytes | None,
    *,
    topic: str = "in",
    offset: int = 0,
    partition: int = 0,
    key: bytes | None = None,
    headers: Sequence[Header] = (),
    timestamp: int = START_MS,
) -> Record:
    """A record to deliver."""
    return FakeRecord(topic, partition, offset, timestamp, key, value, headers)


class MemoryRows:
    """The merged rows of all tables of one number."""

    def __init__(self) -> None:
        self.of: dict[str, dict[bytes, bytes]] = defaultdict(dict)

    def put(self, table: Table[R], key: bytes, row: R) -> None:
        """Write a row beside any unit: the state that a test begins with."""
        self.of[table.name][key] = table.encode(row)

    def get(self, table: Table[R], key: bytes) -> R | None:
        data = self.of[table.name].get(key)
        return None if data is None else table.decode(data)

    def all(self, table: Table[R]) -> dict[bytes, R]:
        return {key: table.decode(data) for key, data in sorted(self.of[table.name].items())}


@dataclass(eq=False)
class MemoryUnit:
    """A unit of work over dicts; `done` makes it real.

    Attributes:
        rows: The merged rows that it reads.
        sent: What it sent so far.
        quarantined: What it put aside so far.
        held: The records that it left unfinished.
        finished: The held records of earlier units that it marked done.
    """

    rows: MemoryRows = field(default_factory=MemoryRows)
    sent: list[Sent] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    held: list[Record] = field(default_factory=list)
    finished: list[Record] = field(default_factory=list)
    _staged: dict[str, dict[bytes, bytes | None]] = field(default_factory=lambda: defaultdict(dict))
    _after: list[Callable[[], None]] = field(default_factory=list)

    @property
    def unit(self) -> Unit:
        """This, as the type that agents ask for."""
        return cast("Unit", self)

    def get(self, table: Table[R], key: bytes) -> R | None:
        data = self._merged(table).get(key)
        return None if data is None else table.decode(data)

    def scan(
        self, table: Table[R], prefix: bytes = b"", *, start: bytes | None = None, limit: int = 1000
    ) -> list[tuple[bytes, R]]:
        merged = self._merged(table)
        low = max(prefix, start or b"")
        keys = sorted(key for key in merged if key.startswith(prefix) and key >= low)
        return [(key, table.decode(merged[key])) for key in keys[:limit]]

    def scan_index(
        self,
        table: Table[R],
        prefix: bytes = b"",
        *,
        start: bytes | None = None,
        stop: bytes | None = None,
        limit: int = 1000,
    ) -> list[bytes]:
        low = max(prefix, start or b"")
        found = (entry for key, data in self._merged(table).items() for entry in _index(table, key, data))
        entries = sorted(e for e in found if e.startswith(prefix) and e >= low and (stop is None or e < stop))
        return list(islice(entries, limit))

    def put(self, table: Table[R], key: bytes, row: R) -> None:
        data = table.encode(row)
        # The engine makes them from the row, and removes those that it makes from what was stored.
        assert table.keys_of(key, row) == table.index_of(table.store_key(key), data)
        self._staged[table.name][key] = data

    def delete(self, table: Table[R], key: bytes) -> None:
        self._staged[table.name][key] = None

    def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[Header] = ()) -> None:
        self.sent.append(Sent(topic, key, value, tuple(headers)))

    def send_late(self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[Header] = ()) -> None:
        self.send(topic, key, value, headers)

    def quarantine(self, record: Record, reason: str, detail: str) -> None:
        self.quarantined.append(Quarantined(record, reason, detail))

    def hold(self, record: Record) -> None:
        self.held.append(record)

    def finish(self, record: Record) -> None:
        self.finished.append(record)

    def on_done(self, call: Callable[[], None]) -> None:
        self._after.append(call)

    def done(self) -> None:
        """Merge the rows, then call what waits for that."""
        for name, changes in self._staged.items():
            for key, data in changes.items():
                if data is None:
                    self.rows.of[name].pop(key, None)
                else:
                    self.rows.of[name][key] = data
        for call in self._after:
            call()

    def _merged(self, table: Table[Any]) -> dict[bytes, bytes]:
        changes = self._staged.get(table.name)
        if not changes:
            return self.rows.of[table.name]
        return {k: v for k, v in {**self.rows.of[table.name], **changes}.items() if v is not None}


def _index(table: Table[R], key: bytes, data: bytes) -> Iterable[bytes]:
    return () if table.index is None else table.index(key, table.decode(data))


class MemoryContext:
    """One opening of one number: runs a processor's slices, ticks and jobs, and keeps what they made real.

    Attributes:
        rows: The number's merged rows. Pass another context's to open the number again.
        sent: Everything sent by units that were done, in order.
        quarantined: Everything put aside, in order.
        unfinished: Records delivered and not done yet, in order of delivery.
        acting: What `may_act` answers.
        checkpoints: How often a checkpoint was awaited.
        next_tick_s: When a tick was asked for, in seconds of the monotonic clock.
    """

    def __init__(
        self,
        *,
        number: int = 0,
        agent: str = "agent",
        rows: MemoryRows | None = None,
        clock: FakeClock | None = None,
    ) -> None:
        self.number = number
        self.agent = agent
        self.clock = clock or FakeClock()
        self.rows = rows or MemoryRows()
        self.sent: list[Sent] = []
        self.quarantined: list[Quarantined] = []
        self.unfinished: list[Record] = []
        self.checkpoints = 0
        self.next_tick_s: float | None = None
        self.closed = False
        self.tasks: set[asyncio.Task[None]] = set()
        self._acting = asyncio.Event()
        self._acting.set()
        self._turn = asyncio.Lock()
        self._jobs: list[tuple[Callable[[Unit], Any], asyncio.Future[Any]]] = []

    # -- what the processor sees

    async def submit(self, job: Callable[[Unit], T]) -> T:
        if self.closed:
            raise Revoked("the number is closed")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._jobs.append((job, future))
        # Those that come in one turn of the loop are one unit, as in the engine.
        await asyncio.sleep(0)
        if not future.done():
            async with self._turn:
                self._run_jobs()
        return cast("T", await future)

    def _run_jobs(self) -> None:
        jobs, self._jobs = self._jobs, []
        unit = MemoryUnit(self.rows)
        ran = []
        for job, future in jobs:
            try:
                ran.append((future, job(unit.unit)))
            except Exception as error:  # noqa: BLE001  # it is the caller's
                future.set_exception(error)
        try:
            self._commit(unit)
        except Revoked as revoked:
            for future, _ in ran:
                future.set_exception(revoked)
        else:
            for future, result in ran:
                if not future.done():
                    future.set_result(result)

    def tick_at(self, monotonic_s: float) -> None:
        self.next_tick_s = monotonic_s if self.next_tick_s is None else min(self.next_tick_s, monotonic_s)

    def tick_now(self) -> None:
        self.tick_at(0.0)

    async def checkpoint(self) -> None:
        if self.closed:
            raise Revoked("the number is closed")
        self.checkpoints += 1

    @property
    def acting(self) -> bool:
        return self._acting.is_set()

    @acting.setter
    def acting(self, value: bool) -> None:
        (self._acting.set if value else self._acting.clear)()

    def may_act(self) -> bool:
        return self.acting and not self.closed

    async def until_may_act(self) -> None:
        await self._acting.wait()
        if self.closed:
            raise Revoked("the number is closed")

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(_until_revoked(work))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    # -- what the test does

    async def open(self, processor: Processor) -> MemoryUnit:
        """Open the number."""
        return await self._run(MemoryUnit(self.rows), processor.opened)

    async def deliver(self, processor: Processor, *records: Record) -> MemoryUnit:
        """Run one slice; its records stay in `unfinished` if the unit holds them.

        Raises:
            Exception: Whatever the processor raised; nothing of the unit was kept.
        """
        self.unfinished.extend(r for r in records if r not in self.unfinished)
        slice_ = Slice(self.number, list(records))
        unit = await self._run(MemoryUnit(self.rows), lambda u: processor.process(slice_, u))
        self.unfinished = [r for r in self.unfinished if r not in records or r in unit.held]
        return unit

    async def tick(self, processor: Processor) -> MemoryUnit:
        """Run the tick, due or not."""
        self.next_tick_s = None
        return await self._run(MemoryUnit(self.rows), processor.tick)

    async def settle(self, processor: Processor, *, turns: int = 25) -> None:
        """Let spawned work and due ticks run until both are quiet, at the time that the clock shows."""
        quiet = 0
        while quiet < turns:
            quiet += 1
            await asyncio.sleep(0)
            if self.next_tick_s is not None and self.next_tick_s <= self.clock.monotonic_s():
                await self.tick(processor)
                quiet = 0

    async def close(self, processor: Processor | None = None) -> None:
        """Take the number away: spawned work is cancelled, jobs are refused."""
        self.closed = True
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if processor is not None:
            await processor.closed()

    def sent_to(self, topic: str) -> list[Sent]:
        """What was sent to one topic, in order."""
        return [sent for sent in self.sent if sent.topic == topic]

    async def _run(self, unit: MemoryUnit, work: Callable[[Unit], Coroutine[Any, Any, None]]) -> MemoryUnit:
        async with self._turn:
            await work(unit.unit)
            self._commit(unit)
        return unit

    def _commit(self, unit: MemoryUnit) -> None:
        if self.closed:
            raise Revoked("the number is closed")
        self.sent += unit.sent
        self.quarantined += unit.quarantined
        self.unfinished = [r for r in self.unfinished if r not in unit.finished]
        unit.done()


async def _until_revoked(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Revoked:
        return
