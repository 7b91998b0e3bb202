"""Part: what a decision costs that is kept, in process and over HTTP, and what a miss adds to the engine's own time."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Final

import aiohttp

from app.devstack.kafka import free_port
from app.devstack.leash import leashed
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
from benchmarks.decision_load import PATH, Course, question

__all__ = ["run"]

NUMBERS: Final = 12
PRINCIPALS: Final = 100
IN_PROCESS: Final = 20_000
CONNECTIONS: Final = 16
CONNECTIONS_AT_HALF: Final = 100
ROUNDS: Final = 3
# A new broker compiles itself for about so long, on one of two cores.
WARM_UP_S: Final = 20.0
WARM_UP_BARE_S: Final = 1.0
# What the 99th percentile is of.
KEPT_AT_LEAST: Final = 0.995
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
        await evaluator.evaluate(vault_question(question(number % PRINCIPALS)))
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


@dataclass(frozen=True, slots=True)
class _Server:
    port: int
    pid: int

    def cpu_s(self) -> float:
        """Processor seconds so far."""
        ticks = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")


async def _over_http(bench: Bench) -> dict[str, float]:
    upstreams = Upstreams.new(Observations())
    async with listening(*upstreams.all), _worker(bench, upstreams) as worker, aiohttp.ClientSession() as session:

        async def ask(number: int) -> str:
            async with session.post(f"http://127.0.0.1:{worker.port}{PATH}", json=question(number)) as answer:
                told = await answer.text()
            if answer.status != 200:
                raise BenchmarkFailed(f"status {answer.status}: {told}")
            return told

        async with _bare(await _until_kept(ask)) as bare:
            figures = await _at_half(bench, worker, bare)
        added_ms = await _miss(session, f"{upstreams.policy.url}/api/v1/evaluate/access", ask)
    return {**figures, "decision_miss_added_ms": round(added_ms, 2)}


@asynccontextmanager
async def _worker(bench: Bench, upstreams: Upstreams) -> AsyncIterator[_Server]:
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
    try:
        await worker.start()
        async with WorkerApi(f"http://127.0.0.1:{port}") as api:
            await worker.while_alive(api.ready())
        assert worker.pid is not None  # it was alive a moment ago
        yield _Server(port, worker.pid)
    finally:
        await worker.stop()


@asynccontextmanager
async def _bare(answer: str) -> AsyncIterator[_Server]:
    """See `decision_bare`."""
    command = leashed([sys.executable, "-m", "benchmarks.decision_bare", answer])
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None  # a pipe was asked for
    try:
        yield _Server(int(await process.stdout.readline()), process.pid)
    finally:
        process.kill()
        await process.wait()


async def _until_kept(ask: Callable[[int], Awaitable[str]]) -> str:
    """The last answer."""
    async with asyncio.timeout(DEADLINE_S):
        # Just after the start the end of the log is not known yet.
        while {_source(told := await ask(number)) for number in range(PRINCIPALS)} != {"cache"}:
            pass
    return told


def _source(answer: str) -> str:
    return str(json.loads(answer)["source"])


async def _at_half(bench: Bench, worker: _Server, bare: _Server) -> dict[str, float]:
    """At half of what is answered at most; in turn with the bare server at the same rate, on the same machine."""
    await _load(worker, WARM_UP_S)
    await _load(bare, WARM_UP_BARE_S)
    per_s = (await _load(worker, bench.seconds / 2))["per_s"]
    say(f"  over HTTP: {per_s:,.0f}/s at most")
    rounds: dict[str, list[dict[str, float]]] = {"decision_http": [], "decision_bare_http": []}
    for _ in range(ROUNDS):
        for (name, found), server in zip(rounds.items(), (worker, bare), strict=True):
            cpu_s = server.cpu_s()
            told = await _load(server, bench.seconds, per_s / 2)
            cpu_us = (server.cpu_s() - cpu_s) / (told["per_s"] * bench.seconds) * 1e6
            found.append({**told, "cpu_us": cpu_us})
            say(
                f"  {name} at {told['per_s']:,.0f}/s: median {told['p50_ms']:.2f} ms, p99 {told['p99_ms']:.2f} ms,"
                f" {cpu_us:.0f} us CPU each"
            )
    return {"decision_http_per_s": round(per_s)} | {
        f"{name}_{what}": round(median(one[what] for one in found), 2)
        for name, found in rounds.items()
        for what in ("p50_ms", "p99_ms", "cpu_us")
    }


async def _load(server: _Server, seconds: float, per_s: float | None = None) -> dict[str, float]:
    """What `decision_load` saw."""
    connections = CONNECTIONS if per_s is None else CONNECTIONS_AT_HALF
    course = Course(server.port, seconds, PRINCIPALS, connections, per_s)
    command = leashed([sys.executable, "-m", "benchmarks.decision_load", json.dumps(asdict(course))])
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    if process.returncode:
        raise BenchmarkFailed(f"the load ended with {process.returncode}")
    told: dict[str, float] = json.loads(out)
    if told["kept"] < KEPT_AT_LEAST:
        raise BenchmarkFailed(f"{1 - told['kept']:.1%} of the answers were not kept ones")
    return told


async def _miss(session: aiohttp.ClientSession, engine: str, ask: Callable[[int], Awaitable[str]]) -> float:
    """In turn, so that whatever else the machine does is in both."""
    direct_ms, through_ms = list[float](), list[float]()
    for number in range(PRINCIPALS, PRINCIPALS + MISSES):
        began_s = time.perf_counter()
        async with session.post(engine, json=question(number)) as answer:
            await answer.json()
        asked_s = time.perf_counter()
        if _source(await ask(number)) != "engine":
            raise BenchmarkFailed("a question that was never asked is no miss")
        direct_ms.append((asked_s - began_s) * 1000)
        through_ms.append((time.perf_counter() - asked_s) * 1000)
    added_ms = median(through_ms) - median(direct_ms)
    say(f"  a miss: {median(direct_ms):.2f} ms straight, {median(through_ms):.2f} ms through us")
    return added_ms


def _p99(took_ms: Sequence[float]) -> float:
    return quantiles(took_ms, n=100)[98]
