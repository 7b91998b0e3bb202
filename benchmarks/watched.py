"""Contender: `route` with and without what operators see of it, in turns in one run; or with a listener beside it.

In the turns of the one: metrics, a scrape a second, logs at info into a file, ten lines a second, and one trace of a
hundred, if so asked. In the turns of the other: a registry, a logger and a tracer that do nothing. Whatever else the
machine does is in both.

Options of the job: `port` (answer `/metrics` and health there, and take no turns), `collector` (trace, and send
the spans to that port).
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import quantiles
from typing import Final

from agents.router import router_agent
from app.observability import metrics
from app.observability.health import HealthRegistry, LoopWatch
from app.observability.logging import configure_logging
from app.observability.tracing import Messages, Tracing, TracingConfig, start_tracing
from app.settings import Settings
from app.topics import Topics
from app.web.operations import operations_routes
from app.web.server import WebServer
from benchmarks.contender import LATENESS_EVERY_S, START_DEADLINE_S, Job, Measured, compete
from benchmarks.engine_run import positions, run_engine, start_engine
from benchmarks.records import PREFIX
from benchmarks.route import SomeWebhooksEach
from benchmarks.silence import Switch
from tables.positions import POSITIONS

TURN_S: Final = 0.5
LINES_A_TURN: Final = 5
SAMPLED: Final = 0.01
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0"

log = logging.getLogger("app.bench")


async def contend(job: Job) -> Measured:
    topics = Topics(PREFIX, job.app_id)
    tracing = _tracing(job)
    traces = None if tracing is None else Messages(tracing.tracer, job.app_id)
    agent = router_agent(topics, SomeWebhooksEach(1), POSITIONS, traces=traces)
    watch = LoopWatch()
    watch.start()
    configure_logging("json", "info", f"file:{Path(job.data_dir) / 'worker.log'}")
    if port := int(job.options.get("port", 0)):
        settings = Settings().model_copy(update={"web_port": port})
        await WebServer(settings, operations_routes(HealthRegistry(), watch, {})).start()
        busy = Busyness()
        busy.start()
        measured = await run_engine(job, topics.quarantine, agent)
        return replace(measured, figures={**measured.figures, **busy.figures()})
    engine, _ = await start_engine(job, topics.quarantine, agent)
    return await _in_turns(job, lambda: positions(engine), tracing)


def _tracing(job: Job) -> Tracing | None:
    port = int(job.options.get("collector", 0))
    return start_tracing(TracingConfig(f"http://127.0.0.1:{port}", sample_ratio=SAMPLED), {}) if port else None


class Busyness:
    """How much longer than 10 ms the loop works by itself between two looks of a task that asks for 10 ms.

    By the processor time of its thread: how late that task would be on a machine that does nothing else.
    """

    def __init__(self) -> None:
        self._over_ms: list[float] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; ends with the process."""
        self._task = asyncio.create_task(self._sample())

    async def _sample(self) -> None:
        while True:
            began_s = time.thread_time()
            await asyncio.sleep(LATENESS_EVERY_S)
            self._over_ms.append(max(0.0, time.thread_time() - began_s - LATENESS_EVERY_S) * 1e3)

    def figures(self) -> dict[str, float]:
        """The 99th percentile."""
        return {"loop_work_p99_ms": round(quantiles(self._over_ms, n=100, method="inclusive")[98], 1)}


async def _in_turns(job: Job, count: Callable[[], int], tracing: Tracing | None) -> Measured:
    async with asyncio.timeout(START_DEADLINE_S):
        while count() == 0:  # noqa: ASYNC110  # an event to wait for would be a cost of the loop that is measured
            await asyncio.sleep(TURN_S)
    switch = Switch()
    # By whether all is on: events, time and processor time.
    sums = {True: [0.0, 0.0, 0.0], False: [0.0, 0.0, 0.0]}
    began_s, turns, first = time.perf_counter(), 0, count()
    while count() < job.records and time.perf_counter() - began_s < job.seconds:
        # On, off, off, on: what grows or shrinks with time is in both alike.
        on = turns % 4 in {0, 3}
        turns += 1
        switch.turn(on=on)
        before = (count(), time.perf_counter(), time.process_time())
        await _turn(tracing, on=on)
        after = (count(), time.perf_counter(), time.process_time())
        sums[on] = [total + now - then for total, now, then in zip(sums[on], after, before, strict=True)]
    (events, elapsed_s, cpu_s), (other_events, other_s, other_cpu_s) = sums[True], sums[False]
    figures = {
        "rate_ratio": (events / elapsed_s) / (other_events / other_s),
        "cpu_ratio": (cpu_s / events) / (other_cpu_s / other_events),
        "spans": metrics.REGISTRY.get_sample_value("vault_stream_spans_total", {"outcome": "exported"}) or 0.0,
    }
    return Measured(count() - first, time.perf_counter() - began_s, cpu_s + other_cpu_s, figures)


async def _turn(tracing: Tracing | None, *, on: bool) -> None:
    for number in range(LINES_A_TURN):
        await asyncio.sleep(TURN_S / LINES_A_TURN)
        log.info("still here", extra={"agent": "router", "number": number, "took_s": 0.25})
    if on:
        metrics.render(OPENMETRICS)
        if tracing is not None:
            # Or half of what is sent would be sent in the turns of the other.
            await asyncio.to_thread(tracing._queue._processor.force_flush)  # noqa: SLF001


if __name__ == "__main__":
    compete(contend)
