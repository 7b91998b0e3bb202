"""Workers that join and leave under load, and what that cost."""

import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from confluent_kafka.admin import NewTopic

from app.engine.positions import decode_positions
from tests.support.dealing import dealt, even
from tests.support.fold import FoldGroup, FoldWorker, until
from tests.support.nemesis import Nemesis

SETTLE_S = 90.0
# Whoever says this has closed a number without a checkpoint, as it must when the group or the broker is too slow.
UNCLEAN = ("no checkpoint at close", "a number did not close cleanly", "no heartbeat was answered", "CheckpointFailed")


class StormWorker(FoldWorker):
    """See `tests.system.storm_worker`."""

    command = (sys.executable, "-m", "tests.system.storm_worker")

    @property
    def timeline(self) -> list[dict]:
        """Of all its processes: at, pid, generation, numbers."""
        try:
            lines = (self.dir / "timeline").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]

    @property
    def abandoned(self) -> int:
        """What the metric of its processes said at their last close."""
        return sum(int(file.read_text()) for file in self.dir.glob("abandoned-*"))


class StormGroup(FoldGroup):
    """A fold group that also makes calls."""

    def __init__(self, brokers: str, app: str, path: Path, numbers: int, wide: int = 12) -> None:
        super().__init__(brokers, app, path, numbers, wide)
        topics = [
            NewTopic(f"{app}.calls", numbers, 1),
            NewTopic(f"{app}-called-changelog", numbers, 1, config={"cleanup.policy": "compact"}),
        ]
        for future in self.admin.create_topics(topics).values():
            future.result(20)

    def start(self, *names: str, **env: str) -> list[FoldWorker]:
        for name in names:
            self.workers[name] = StormWorker(self, name, **env)
        return [self.workers[name] for name in names]

    @property
    def topics(self) -> list[str]:
        """What a feed feeds."""
        return [f"{self.app}.{name}" for name in ("in", "small", "relay", "calls")]

    @property
    def alive(self) -> list[FoldWorker]:
        """Those that run."""
        return [worker for worker in self.workers.values() if worker.process.poll() is None]

    def settled(self) -> bool:
        """Whether all that run are ready, agree, and have fair shares."""
        alive = self.alive
        assert alive, "no worker is left"
        return dealt(self, alive) == even(self.numbers, len(alive))

    def calls(self) -> list[tuple[int, str]]:
        """(process id, what was called for), in the order in which the calls began."""
        try:
            lines = (self.path / "calls").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [(int(pid), value) for pid, value in (line.split() for line in lines)]

    def called(self) -> set[str]:
        """Calls whose end is in the log."""
        rows = self.read(f"{self.app}-called-changelog", self.numbers)
        return {row.key().decode() for row in rows if not row.key().startswith(b"\x00")}

    def relay_positions(self) -> dict[int, int]:
        """Where the relay stands in its topic, by the log."""
        found: dict[int, int] = {}
        for row in self.read(f"{self.app}-positions-changelog", self.numbers):
            if row.key() == b"\x00positions/relay":
                found |= {place[1]: position.offset for place, position in decode_positions(row.value()).items()}
        return found


@dataclass(frozen=True)
class Kill:
    """One `kill -9`, and what the log said before anybody else wrote to it.

    Attributes:
        calls: In flight: begun by that process, and no end in the log.
        positions: Of the relay.
    """

    numbers: frozenset[int]
    calls: frozenset[str]
    positions: dict[int, int]


@dataclass(frozen=True)
class Event:
    """One join or leave."""

    deed: str
    at: float
    worker: str


