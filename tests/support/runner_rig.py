"""A runner of one agent over one number, whose host, outputs and records a test plays."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from app.engine import (
    Agent,
    Clock,
    Context,
    Processor,
    Slice,
    StoreError,
    Unit,
)
from app.engine.runner import Runner
from app.engine.tracker import Tracker
from tests.support.engine import ROWS, FakeRecord, RecordingOutputs, Row, new_scope, new_store


class FakeHost:
    def __init__(self) -> None:
        self.clock = Clock()
        self.number = 0
        self.member = True
        self.up_to_date = True
        self.outputs_stand = False
        self.died: list[str] = []
        self.store_errors: list[StoreError] = []
        self.reopened: list[str] = []

    def fresh(self, tables: object) -> bool:
        return self.up_to_date

    def may_act(self) -> bool:
        return self.member

    def reopen(self, why: str) -> None:
        self.reopened.append(why)

    def late_outputs_stand(self) -> bool:
        return self.outputs_stand

    async def checkpoint_now(self, agent: str) -> None: ...

    def room(self) -> None: ...

    def runner_died(self, agent: str) -> None:
        self.died.append(agent)

    def store_failed(self, error: StoreError) -> None:
        self.store_errors.append(error)


class Skewed(Clock):
    ahead_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.ahead_s


class AsyncFailure:
    def __init__(self, call: Callable[[Unit], None]) -> None:
        self.call = call

    async def __call__(self, unit: Unit) -> None:
        self.call(unit)


class Scripted(Processor):
    """Runs `on_record` on each record of a slice."""

    def __init__(self, context: Context, on_record: Callable[[FakeRecord, Unit], None]) -> None:
        super().__init__(context)
        self.on_record = on_record
        self.ticks = 0
        self.slices: list[list[bytes]] = []

    async def process(self, slice_: Slice, unit: Unit) -> None:
        self.slices.append([record.value for record in slice_.records])
        for record in slice_.records:
            self.on_record(record, unit)

    async def tick(self, unit: Unit) -> None:
        self.ticks += 1
        unit.put(ROWS, b"ticked", Row(n=self.ticks))


class Rig:
    def __init__(
        self,
        path: Path,
        on_record: Callable[[FakeRecord, Unit], None],
        failures: list[Exception] = (),
        slice_records: int = 256,
    ) -> None:
        self.host = FakeHost()
        self.outputs = RecordingOutputs(failures=list(failures))
        self.scope = new_scope(new_store(path), self.outputs)
        self.tracker = Tracker(0)
        agent = Agent(
            name="agent",
            topics=("in",),
            processor=lambda c: Scripted(c, on_record),
            home=ROWS,
            tables=(ROWS,),
            slice_records=slice_records,
        )
        self.runner = Runner(agent, self.host, self.scope, {("in", 0): self.tracker})

    def feed(self, *values: bytes) -> None:
        start = self.tracker.position + self.tracker.unfinished
        records = [FakeRecord(offset=start + i, value=v) for i, v in enumerate(values)]
        span = self.tracker.deliver([r.offset for r in records], 1, 0.0)
        self.runner.accept(Slice(0, records, None, {("in", 0): (self.tracker, span)}))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.005)
