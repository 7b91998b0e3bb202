"""Part: a worker with an empty disk reads a million rows of 300 bytes back from the changelog, through the engine.

As a process of its own it is the worker; it ends once every number is ready.
"""

import asyncio
import base64
import random
import time
from collections.abc import Iterator
from typing import Final

import msgspec

from app.engine import Agent, Slice, Table, Unit, slice_handler
from app.topics import Topics, TopicSpec
from benchmarks.bench import Bench, say
from benchmarks.contender import START_DEADLINE_S, Job, Lateness, Measured, compete
from benchmarks.engine_run import start_engine
from benchmarks.filling import fill
from benchmarks.process_cost import peak_rss_mb
from benchmarks.records import PARTITIONS, PREFIX
from benchmarks.rows import changelogs

__all__ = ["run"]

ROWS: Final = 1_000_000
ROW_BYTES: Final = 300
READY_POLL_S: Final = 0.02


class Delivery(msgspec.Struct, frozen=True):
    """A row like those that fill a real table: ids and hashes, which hardly compress."""

    status: str
    created_ms: int
    subject: str
    digest: str


DELIVERIES: Final = Table("restored", prefix=1, row=Delivery)


def run(bench: Bench) -> dict[str, float]:
    """Rows a second, wall time from the assignment on, and the peak memory of the process."""
    # Short runs are for a look at the harness.
    rows = min(ROWS, int(ROWS * bench.seconds / 10))
    job = bench.job("restore", topic=f"{PREFIX}.restore.in", records=rows)
    topics = Topics(job.app_id, job.app_id)
    bench.create([TopicSpec(job.topic, PARTITIONS, 1, {}), *changelogs(topics, [DELIVERIES.name], PARTITIONS)])
    began_s = time.monotonic()
    # In batches as checkpoints make them.
    changelog = topics.changelog(DELIVERIES.name)
    fill(bench.brokers, changelog, _rows(rows), compression="zstd", batch_bytes=900_000)
    say(f"  {rows:,} rows in {time.monotonic() - began_s:.0f} s")
    [measured] = bench.run("restore", job)
    peak_mb = measured.figures["peak_rss_mb"]
    say(f"  {rows:,} rows back in {measured.elapsed_s:.1f} s, {peak_mb:.0f} MB at most")
    full_s = measured.elapsed_s * ROWS / rows
    return {
        "restore_rows_per_s": round(measured.events_per_s),
        "restore_s": round(full_s, 2),
        "restore_cpu_us": round(measured.cpu_us, 2),
        "restore_peak_rss_mb": peak_mb,
        "restore_loop_lag_p99_ms": measured.figures["loop_lag_p99_ms"],
    }


def _rows(count: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Partition, key and value of as many rows."""
    rng = random.Random(1)
    for number in range(count):
        key = f"wh_{number % 1000:06d}/dlv_{rng.getrandbits(128):032x}".encode()
        yield number % PARTITIONS, key, _row(number, rng)


def _row(number: int, rng: random.Random) -> bytes:
    bare = DELIVERIES.encode(Delivery("delivered", 1_760_000_000_000 + number, f"ds-{number % 1000:04d}", "-" * 100))
    size = 100 + ROW_BYTES - len(bare) - 1
    digest = base64.b64encode(rng.randbytes(size)).decode()[:size]
    return DELIVERIES.encode(Delivery("delivered", 1_760_000_000_000 + number, f"ds-{number % 1000:04d}", digest))


async def nothing(slice_: Slice, unit: Unit) -> None:
    """The topic of this agent is empty."""


async def contend(job: Job) -> Measured:
    agent = Agent(
        name="restored", topics=(job.topic,), processor=slice_handler(nothing), home=DELIVERIES, tables=(DELIVERIES,)
    )
    lateness = Lateness()
    engine, _ = await start_engine(job, Topics(job.app_id, job.app_id).quarantine, agent)
    async with asyncio.timeout(START_DEADLINE_S):
        while not engine.numbers:  # noqa: ASYNC110  # the engine tells nobody
            await asyncio.sleep(READY_POLL_S)
    began_s, cpu_began_s = time.perf_counter(), time.process_time()
    lateness.start()
    async with asyncio.timeout(START_DEADLINE_S):
        while not all(number.ready for number in engine.numbers.values()):  # noqa: ASYNC110  # as above
            await asyncio.sleep(READY_POLL_S)
    elapsed_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_began_s
    applied = sum(engine.store(agent, n).applied(engine.changelog_topic(DELIVERIES.name)) for n in engine.numbers)
    if applied < job.records:
        raise RuntimeError(f"ready with {applied} of {job.records} rows")
    return Measured(job.records, elapsed_s, cpu_s, {"peak_rss_mb": peak_rss_mb(), **lateness.figures()})


if __name__ == "__main__":
    compete(contend)
