"""Part: what a decision costs that is kept, in process and over HTTP, and what a miss adds to the engine's own time."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from statistics import median, quantiles
from typing import Any, Final

import aiohttp

from app.devstack.kafka import free_port
from app.devstack.processes import Worker
from app.devstack.stack import Upstreams, WorkerApi, encryption_key, listening, worker_settings
from app.devstack.standins import Observations
from app.engine import Clock
from app.events import uuid7
from app.integrations.policy import (
    DecisionJournal,
    Evaluator,
    Invalidations,
    Lifetimes,
    Question,
    Verdict,
    vault_question,
)
from benchmarks.bench import Bench, BenchmarkFailed, say

__all__ = ["run"]

NUMBERS: Final = 12
PRINCIPALS: Final = 100
IN_PROCESS: Final = 20_000
CONNECTIONS: Final = 16
MISSES: Final = 300
DEADLINE_S: Final = 60.0


def run(bench: Bench) -> dict[str, float]:
    """Milliseconds: the 99th percentile of what is kept, and the median of what a miss adds."""
    figures = {"decision_p99_ms": asyncio.run(_in_process())}
    figures |= asyncio.run(_over_http(bench))
    return figures


# -- in process


class _Engine:
    async def verdict(self, _question: Question) -> Verdict:
        return Verdict(allowed=True, reason="reading is open", matched_policies=("p-1",))


async def _in_process() -> float:
    """As a worker has it: the question read, its key made, the decision found, and its record queued."""
    clock, times = Clock(), Invalidations(2.0, 300.0)
    taken = 0

    async def send(records: Sequence[tuple[bytes, bytes]]) -> None:
        nonlocal taken
        taken += len(records)

    journal = DecisionJournal(send, source="/bench", new_id=lambda: uuid7(clock.now_ms(), bytes), now_ms=clock.now_ms)
    evaluator = Evaluator(_Engine(), Lifetimes(), clock, times=times, records=journal)
    writing = asyncio.create_task(journal.run())
    took_ms: list[float] = []
    for number in range(IN_PROCESS):
        times.confirmed(clock.monotonic_s())
        began_s = time.perf_counter()
        await evaluator.evaluate(vault_question(_question(number % PRINCIPALS)))
        took_ms.append((time.perf_counter() - began_s) * 1000)
        if number % 100 == 0:
            await asyncio.sleep(0)
    await journal.close()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    if taken != IN_PROCESS:
        raise BenchmarkFailed(f"{taken} of {IN_PROCESS} decisions are in the log")
    p99_ms = _p99(took_ms[PRINCIPALS:])
    say(f"  in process: median {median(took_ms):.3f} ms, p99 {p99_ms:.3f} ms")
    return round(p99_ms, 3)


# -- over HTTP


async def _over_http(bench: Bench) -> dict[str, float]:
    upstreams = Upstreams.new(Observations())
    async with listening(*upstreams.all), _worker(bench, upstreams) as url, aiohttp.ClientSession() as session:

        async def ask(number: int) -> str:
            async with session.post(f"{url}/v1/policy/evaluate", json=_question(number)) as answer:
                if answer.status != 200:
                    raise BenchmarkFailed(f"status {answer.status}: {await answer.text()}")
                return str((await answer.json())["source"])

        await _until_kept(ask)
        per_s = await _most(ask, bench.seconds / 2)
        took_ms = await _at(ask, per_s / 2, bench.seconds)
        p99_ms = _p99(took_ms)
        say(f"  over HTTP: {per_s:,.0f}/s at most; at half of it median {median(took_ms):.2f} ms, p99 {p99_ms:.2f} ms")
        added_ms = await _miss(session, f"{upstreams.policy.url}/api/v1/evaluate/access", ask)
    return {
        "decision_http_per_s": round(per_s),
        "decision_http_p99_ms": round(p99_ms, 2),
        "decision_miss_added_ms": round(added_ms, 2),
    }


@asynccontextmanager
async def _worker(bench: Bench, upstreams: Upstreams) -> AsyncIterator[str]:
    folder, port = bench.new_folder("decision"), free_port()
    settings = worker_settings(
        brokers=bench.brokers,
        app_id="bench-decision",
        data_dir=folder / "data",
        web_port=port,
        encryption_key=encryption_key(),
        upstreams=upstreams,
    )
    settings |= {"PARTITIONS": str(NUMBERS), "TOPIC_PREFIX": "bench-decision", "LOG__LEVEL": "warning"}
    worker = Worker(settings, folder)
    url = f"http://127.0.0.1:{port}"
    try:
        await worker.start()
        async with WorkerApi(url) as api:
            await worker.while_alive(api.ready())
        yield url
    finally:
        await worker.stop()


async def _until_kept(ask: Callable[[int], Awaitable[str]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        # Just after the start the end of the log is not known yet.
        while {await ask(number) for number in range(PRINCIPALS)} != {"cache"}:
            pass


async def _most(ask: Callable[[int], Awaitable[str]], seconds: float) -> float:
    """Answers a second when each connection asks again at once."""
    until_s, answered = time.monotonic() + seconds, 0

    async def one(number: int) -> None:
        nonlocal answered
        while time.monotonic() < until_s:
            await ask(number % PRINCIPALS)
            answered += 1

    await asyncio.gather(*(one(number) for number in range(CONNECTIONS)))
    return answered / seconds


async def _at(ask: Callable[[int], Awaitable[str]], per_s: float, seconds: float) -> list[float]:
    """How long answers take at a rate, from when each should have been asked for."""
    began_s, took_ms = time.monotonic(), list[float]()

    async def one(number: int, due_s: float) -> None:
        await ask(number % PRINCIPALS)
        took_ms.append((time.monotonic() - due_s) * 1000)

    async with asyncio.TaskGroup() as group:
        for number in range(int(per_s * seconds)):
            due_s = began_s + number / per_s
            if (wait_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            group.create_task(one(number, due_s))
    return took_ms


async def _miss(session: aiohttp.ClientSession, engine: str, ask: Callable[[int], Awaitable[str]]) -> float:
    """In turn, so that whatever else the machine does is in both."""
    direct_ms, through_ms = list[float](), list[float]()
    for number in range(PRINCIPALS, PRINCIPALS + MISSES):
        began_s = time.perf_counter()
        async with session.post(engine, json=_question(number)) as answer:
            await answer.json()
        asked_s = time.perf_counter()
        if await ask(number) != "engine":
            raise BenchmarkFailed("a question that was never asked is no miss")
        direct_ms.append((asked_s - began_s) * 1000)
        through_ms.append((time.perf_counter() - asked_s) * 1000)
    added_ms = median(through_ms) - median(direct_ms)
    say(f"  a miss: {median(direct_ms):.2f} ms straight, {median(through_ms):.2f} ms through us")
    return added_ms


def _question(number: int) -> dict[str, Any]:
    context = {"purpose": "training", "ip": "10.0.0.1"}
    return {"principal_id": f"user-{number}", "action": "read", "resource_id": "ds-1", "context": context}


def _p99(took_ms: Sequence[float]) -> float:
    return quantiles(took_ms, n=100)[98]
