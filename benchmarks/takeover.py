"""Part: how long numbers stand still when a worker is killed, killed and started again, joins, or leaves.

Three workers and eight numbers under a steady load; a worker keeps one row and sends one record for each that it
reads. All times are the broker's (LogAppendTime) of those records: nothing is polled.
"""

import json
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from app.devstack.processes import module_command
from app.topics import Topics, TopicSpec
from benchmarks.bench import Bench, say
from benchmarks.contender import Job
from benchmarks.load import Observer, SteadyLoad, first_after, longest_pause_s
from benchmarks.rows import COUNTS, changelogs

__all__ = ["OUTPUT_SUFFIX", "run"]

NUMBERS: Final = 8
WORKERS: Final = ("one", "two", "three")
LOAD_PER_S: Final = 400
OUTPUT_SUFFIX: Final = ".out"
# Whatever a rebalance still has to say for itself comes within this time.
SETTLE_S: Final = 4.0
NUMBERS_ALL: Final = frozenset(range(NUMBERS))


class Group:
    """The workers of one application, by name."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        job = bench.job("takeover")
        self.job = replace(job, topic=f"{job.app_id}.in")
        self.output = self.job.app_id + OUTPUT_SUFFIX
        topics = Topics(self.job.app_id, self.job.app_id)
        bench.create([TopicSpec(self.job.topic, NUMBERS, 1, {}), *changelogs(topics, [COUNTS.name], NUMBERS)])
        bench.create([TopicSpec(self.output, NUMBERS, 1, {"message.timestamp.type": "LogAppendTime"})])
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._folders: dict[str, Path] = {}

    def start(self, name: str) -> None:
        """Start it, on the disk that it had before."""
        if name not in self._folders:
            self._folders[name] = self._bench.new_folder(f"{self.job.app_id}-{name}")
        job: Job = replace(self.job, instance=name, data_dir=str(self._folders[name]))
        with (self._folders[name] / "worker.log").open("ab") as log:
            command = module_command("benchmarks.takeover_worker", json.dumps(asdict(job)))
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        """`kill -9`."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def leave(self, name: str) -> None:
        """SIGTERM; returns at once."""
        self._processes[name].terminate()

    def close(self) -> None:
        """The end of all of them."""
        for name in list(self._processes):
            self.kill(name)


def run(bench: Bench) -> dict[str, float]:
    """Seconds of each."""
    group = Group(bench)
    try:
        with (
            SteadyLoad(bench.brokers, group.job.topic, NUMBERS, LOAD_PER_S),
            Observer(bench.brokers, group.output, NUMBERS) as observer,
        ):
            for name in WORKERS:
                group.start(name)
            observer.until(
                lambda: set(observer.owners().values()) == set(WORKERS) and observer.owners().keys() == NUMBERS_ALL,
                "three workers share all numbers",
            )
            time.sleep(SETTLE_S)
            return {
                **_killed_and_started(group, observer, "two"),
                **_joined_and_left(group, observer, "four"),
                **_killed(group, observer, "three"),
            }
    finally:
        group.close()


def _killed_and_started(group: Group, observer: Observer, victim: str) -> dict[str, float]:
    """From the new process's start to the first record of the last of its numbers; the others' longest pause."""
    numbers = _numbers_of(observer, victim)
    killed_s = time.time()
    group.kill(victim)
    started_s = time.time()
    group.start(victim)
    observer.until(
        lambda: first_after(observer.seen, started_s, numbers).keys() == numbers, "the numbers of the killed work again"
    )
    time.sleep(SETTLE_S)
    back_s = max(first_after(observer.seen, started_s, numbers).values()) - started_s
    pause_s = longest_pause_s(observer.seen, killed_s, time.time(), set(NUMBERS_ALL - numbers))
    say(f"  kill -9 and start: its numbers after {back_s:.1f} s, the others paused for {pause_s:.2f} s")
    return {"restart_s": round(back_s, 2), "restart_others_pause_s": round(pause_s, 2)}


def _joined_and_left(group: Group, observer: Observer, name: str) -> dict[str, float]:
    """The longest pause of any number, when a worker joins and when it leaves in an orderly way."""
    pauses = {}
    since_s = time.time()
    group.start(name)
    observer.until(lambda: name in observer.owners().values(), "the fourth worker works")
    time.sleep(SETTLE_S)
    pauses["join"] = longest_pause_s(observer.seen, since_s, time.time(), set(NUMBERS_ALL))
    since_s = time.time()
    group.leave(name)
    observer.until(
        lambda: observer.owners().keys() == NUMBERS_ALL and name not in observer.owners().values(), "it has left"
    )
    time.sleep(SETTLE_S)
    pauses["leave"] = longest_pause_s(observer.seen, since_s, time.time(), set(NUMBERS_ALL))
    say(f"  a worker joins: {pauses['join']:.2f} s, and leaves: {pauses['leave']:.2f} s")
    return {
        "rebalance_s": round(max(pauses.values()), 2),
        **{f"rebalance_{what}_s": round(pause_s, 2) for what, pause_s in pauses.items()},
    }


def _killed(group: Group, observer: Observer, victim: str) -> dict[str, float]:
    """From the kill to the first record of its numbers on a survivor, and until all of them work."""
    numbers = _numbers_of(observer, victim)
    killed_s = time.time()
    group.kill(victim)
    observer.until(
        lambda: first_after(observer.seen, killed_s, numbers, victim).keys() == numbers, "survivors have its numbers"
    )
    taken = first_after(observer.seen, killed_s, numbers, victim).values()
    time.sleep(SETTLE_S)
    pause_s = longest_pause_s(observer.seen, killed_s, time.time(), set(NUMBERS_ALL - numbers))
    first_s, all_s = min(taken) - killed_s, max(taken) - killed_s
    say(f"  kill -9: first record after {first_s:.1f} s, all numbers after {all_s:.1f} s; others {pause_s:.2f} s")
    return {
        "takeover_s": round(first_s, 2),
        "takeover_all_s": round(all_s, 2),
        "takeover_others_pause_s": round(pause_s, 2),
    }


def _numbers_of(observer: Observer, worker: str) -> set[int]:
    return {number for number, owner in observer.owners().items() if owner == worker}
