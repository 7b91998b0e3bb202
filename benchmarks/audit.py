"""Part: audit events a second that one worker seals, chains and has accepted, against the bare client in this run."""

import asyncio
import time
from collections.abc import Iterator
from statistics import median
from typing import Final

import orjson

from app.events import STRUCTURED_HEADERS, decode_structured, derived_event, format_time, partition_for
from app.integrations.audit import audit_event
from app.topics import Topics, plan
from benchmarks.bench import Bench, BenchmarkFailed, say
from benchmarks.deliveries_stage import Stage
from benchmarks.filling import fill
from benchmarks.neighbour import Neighbour
from benchmarks.records import make_records

__all__ = ["run"]

ROUNDS: Final = 3
NUMBERS: Final = 12
BATCH: Final = 500
# More than the worker handles in a second.
BACKLOG_PER_S: Final = 40_000
WARM_UP_S: Final = 2.0
FIRST_DEADLINE_S: Final = 60.0


def run(bench: Bench) -> dict[str, float]:
    """The rate, its ratio to the bare client, and the worker's processor time for each."""
    return asyncio.run(_run(bench))


async def _run(bench: Bench) -> dict[str, float]:
    per_s: list[float] = []
    ratios: list[float] = []
    cpu_us: list[float] = []
    for _ in range(ROUNDS):
        [bare] = await asyncio.to_thread(bench.run, "bare", bench.source_job("bare"))
        rate, cost_us = await _most(bench)
        per_s.append(rate)
        cpu_us.append(cost_us)
        ratios.append(rate / bare.events_per_s)
        say(f"  bare {bare.events_per_s:,.0f}/s, accepted {rate:,.0f}/s at {cost_us:.0f} us CPU each")
    return {
        "audit_per_s": round(median(per_s)),
        "audit_cpu_us": round(median(cpu_us), 1),
        "audit_ratio_bare": round(median(ratios), 3),
    }


class _Dashboard(Neighbour):
    """See `audit_dashboard`."""

    def __init__(self) -> None:
        super().__init__("audit_dashboard")

    async def accepted(self) -> int:
        """Entries so far.

        Raises:
            BenchmarkFailed: A batch came again, though nothing failed.
        """
        told = await self.stats()
        if told["repeated"]:
            raise BenchmarkFailed(f"{told['repeated']} batches came again")
        return int(told["entries"])


async def _most(bench: Bench) -> tuple[float, float]:
    """Entries a second with more waiting than can be accepted, and the worker's processor time for each."""
    with _Dashboard() as dashboard:
        stage = Stage(
            bench,
            PARTITIONS=str(NUMBERS),
            GOVERNANCE__ENDPOINT=dashboard.url,
            GOVERNANCE__BUFFER_SIZE=str(BATCH),
        )
        topics = Topics(stage.prefix, stage.prefix)
        bench.create(plan(topics, partitions=NUMBERS, replication=1))
        backlog = int(BACKLOG_PER_S * (bench.seconds + WARM_UP_S))
        await asyncio.to_thread(fill, bench.brokers, topics.audit, _audit_records(backlog), STRUCTURED_HEADERS)
        async with stage:
            async with asyncio.timeout(FIRST_DEADLINE_S):
                while not await dashboard.accepted():  # noqa: ASYNC110  # another process, which has no way to call us
                    await asyncio.sleep(0.1)
            await asyncio.sleep(WARM_UP_S)
            began_s, before, cpu_s = time.perf_counter(), await dashboard.accepted(), stage.cpu_s()
            await asyncio.sleep(bench.seconds)
            count = await dashboard.accepted() - before
            elapsed_s, cost_s = time.perf_counter() - began_s, stage.cpu_s() - cpu_s
            if before + count >= backlog:
                raise BenchmarkFailed("it had emptied the topic before anybody could count")
            return count / elapsed_s, cost_s / max(1, count) * 1e6


def _audit_records(count: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Partition, key and value of each; the router makes them so of the events that all contenders read."""
    now_ms = time.time_ns() // 1_000_000
    recorded = format_time(now_ms)
    for key, value in make_records(count):
        event = decode_structured(value)
        audit = audit_event(event, now_ms)
        yield (
            partition_for(key, NUMBERS),
            key,
            derived_event(
                "audit.recorded",
                id_=event.id,
                source=event.source,
                subject=audit["resource"]["id"],
                time=recorded,
                data=orjson.dumps(audit),
            ),
        )
