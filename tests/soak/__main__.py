"""`python -m tests.soak`: bad luck at random for as long as asked, then an exact comparison and a report.

Exit code 1: records were lost, or counted twice, or a worker did not come back. Ctrl-C ends early, with the report.
"""

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from app.devstack.kafka import KafkaServer
from tests.support.feeding import Feed
from tests.support.fold import FoldGroup, folded, until
from tests.support.nemesis import Nemesis, seed_of_run
from tests.support.report import report

NUMBERS = 8
MOST_WORKERS = 5
SESSION_S = 6.0
PER_S = 300.0
SETTLE_S = 180.0
PAUSE_S = (2.0, 12.0)
BROKER_AWAY_S = (1.0, 8.0)


class Soak:
    """One run.

    Attributes:
        deeds: What was done, and how often.
    """

    def __init__(self, kafka: KafkaServer, group: FoldGroup, seed: int) -> None:
        self.kafka, self.group, self.seed = kafka, group, seed
        self.random = random.Random(seed)
        self.nemesis = Nemesis(group, seed, session_s=SESSION_S)
        self.deeds: Counter[str] = Counter()
        self.names = iter(f"w{number}" for number in range(1, 100_000))

    def begin(self, workers: int) -> None:
        self.group.start(*(next(self.names) for _ in range(workers)), SESSION=f"{SESSION_S:.0f}")
        until(lambda: all(w.ready for w in self.group.workers.values()), SETTLE_S, "all ready")

    def deed(self) -> str:
        """One thing goes wrong, or somebody comes or goes."""
        choices: list[tuple[Callable[[], None], int]] = [
            (self.nemesis.kill, 4),
            (lambda: self.nemesis.kill(wipe=True), 2),
            (self.nemesis.restart, 3),
            (self.nemesis.zombie, 2),
            (self.join, 3),
            (self.leave, 3),
            (self.broker, 1),
        ]
        names = ("kill", "kill and wipe", "restart", "freeze", "join", "leave", "kill the broker")
        at = self.random.choices(range(len(choices)), [weight for _, weight in choices])[0]
        choices[at][0]()
        self.deeds[names[at]] += 1
        return names[at]

    def join(self) -> None:
        if len(self.group.workers) < MOST_WORKERS:
            self.group.start(next(self.names), SESSION=f"{SESSION_S:.0f}")

    def leave(self) -> None:
        if len(self.group.workers) > 1:
            name = self.random.choice(sorted(self.group.workers))
            worker = self.group.workers.pop(name)
            with contextlib.suppress(AssertionError):
                until(lambda: worker.status, 10.0)
            worker.terminate()

    def broker(self) -> None:
        self.kafka.kill()
        time.sleep(self.random.uniform(*BROKER_AWAY_S))
        self.kafka.start()

    def run(self, minutes: float, console: Console) -> int:
        """How many records were produced into each topic."""
        topics = [f"{self.group.app}.{name}" for name in ("in", "small", "relay")]
        ends = time.monotonic() + minutes * 60
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[last]}"),
            TimeRemainingColumn(),
        )
        with Feed(self.group.brokers, topics, PER_S) as feed, Progress(*columns, console=console) as progress:
            task = progress.add_task("soak", total=minutes * 60, last="")
            with contextlib.suppress(KeyboardInterrupt):
                while (left := ends - time.monotonic()) > 0:
                    last = f"{feed.produced:,} records, {sum(self.deeds.values())} deeds, last: {self.deed()}"
                    progress.update(task, completed=minutes * 60 - left, last=last)
                    time.sleep(self.random.uniform(*PAUSE_S))
        return feed.stop()

    def judge(self, total: int) -> dict[str, object]:
        """What was lost, or is wrong, after everybody has come to rest."""
        group, wanted = self.group, folded(total, 2)
        for worker in group.workers.values():
            if worker.process.poll() is not None:
                worker.start()
        with contextlib.suppress(AssertionError):
            until(lambda: group.counted().total() >= wanted.total(), SETTLE_S, "everything counted")
            until(lambda: len(set(group.relayed())) >= total, SETTLE_S, "everything relayed")
            until(lambda: all(worker.ready for worker in group.workers.values()), SETTLE_S, "all ready")
        counted, relayed = group.counted(), group.relayed()
        return {
            "seed": self.seed,
            "records produced": total * 3,
            **{f"times: {deed}": times for deed, times in sorted(self.deeds.items())},
            "generation of the group at the end": max(
                (w.status.get("generation", 0) for w in group.workers.values()), default=0
            ),
            "records not counted": (wanted - counted).total(),
            "records counted more than once": (counted - wanted).total(),
            "relayed records missing": total - len(set(relayed)),
            "relayed records repeated": relayed.total() - len(relayed),
            "workers not ready at the end": sum(not worker.ready for worker in group.workers.values()),
        }


FATAL = (
    "records not counted",
    "records counted more than once",
    "relayed records missing",
    "workers not ready at the end",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default 60)")
    parser.add_argument("--workers", type=int, default=3, help=f"to begin with, 1 to {MOST_WORKERS} (default 3)")
    options = parser.parse_args()
    if options.minutes <= 0 or not 1 <= options.workers <= MOST_WORKERS:
        parser.error(f"--minutes must be above 0, and --workers from 1 to {MOST_WORKERS}")
    console, folder = Console(stderr=True), Path(tempfile.mkdtemp(prefix="vault-stream-soak-"))
    kafka = KafkaServer(folder / "kafka", leash=True)
    kafka.start()
    group = FoldGroup(kafka.bootstrap, "soak", folder, NUMBERS)
    try:
        soak = Soak(kafka, group, seed_of_run())
        soak.begin(options.workers)
        began = time.monotonic()
        total = soak.run(options.minutes, console)
        seen = {"minutes": round((time.monotonic() - began) / 60, 1), **soak.judge(total)}
    finally:
        group.close()
        kafka.kill()
    report("Soak", seen)
    bad = any(seen[name] for name in FATAL)
    if bad:
        console.print(f"kept for a look: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
