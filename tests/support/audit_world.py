"""The real governance agent over a log, a changelog and a dashboard in memory, which can die at any step.

A step is every moment at which the process could end: around each job, each checkpoint and each request. What was
merged and not logged is gone with it; a request that was on its way may still arrive, whenever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import orjson

from agents.governance import GovernanceOptions, governance_agent
from app.engine import Processor, Unit
from app.integrations.chain import Batch, hash_of
from app.integrations.governance import Flush
from app.integrations.upstream import Answer, Rejected, Unavailable
from app.integrations.verification import TopicCheck
from tables.audit import AUDIT, batch_key
from tests.support.audit_log import TOPICS
from tests.support.audit_records import audit_value
from tests.support.memory_unit import FakeClock, FakeRecord, MemoryContext, MemoryRows

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One request that reached the dashboard, or is on its way."""

    key: str
    body: bytes


@dataclass
class Durable:
    """What the changelog has."""

    rows: MemoryRows = field(default_factory=MemoryRows)
    positions: dict[int, int] = field(default_factory=dict)


class Dashboard:
    """Takes what is small and not poisoned, and knows what it has by its id.

    Attributes:
        bodies: Of every id that it was ever sent.
        accepted: By id.
        limit: The most entries that it takes at once.
        refusal: What it says of a poisoned one.
    """

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.accepted: dict[str, list[tuple[int, int]]] = {}
        self.limit = 100
        self.refusal = 422
        self.under_way: dict[int, int] = {}
        self._said: dict[str, int] = {}

    def take(self, call: Call) -> int:
        """The status of an answer; the same for a request that comes again, but for one that was accepted."""
        assert self.bodies.setdefault(call.key, call.body) == call.body, f"{call.key} came with other bytes"
        if call.key in self.accepted:
            return 409
        if call.key in self._said:
            return self._said[call.key]
        entries: list[dict[str, Any]] = orjson.loads(call.body)
        assert all(hash_of(entry) == entry["hash"] for entry in entries)
        if len(entries) > self.limit:
            status = 413
        elif any(entry["details"].get("poison") for entry in entries):
            status = self.refusal
        else:
            status = 202
            self.accepted[call.key] = [(entry["partition"], entry["sequence"]) for entry in entries]
        if status != 202:
            self._said[call.key] = status
        return status


