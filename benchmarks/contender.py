"""What all contenders share: what they are told, how they are counted, and how they answer.

A contender is a process, `python -m benchmarks.<name> <job as JSON>`; it prints one JSON line, a `Measured`.
"""

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from statistics import quantiles
from typing import Final, Self

import uvloop

__all__ = ["Job", "Lateness", "Measured", "compete", "measure"]

START_DEADLINE_S: Final = 60.0
FIRST_EVENT_POLL_S: Final = 0.002
POLL_S: Final = 0.1
LATENESS_EVERY_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one contender.

    Attributes:
        app_id: New for every run, so that each begins at the beginning of the topic.
        topic: The source, filled before; every record is a valid event.
        records: How many are in it.
        seconds: How long to count, from the first event on.
        data_dir: An empty folder.
        instance: The name of this process in its group.
        share: Numbers that it must hold before anything counts; 0: whatever it gets.
        options: What only this contender knows.
    """

    brokers: str
    app_id: str
    topic: str
    records: int
    seconds: float
    data_dir: str
    instance: str = "bench"
    share: int = 0
    options: dict[str, float] = field(default_factory=dict)

    @classmethod
    def given(cls) -> Self:
        """The job of this process, from its command line."""
        return cls(**json.loads(sys.argv[1]))


@dataclass(frozen=True, slots=True)
class Measured:
    """What a contender did in its time; `cpu_s` is of its own process, all threads.

    Attributes:
        figures: Whatever else it measured; the unit is in the name.
    """

    events: int
    elapsed_s: float
    cpu_s: float
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def events_per_s(self) -> float:
        """The rate."""
        return self.events / self.elapsed_s

    @property
    def cpu_us(self) -> float:
        """Processor time an event."""
        return self.cpu_s / self.events * 1e6


async def measure(job: Job, count: Callable[[], int]) -> Measured:
    """Count from the first event on, for `job.seconds` or until the topic is empty.

    Args:
        job: How long, and how many events there are at most.
        count: Events handled so far.

    Raises:
        TimeoutError: No event came, or no second one.
    """
    async with asyncio.timeout(START_DEADLINE_S):
        while count() == 0:  # noqa: ASYNC110  # an event to wait for would be a cost of the loop that is measured
            await asyncio.sleep(FIRST_EVENT_POLL_S)
    began_s, cpu_began_s, before = time.perf_counter(), time.process_time(), count()

    def over() -> bool:
        # On a machine that has no time for it, a short run would end before the second checkpoint.
        counted = count()
        return counted >= job.records or (counted > before and time.perf_counter() - began_s >= job.seconds)

    async with asyncio.timeout(job.seconds + START_DEADLINE_S):
        while not over():  # noqa: ASYNC110  # as above
            await asyncio.sleep(POLL_S)
    return Measured(count() - before, time.perf_counter() - began_s, time.process_time() - cpu_began_s)


class Lateness:
    """How late the loop wakes a task that asked for 10 ms, from `start` on: what a health check or a timer feels."""

    def __init__(self) -> None:
        self._late_ms: list[float] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; ends with the process."""
        self._task = asyncio.create_task(self._sample())

    async def _sample(self) -> None:
        while True:
            began_s = time.perf_counter()
            await asyncio.sleep(LATENESS_EVERY_S)
            self._late_ms.append((time.perf_counter() - began_s - LATENESS_EVERY_S) * 1e3)

    def figures(self) -> dict[str, float]:
        """The 99th percentile and the worst."""
        if len(self._late_ms) < 2:
            return {}
        p99_ms = quantiles(self._late_ms, n=100, method="inclusive")[-1]
        return {"loop_lag_p99_ms": round(p99_ms, 1), "loop_lag_max_ms": round(max(self._late_ms), 1)}


def compete(contend: Callable[[Job], Awaitable[Measured]]) -> None:
    """The body of a contender's process: run it on uvloop, print the result and end at once."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)

    async def main() -> None:
        measured = await contend(Job.given())
        print(json.dumps(asdict(measured)), flush=True)
        # Nothing of a run is used again: its group, its topics and its folder are its own.
        os._exit(0)

    uvloop.run(main())