@dataclass
class Storm:
    """Joins and leaves, one at a time, each of them recorded; a nemesis that knows what it broke."""

    group: StormGroup
    nemesis: Nemesis
    events: list[Event] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def deeds(self) -> dict[str, Callable[[], str]]:
        """All of them; each returns the name of the worker it happened to."""
        return {
            "join": self.join,
            "leave": self.leave,
            "restart": self.restart,
            "kill -9": self.gone,
            "kill -9 and restart": self.kill,
        }

    def play(self, deed: str) -> None:
        """Do it, and wait until the group has settled again."""
        began = time.monotonic()
        worker = self.deeds[deed]()
        self.events.append(Event(deed, began, worker))
        until(self.group.settled, SETTLE_S, f"settled after {deed} of {worker}")
        self.seconds.append(time.monotonic() - began)

    def join(self) -> str:
        """One that is not there, or was never there."""
        names = sorted(name for name, w in self.group.workers.items() if w.process.poll() is not None)
        if names and self.nemesis.random.random() < 0.5:
            worker = self.group.workers[self.nemesis.random.choice(names)]
            worker.start()
        else:
            (worker,) = self.group.start(f"w{len(self.group.workers) + 1}")
        return worker.name

    def leave(self) -> str:
        """SIGTERM."""
        worker = self._victim()
        assert worker.terminate() == 0
        return worker.name

    def restart(self) -> str:
        """SIGTERM, and start again."""
        worker = self._victim()
        assert worker.terminate() == 0
        worker.start()
        return worker.name

    def gone(self) -> str:
        """`kill -9`, for good."""
        return self._kill().name

    def kill(self) -> str:
        """`kill -9`, and start again."""
        worker = self._kill()
        worker.start()
        return worker.name

    def _kill(self) -> FoldWorker:
        worker = self._victim()
        pid, numbers = worker.process.pid, frozenset(worker.numbers)
        worker.kill()
        begun = {value for by, value in self.group.calls() if by == pid}
        calls = frozenset(begun - self.group.called())
        self.kills.append(Kill(numbers, calls, self.group.relay_positions()))
        return worker

    def _victim(self) -> FoldWorker:
        return self.nemesis.random.choice(sorted(self.group.alive, key=lambda worker: worker.name))

    # -- what it cost

    @property
    def unclean(self) -> list[str]:
        """Workers that had to close a number without a checkpoint; what was not logged is done again then."""
        return [name for name, worker in self.group.workers.items() if any(mark in worker.log for mark in UNCLEAN)]

    def repeated_calls(self) -> tuple[int, int]:
        """Calls made again that were not in flight at a kill; those that were."""
        calls = Counter(value for _, value in self.group.calls())
        excused = Counter(value for kill in self.kills for value in kill.calls)
        repeats = {value: count - 1 for value, count in calls.items() if count > 1}
        at_kills = sum(min(count, excused[value]) for value, count in repeats.items())
        return sum(repeats.values()) - at_kills, at_kills

    def repeated_outputs(self) -> tuple[int, int]:
        """Outputs sent again that were not in flight at a kill; those that were."""
        group = self.group
        origins = {m.value(): (m.partition(), m.offset()) for m in group.read(f"{group.app}.relay", group.numbers)}
        excused = at_kills = 0
        for value, count in group.relayed().items():
            partition, offset = origins[value]
            excuses = sum(
                partition % group.numbers in kill.numbers and offset >= kill.positions.get(partition, 0)
                for kill in self.kills
            )
            at_kills += min(count - 1, excuses)
            excused += max(0, count - 1 - excuses)
        return excused, at_kills

    def rebalances(self) -> list[float]:
        """How long each took, in seconds: from the first number that closed on a worker that stayed, or opened
        elsewhere, until every number was open again."""
        took = []
        ends = [event.at for event in self.events[1:]] + [float("inf")]
        for event, until_ in zip(self.events, ends, strict=True):
            changes = [
                line["at"]
                for worker in self.group.workers.values()
                if worker.name != event.worker
                for line in worker.timeline
                if event.at < line["at"] < until_
            ]
            last = [
                line["at"]
                for worker in self.group.workers.values()
                for line in worker.timeline
                if event.at < line["at"] < until_
            ]
            took.append(max(last) - min(changes) if changes else 0.0)
        return took

    def pauses(self) -> dict[int, float]:
        """The longest time between two records of a number that were handled, in seconds."""
        group, at = self.group, defaultdict(list)
        origins = {m.value(): m.partition() for m in group.read(f"{group.app}.relay", group.numbers)}
        for message in group.read(f"{group.app}.out", group.numbers):
            at[origins[message.value()]].append(message.timestamp()[1] / 1000)
        return {number: max(b - a for a, b in pairwise(sorted(times))) for number, times in sorted(at.items())}