class World:
    """One number with its partitions, one worker at a time.

    Attributes:
        answers: How the next requests end, in turn, before `real` ones: `real`, `503`, `429`, `lost` (never arrived),
            `timeout` (it was taken, and no answer came).
        dies_in: So many steps from now; None: it lives.
        slow: No request is answered while it is.
        late: Requests of dead workers that may still arrive.
    """

    def __init__(self, flush: Flush, partitions: Collection[int] = (0,)) -> None:
        self.flush = flush
        self.log: dict[int, list[FakeRecord]] = {partition: [] for partition in partitions}
        self.poison: set[tuple[int, int]] = set()
        self.unreadable: set[tuple[int, int]] = set()
        self.dashboard = Dashboard()
        self.answers: list[str] = []
        self.durable = Durable()
        self.clock = FakeClock()
        self.late: list[Call] = []
        self.quarantined: set[tuple[int, int, str]] = set()
        self.dies_in: int | None = None
        self.dead = False
        self.slow = False
        self.deaths = 0
        self.steps = 0
        self.failures: list[BaseException] = []
        self.context: _Context
        self.processor: Processor
        self.read: dict[int, int] = {}

    # -- the process

    async def start(self) -> None:
        """A worker that has what the changelog has."""
        self.dead = False
        self.context = _Context(self, _copy(self.durable.rows))
        agent = governance_agent(TOPICS, _Line(self), GovernanceOptions(flush=self.flush), jitter=lambda: 1.0)
        self.processor = agent.processor(self.context)
        self.read = {partition: self.durable.positions.get(partition, 0) for partition in self.log}
        await self.context.open(self.processor)

    async def restart(self) -> None:
        """It is dead, and another one takes over."""
        self.deaths += 1
        self.dead, self.dies_in = True, None
        await self.context.close()
        self._note_quarantined()
        await self.start()

    async def step(self) -> None:
        """A moment at which the process may end: whoever waits for it then waits for ever."""
        self.steps += 1
        if self.dies_in is not None:
            self.dies_in -= 1
            self.dead = self.dead or self.dies_in <= 0
        if self.dead:
            await asyncio.Event().wait()

    def checkpoint(self) -> None:
        """What is merged is in the changelog."""
        if self.dead:
            return
        positions = {
            partition: min((r.offset for r in self.context.unfinished if r.partition == partition), default=read)
            for partition, read in self.read.items()
        }
        self.durable = Durable(_copy(self.context.rows), positions)

    # -- what happens

    def append(self, partition: int, *kinds: str) -> None:
        """Records: `good`, `large`, `poison`, `unreadable`."""
        for kind in kinds:
            offset = len(self.log[partition])
            details = {"poison": True} if kind == "poison" else {"text": "x" * (1500 if kind == "large" else 1)}
            value = b"not an event" if kind == "unreadable" else audit_value(offset, details=details)
            if kind == "poison":
                self.poison.add((partition, offset))
            elif kind == "unreadable":
                self.unreadable.add((partition, offset))
            self.log[partition].append(FakeRecord(TOPICS.audit, partition, offset, self.clock.now_ms(), None, value))

    async def deliver(self, partition: int, count: int) -> None:
        """A slice of the next records."""
        records = self.log[partition][self.read[partition] : self.read[partition] + count]
        if records and not self.dead:
            self.read[partition] += len(records)
            await self.context.deliver(self.processor, *records)
        await self.settle()

    async def settle(self) -> None:
        """Until everything waits for something."""
        await self.context.settle(self.processor, turns=12)
        if self.dead:
            await self.restart()

    async def advance(self, seconds: float) -> None:
        """Time goes by."""
        self.clock.advance(seconds)
        await self.settle()

    async def finish(self) -> None:
        """Everything works from now on, until nothing is left to do."""
        self.answers.clear()
        self.dies_in, self.slow = None, False
        for call in self.late:
            self.dashboard.take(call)
        for _ in range(20):
            for partition, records in self.log.items():
                await self.deliver(partition, len(records))
            await self.advance(61)
            if not self.context.unfinished and all(self.read[p] == len(found) for p, found in self.log.items()):
                break
        self.checkpoint()
        self._note_quarantined()

    # -- what must hold

    def check(self) -> None:
        """At any time."""
        assert not self.failures, self.failures
        accepted = [place for places in self.dashboard.accepted.values() for place in places]
        assert len(accepted) == len(set(accepted)), "an entry is in two accepted batches"
        assert not set(accepted) & self.poison
        chains: dict[int, set[str]] = {}
        ranges: dict[int, set[tuple[int, int]]] = {}
        for key in self.dashboard.bodies:
            chain, partition, first, last = key.partition(".")[0].split("-")
            chains.setdefault(int(partition), set()).add(chain)
            ranges.setdefault(int(partition), set()).add((int(first), int(last)))
        assert all(len(found) == 1 for found in chains.values()), f"more than one chain: {chains}"
        for found in ranges.values():
            ordered = sorted(found)
            for (_, end), (begin, _) in pairwise(ordered):
                assert end < begin, f"ranges overlap: {ordered}"

    def check_all_done(self) -> None:
        """After `finish`."""
        self.check()
        everything = {(partition, r.offset) for partition, records in self.log.items() for r in records}
        accepted = {place for places in self.dashboard.accepted.values() for place in places}
        put_aside = {(partition, offset) for partition, offset, _ in self.quarantined}
        assert accepted == everything - self.poison - self.unreadable
        assert put_aside == self.poison | self.unreadable
        assert self.context.unfinished == []
        batches = [row.batch for row in self.durable.rows.all(AUDIT).values() if row.batch is not None]
        assert all(batch.accepted for batch in batches)
        for partition, records in self.log.items():
            check = TopicCheck(partition, [batch for batch in batches if batch.partition == partition])
            for found in records:
                check.add(found.offset, found.timestamp, found.value)
            verdict = check.end(len(records))
            assert verdict.ok, verdict.findings
            assert verdict.unsealed == 0

    def require_logged(self, call: Call) -> None:
        """Nobody outside sees an id whose range, or split, is not in the changelog."""
        batch = self._logged(call.key)
        assert batch is not None, f"{call.key} was sent before it was logged"
        whole, _, suffix = call.key.partition(".")
        assert batch.id == whole
        parents = [""] if suffix else []
        parents += ["." + suffix[:place] for place, letter in enumerate(suffix) if letter == "."]
        assert all(batch.parts.get(parent) == "split" for parent in parents), f"{call.key}: its split was not logged"

    def _logged(self, key: str) -> Batch | None:
        _, partition, first, _ = key.partition(".")[0].split("-")
        row = self.durable.rows.get(AUDIT, batch_key(int(partition), int(first)))
        return row.batch if row is not None else None

    def _note_quarantined(self) -> None:
        self.quarantined |= {(put.record.partition, put.record.offset, put.reason) for put in self.context.quarantined}


class _Context(MemoryContext):
    def __init__(self, world: World, rows: MemoryRows) -> None:
        super().__init__(rows=rows, clock=world.clock)
        self._world = world

    async def submit(self, job: Callable[[Unit], T]) -> T:
        await self._world.step()
        result = await super().submit(job)
        await self._world.step()
        return result

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = super().spawn(work)
        task.add_done_callback(self._note)
        return task

    def _note(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._world.failures.append(error)

    async def checkpoint(self) -> None:
        await self._world.step()
        self._world.checkpoint()
        await self._world.step()


class _Line:
    """The way to the dashboard, as an `Upstream`."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        accept: Collection[int] = (),
    ) -> Answer:
        world, call = self._world, Call((headers or {})["Idempotency-Key"], body or b"")
        world.require_logged(call)
        partition = int(call.key.split("-")[1])
        under_way = world.dashboard.under_way
        under_way[partition] = under_way.get(partition, 0) + 1
        assert under_way[partition] == 1, "two batches of a partition at once"
        try:
            await world.step()
            while world.slow:
                await asyncio.sleep(0)
            status = self._answer(call)
            await world.step()
        except asyncio.CancelledError:
            world.late.append(call)
            raise
        finally:
            under_way[partition] -= 1
        if status is None:
            raise Unavailable("no answer in time")
        if status in {202, *accept}:
            return Answer(status)
        if status in {429, 503}:
            raise Unavailable(f"answered {status}", status=status, retry_after_s=7.0)
        raise Rejected(f"answered {status}", answer=Answer(status))

    def _answer(self, call: Call) -> int | None:
        how = self._world.answers.pop(0) if self._world.answers else "real"
        if how in {"503", "429"}:
            return int(how)
        if how == "lost":
            return None
        status = self._world.dashboard.take(call)
        return None if how == "timeout" else status


def _copy(rows: MemoryRows) -> MemoryRows:
    copy = MemoryRows()
    for name, found in rows.of.items():
        copy.of[name] = dict(found)
    return copy
