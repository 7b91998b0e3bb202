"""Part: what checkpoints cost, as a share of a core: the same work with one each 200 ms a number, and with none.

Idle: nothing is read, but a timer keeps each of 12 numbers dirty. Under load: 1,200 records a second
over 12 partitions, one row each. As a process of its own it is the worker of one of the four runs.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from app.engine import Agent, Context, Processor, Slice, Unit
from app.observability import metrics
from app.topics import Topics, TopicSpec
from benchmarks.bench import Bench, say
from benchmarks.contender import START_DEADLINE_S, Job, Measured, compete
from benchmarks.engine_run import positions, start_engine
from benchmarks.load import SteadyLoad
from benchmarks.rows import COUNTS, Count, changelogs

__all__ = ["run"]

NUMBERS: Final = 12
# Often enough that a number is dirty again as soon as its checkpoint has ended.
DIRTY_EVERY_S: Final = 0.05
INTERVAL_S: Final = 0.2
NEVER_S: Final = 1e6
LOAD_PER_S: Final = 1_200
SETTLE_S: Final = 1.5
READY_POLL_S: Final = 0.02


def run(bench: Bench) -> dict[str, float]:
    """Per cent of a core, of the worker's process; the broker's share is not in it."""
    figures: dict[str, float] = {}
    for load, name in ((0.0, "idle"), (1.0, "load")):
        with_, without = (_share(bench, load, interval_s) for interval_s in (INTERVAL_S, NEVER_S))
        figures |= {
            f"checkpoint_{name}_cpu_percent": with_["cpu_percent"],
            f"checkpoint_{name}_without_cpu_percent": without["cpu_percent"],
            f"checkpoint_{name}_per_s": with_["checkpoints_per_s"],
        }
        many = f"{with_['checkpoints_per_s']:.0f} checkpoints a second"
        say(f"  {name}: {with_['cpu_percent']:.1f} % of a core with {many}, {without['cpu_percent']:.1f} % without")
        cost = with_["cpu_percent"] - without["cpu_percent"]
        figures["checkpoint_cpu_percent" if name == "idle" else "checkpoint_under_load_cpu_percent"] = round(cost, 2)
    return figures


def _share(bench: Bench, load: float, interval_s: float) -> dict[str, float]:
    job = bench.job("checkpoint", options={"load": load, "interval_s": interval_s})
    job = replace(job, topic=f"{job.app_id}.in", seconds=bench.seconds * 0.6)
    topics = Topics(job.app_id, job.app_id)
    bench.create([TopicSpec(job.topic, NUMBERS, 1, {}), *changelogs(topics, [COUNTS.name], NUMBERS)])
    if not load:
        [measured] = bench.run("checkpoint_cost", job)
        return measured.figures
    with SteadyLoad(bench.brokers, job.topic, NUMBERS, LOAD_PER_S):
        [measured] = bench.run("checkpoint_cost", job)
    return measured.figures


class Counting(Processor):
    """One row a record; and one each 50 ms where the timer is asked for."""

    def __init__(self, context: Context, *, timed: bool) -> None:
        super().__init__(context)
        self._timed = timed
        self._ticks = 0

    async def opened(self, unit: Unit) -> None:  # noqa: ARG002  # the shape of a processor
        if self._timed:
            self.context.tick_now()

    async def process(self, slice_: Slice, unit: Unit) -> None:
        for record in slice_.records:
            row = unit.get(COUNTS, record.key or b"?")
            unit.put(COUNTS, record.key or b"?", Count(1 if row is None else row.n + 1))

    async def tick(self, unit: Unit) -> None:
        self._ticks += 1
        unit.put(COUNTS, b"tick", Count(self._ticks))
        self.context.tick_at(self.context.clock.monotonic_s() + DIRTY_EVERY_S)


def counting(*, timed: bool) -> Callable[[Context], Processor]:
    return lambda context: Counting(context, timed=timed)


async def contend(job: Job) -> Measured:
    loaded = bool(job.options["load"])
    agent = Agent(
        name="count", topics=(job.topic,), processor=counting(timed=not loaded), home=COUNTS, tables=(COUNTS,)
    )
    quarantine = Topics(job.app_id, job.app_id).quarantine
    engine, _ = await start_engine(
        job, quarantine, agent, numbers=NUMBERS, checkpoint_interval_s=job.options["interval_s"]
    )
    async with asyncio.timeout(START_DEADLINE_S):
        while sum(number.ready for number in engine.numbers.values()) < NUMBERS:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(READY_POLL_S)
    await asyncio.sleep(SETTLE_S)
    began_s, cpu_began_s, before, records = time.perf_counter(), time.process_time(), committed(), positions(engine)
    await asyncio.sleep(job.seconds)
    elapsed_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_began_s
    figures = {
        "cpu_percent": round(cpu_s / elapsed_s * 100, 2),
        "checkpoints_per_s": round((committed() - before) / elapsed_s, 1),
    }
    return Measured(positions(engine) - records, elapsed_s, cpu_s, figures)


def committed() -> float:
    """Checkpoints of this process so far."""
    samples = [sample for family in metrics.CHECKPOINTS.collect() for sample in family.samples]
    return sum(
        sample.value
        for sample in samples
        if sample.labels.get("outcome") == "committed" and sample.name.endswith("_total")
    )


if __name__ == "__main__":
    compete(contend)
