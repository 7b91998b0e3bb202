"""A fold worker that also makes calls, and tells when it had which number.

`call` makes one call for each record of `{APP}.calls`, beside the slices and a few at a time, as the agents of webhooks
and reports do: a line in the file of all calls when it begins, a row once it has ended. Most calls are short; one in
`SLOW_ONE_IN` is longer than a revoke waits.
"""

import asyncio
import importlib
import json
import logging
import os
import sys
import time
import zlib
from collections import deque
from pathlib import Path

import uvloop

from app.engine import Agent, Context, Processor, Record, Slice, Table, Unit, app
from app.engine.engine import Engine
from app.observability import metrics
from tests.system import fold_worker
from tests.system.fold_worker import Count

CALLED = Table("called", 3, Count)
WINDOW = 3
CALL_S, SLOW_CALL_S, SLOW_ONE_IN = 0.02, 4.0, 50
DATA_DIR = Path(os.environ["DATA_DIR"])
CALLS = DATA_DIR.parent / "calls"


def call_s(value: bytes) -> float:
    return SLOW_CALL_S if zlib.crc32(value) % SLOW_ONE_IN == 0 else CALL_S


class Caller(Processor):
    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.queue: deque[Record] = deque()
        self.known: set[tuple[int, int]] = set()
        self.running = 0
        self.draining = False

    async def process(self, slice_: Slice, unit: Unit) -> None:
        for record in slice_.records:
            # Done, though a call before it was not.
            if unit.get(CALLED, record.value) is not None:
                continue
            unit.hold(record)
            place = (record.partition, record.offset)
            if place not in self.known:
                self.known.add(place)
                self.queue.append(record)
        self.go_on()

    def go_on(self) -> None:
        while self.queue and self.running < WINDOW and not self.draining:
            self.running += 1
            self.context.spawn(self.call(self.queue.popleft()))

    async def call(self, record: Record) -> None:
        try:
            await self.context.until_may_act()
            tell(CALLS, f"{os.getpid()} {record.value.decode()}")
            await asyncio.sleep(call_s(record.value))

            def ended(unit: Unit) -> None:
                unit.put(CALLED, record.value, Count(1))
                unit.finish(record)

            await self.context.submit(ended)
            self.known.discard((record.partition, record.offset))
        finally:
            self.running -= 1
        self.go_on()

    def begin_drain(self) -> None:
        self.draining = True

    def busy(self) -> bool:
        return self.running > 0

    async def closed(self) -> None:
        abandoned = metrics.REGISTRY.get_sample_value("vault_stream_outcome_unknown_total")
        (DATA_DIR / f"abandoned-{os.getpid()}").write_text(f"{abandoned:.0f}")


def tell(file: Path, line: str) -> None:
    """One whole line, though several processes write."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def agents(app_id: str) -> list[Agent]:
    caller = Agent(name="call", topics=(f"{app_id}.calls",), processor=Caller, home=CALLED, tables=(CALLED,))
    return [*fold(app_id), caller]


async def report(engine: Engine, file: Path) -> None:
    await asyncio.gather(status(engine, file), timeline(engine))


async def timeline(engine: Engine) -> None:
    """A line for each change, by the clock that all processes of a machine share."""
    last = None
    while True:
        numbers = sorted(number for number, found in engine.numbers.items() if found.ready)
        now = {"pid": os.getpid(), "generation": engine._generation, "numbers": numbers}
        if now != last:
            tell(DATA_DIR / "timeline", json.dumps({"at": time.monotonic(), **now}))
            last = now
        await asyncio.sleep(0.01)


fold, status = fold_worker.agents, fold_worker.report
fold_worker.agents, fold_worker.report = agents, report

if __name__ == "__main__":
    logging.basicConfig(level="INFO", stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    for broken in os.environ.get("BROKEN", "").split():
        importlib.import_module(f"tests.system.broken.{broken}").apply()
    if timeout_s := os.environ.get("REBALANCE_TIMEOUT"):
        app.REBALANCE_TIMEOUT_S = float(timeout_s)
        # aiokafka wants it to be longer.
        app.REQUEST_TIMEOUT_S = float(timeout_s) + 10
    uvloop.run(fold_worker.main())
