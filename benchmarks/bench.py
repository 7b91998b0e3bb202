"""What every part of the benchmark is given: a broker, a folder, time, and a way to run contenders."""

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Final

from app.devstack.processes import module_command
from app.topics import TopicAdmin, Topics, TopicSpec, apply, client_config, plan
from benchmarks.contender import START_DEADLINE_S, Job, Measured
from benchmarks.failed import BenchmarkFailed
from benchmarks.records import PARTITIONS, PREFIX, SOURCE_TOPIC, preload
from benchmarks.rows import COUNTS, changelogs
from benchmarks.stock_faust import OUTPUT_SUFFIX

__all__ = ["Bench", "BenchmarkFailed", "say"]

# More than any contender has handled in a second; one that empties the topic is measured until then.
PRELOAD_EVENTS_PER_S: Final = 300_000
PRELOAD_EVENTS_MAX: Final = 3_000_000
# The interpreter, the imports, and an end under load.
PROCESS_OVERHEAD_S: Final = 60.0
STDERR_TAIL: Final = 2000


def say(line: str) -> None:
    """Progress, for whoever waits."""
    print(line, flush=True)


class Bench:
    """One run of the benchmark.

    Attributes:
        seconds: How long each thing is measured.
    """

    def __init__(self, brokers: str, folder: Path, seconds: float) -> None:
        self.brokers = brokers
        self.folder = folder
        self.seconds = seconds
        self._admin = TopicAdmin(client_config(brokers))
        self._apps = 0

    @cached_property
    def records(self) -> int:
        """How many events are in the source topic; the first who asks fills it."""
        count = min(PRELOAD_EVENTS_MAX, int(PRELOAD_EVENTS_PER_S * self.seconds))
        self.create(plan(Topics(PREFIX, PREFIX), partitions=PARTITIONS, replication=1))
        self.create([TopicSpec(SOURCE_TOPIC + OUTPUT_SUFFIX, PARTITIONS, 1, {})])
        began_s = time.monotonic()
        preload(self.brokers, count)
        say(f"{count:,} events in {time.monotonic() - began_s:.0f} s")
        return count

    def create(self, specs: Sequence[TopicSpec]) -> None:
        """Create the topics that are missing."""
        apply(specs, self._admin)

    def job(self, name: str, *, topic: str = SOURCE_TOPIC, records: int = 0, options: Mapping[str, float] = {}) -> Job:
        """A job with an application id and a folder that nobody has used."""
        self._apps += 1
        app_id = f"{PREFIX}-{name}-{self._apps}"
        return Job(
            self.brokers, app_id, topic, records, self.seconds, str(self.new_folder(app_id)), options={**options}
        )

    def new_folder(self, name: str) -> Path:
        """An empty folder."""
        folder = self.folder / name
        folder.mkdir()
        return folder

    def source_job(self, name: str) -> Job:
        """A job on the source topic, with the changelogs that a contender may need."""
        job = self.job(name, records=self.records)
        topics = Topics(PREFIX, job.app_id)
        self.create(plan(topics, partitions=PARTITIONS, replication=1))
        self.create(changelogs(topics, [COUNTS.name], PARTITIONS))
        return job

    def run(self, module: str, *jobs: Job) -> list[Measured]:
        """Run a contender's module once a job, all at the same time.

        Raises:
            BenchmarkFailed: One of them ended without a result.
        """
        processes = [
            subprocess.Popen(
                module_command(f"benchmarks.{module}", json.dumps(asdict(job))),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for job in jobs
        ]
        limit_s = START_DEADLINE_S + self.seconds + PROCESS_OVERHEAD_S
        try:
            return [self._result(module, process, limit_s) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()

    @staticmethod
    def _result(module: str, process: subprocess.Popen[str], limit_s: float) -> Measured:
        try:
            out, errors = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise BenchmarkFailed(f"{module}: no result within {limit_s:.0f} s") from None
        if process.returncode != 0 or not out:
            raise BenchmarkFailed(f"{module}: ended with {process.returncode}\n{errors[-STDERR_TAIL:]}")
        return Measured(**json.loads(out.splitlines()[-1]))
