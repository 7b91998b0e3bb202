"""Part: audit events a second that one worker seals, chains and has accepted, against the bare client in this run."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median
from types import TracebackType
from typing import Final, Self

import aiohttp
import orjson
from confluent_kafka import Producer

from app.devstack.leash import leashed
from app.events import STRUCTURED_HEADERS, decode_structured, derived_event, format_time, partition_for
from app.integrations.audit import audit_event
from app.topics import Topics, plan
from benchmarks.bench import Bench, BenchmarkFailed, say
from benchmarks.deliveries_stage import Stage
from benchmarks.records import make_records

__all__ = ["run"]

ROUNDS: Final = 3
NUMBERS: Final = 12
BATCH: Final = 500
# More than the worker handles in a second.
BACKLOG_PER_S: Final = 40_000
WARM_UP_S: Final = 2.0
FIRST_DEADLINE_S: Final = 60.0
FLUSH_S: Final = 120.0
POLL_EVERY: Final = 5_000


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


class _DashboardProcess:
    """See `audit_dashboard`."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            leashed([sys.executable, "-m", "benchmarks.audit_dashboard"]), stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None  # a pipe was asked for
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    async def accepted(self) -> int:
        """Entries so far.

        Raises:
            BenchmarkFailed: A batch came again, though nothing failed.
        """
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/stats") as answer:
            told = await answer.json()
        if told["repeated"]:
            raise BenchmarkFailed(f"{told['repeated']} batches came again")
        return int(told["entries"])


async def _most(bench: Bench) -> tuple[float, float]:
    """Entries a second with more waiting than can be accepted, and the worker's processor time for each."""
    with _DashboardProcess() as dashboard:
        stage = Stage(
            bench,
            PARTITIONS=str(NUMBERS),
            GOVERNANCE__ENDPOINT=dashboard.url,
            GOVERNANCE__BUFFER_SIZE=str(BATCH),
        )
        topics = Topics(stage.prefix, stage.prefix)
        bench.create(plan(topics, partitions=NUMBERS, replication=1))
        backlog = int(BACKLOG_PER_S * (bench.seconds + WARM_UP_S))
        await asyncio.to_thread(_fill, bench.brokers, topics.audit, backlog)
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


def _audit_records(count: int) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of as many audit records, as the router makes them of the events that all contenders read."""
    now_ms = time.time_ns() // 1_000_000
    recorded = format_time(now_ms)
    for key, value in make_records(count):
        event = decode_structured(value)
        audit = audit_event(event, now_ms)
        yield (
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


def _fill(brokers: str, topic: str, count: int) -> None:
    producer = Producer(
        {
            "bootstrap.servers": brokers,
            "log_level": 0,
            "linger.ms": 50,
            "batch.size": 500_000,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 512_000,
        }
    )
    headers = list(STRUCTURED_HEADERS)
    for number, (key, value) in enumerate(_audit_records(count)):
        while True:
            try:
                producer.produce(topic, value, key, partition=partition_for(key, NUMBERS), headers=headers)
                break
            except BufferError:
                producer.poll(0.1)
        if number % POLL_EVERY == 0:
            producer.poll(0)
    if left := producer.flush(FLUSH_S):
        raise BenchmarkFailed(f"the broker did not take {left} of {count} records")
