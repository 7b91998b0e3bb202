"""Numbers are dealt out whole, evenly, and come back to whoever had them."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from app.devstack.kafka import KafkaServer
from tests.support.dealing import dealt, even, holdings, moved_needlessly, split
from tests.support.feeding import Feed
from tests.support.fold import FoldGroup, FoldWorker, folded, until
from tests.support.report import report
from tests.support.storm import StormGroup

pytestmark = pytest.mark.kafka

DEADLINE_S = 90.0
LONG_S = 60.0
"""A session, and what a rebalance waits for members, in which a dead member that nobody took out holds everybody up."""
BACK_S = 30.0
PER_S = 100.0
ROUNDS = 5


@pytest.fixture
def group(kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> Iterator[FoldGroup]:
    group = FoldGroup(kafka.bootstrap, unique("deal"), tmp_path, numbers=8)
    yield group
    group.close()


@pytest.fixture
def long_group(kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> Iterator[StormGroup]:
    """Its workers are started with a rebalance timeout, which the application does not let anybody set."""
    group = StormGroup(kafka.bootstrap, unique("back"), tmp_path, numbers=8)
    yield group
    group.close()


class Dealing:
    """Workers that come and go, looked at after each step."""

    def __init__(self, group: FoldGroup) -> None:
        self.group = group
        self.steps: dict[str, str] = {}
        self._had: dict[str, set[int]] = {}

    def settle(self, step: str) -> None:
        """Whole, even, nothing moved without need, and everybody's owner table says so."""
        workers = [worker for worker in self.group.workers.values() if worker.process.poll() is None]
        sizes = even(self.group.numbers, len(workers))
        began = time.monotonic()
        until(lambda: dealt(self.group, workers) == sizes, DEADLINE_S, f"{sizes} after {step}")
        has = holdings(workers)
        assert split(self.group, workers) == [], step
        assert moved_needlessly(self._had, has) == [], step
        moved = sum(len(has[name] - had) for name, had in self._had.items() if name in has)
        self.steps[step] = f"{sizes}; {moved} moved among those that stayed; {time.monotonic() - began:.1f} s"
        self._had = has


def test_numbers_are_whole_even_and_stay_with_three_to_five_workers(group: FoldGroup) -> None:
    dealing = Dealing(group)
    group.start("w1", "w2", "w3")
    dealing.settle("three start")
    group.start("w4")
    dealing.settle("a fourth joins")
    group.start("w5")
    dealing.settle("a fifth joins")
    group.produce(0, 500)
    until(lambda: group.counted() == folded(500, 2), DEADLINE_S, "all partitions consumed")

    assert group.workers["w2"].terminate() == 0
    dealing.settle("one leaves")
    group.workers["w4"].kill()
    dealing.settle("one is killed")
    group.workers["w4"].start()
    dealing.settle("it comes back")
    group.produce(500, 500)
    until(lambda: group.counted() == folded(1000, 2), DEADLINE_S, "all partitions consumed by others")

    report("Assignment of eight numbers", dealing.steps)


def test_a_worker_without_a_number_is_a_ready_spare(kafka: KafkaServer, unique: Callable, tmp_path: Path) -> None:
    group = FoldGroup(kafka.bootstrap, unique("spare"), tmp_path, numbers=2)
    try:
        workers = group.start("w1", "w2", "w3")

        until(lambda: dealt(group, workers) == [1, 1, 0], DEADLINE_S, "one each, and a spare")
    finally:
        group.close()


def back_before_a_session_ends(group: StormGroup, deadline_s: float = BACK_S) -> float:
    """`kill -9` and restart of one of three: everybody has what they had; how long it took, in seconds."""
    victim = group.workers["w2"]
    until(group.settled, DEADLINE_S, "settled")
    had = holdings(group.alive)
    began = time.monotonic()
    victim.kill()
    victim.start()
    until(lambda: group.settled() and holdings(group.alive) == had, deadline_s, "everything as it was")
    return time.monotonic() - began


def test_a_worker_that_is_killed_and_started_again_has_its_numbers_long_before_its_session_ends(
    long_group: StormGroup,
) -> None:
    group = long_group
    group.start("w1", "w2", "w3", SESSION=f"{LONG_S:.0f}", REBALANCE_TIMEOUT=f"{LONG_S:.0f}")
    with Feed(group.brokers, group.topics[:3], PER_S) as feed:
        assert back_before_a_session_ends(group) < LONG_S
        total = feed.stop()

    until(lambda: group.counted().total() >= total * 2, DEADLINE_S, "everything counted")
    assert group.counted() == folded(total, 2)


@pytest.mark.prove
def test_the_proof_of_a_quick_return_fails_without_the_leave_group(long_group: StormGroup) -> None:
    long_group.start("w1", "w2", "w3", SESSION=f"{LONG_S:.0f}", REBALANCE_TIMEOUT=f"{LONG_S:.0f}", BROKEN="no_leave")

    with pytest.raises(AssertionError, match="everything as it was"):
        back_before_a_session_ends(long_group)


@pytest.mark.prove
def test_a_worker_that_is_killed_and_started_again_handles_records_within_seconds_and_the_others_hardly_pause(
    long_group: StormGroup,
) -> None:
    group = long_group
    group.start("w1", "w2", "w3", SESSION="10")
    back, pauses = [], []
    with Feed(group.brokers, group.topics[:3], PER_S):
        for _ in range(ROUNDS):
            until(group.settled, DEADLINE_S, "settled")
            victim = group.workers["w2"]
            mine = set(victim.numbers)
            victim.kill()
            killed_at = time.time()
            victim.start()
            until(lambda at=killed_at: handled_since(group, at).keys() == set(range(8)), DEADLINE_S, "all go on")
            until(group.settled, DEADLINE_S, "settled")
            time.sleep(3.0)
            seen = handled_since(group, killed_at - 1.0)
            back.append(max(min(t for t in seen[n] if t > killed_at) for n in mine) - killed_at)
            pauses.append(max(b - a for n in seen.keys() - mine for a, b in pairwise(seen[n])))
    report(
        "`kill -9` and restart at once, session 10 s, three workers, eight numbers",
        {
            "first record of each of its numbers after the new process's start (s)": ", ".join(
                f"{s:.1f}" for s in back
            ),
            "longest pause of the others' numbers (s)": ", ".join(f"{s:.2f}" for s in pauses),
        },
    )
    assert statistics.median(back) < 5.0
    assert statistics.median(pauses) < 1.0


def handled_since(group: StormGroup, at: float) -> dict[int, list[float]]:
    """When records of each number were relayed, in seconds since 1970."""
    origins = {m.value(): m.partition() for m in group.read(f"{group.app}.relay", group.numbers)}
    found: dict[int, list[float]] = {}
    for message in group.read(f"{group.app}.out", group.numbers):
        when = message.timestamp()[1] / 1000
        if when >= at and message.value() in origins:
            found.setdefault(origins[message.value()], []).append(when)
    return {number: sorted(times) for number, times in found.items()}


@pytest.mark.prove
def test_the_proof_of_whole_numbers_fails_when_partitions_are_dealt_one_by_one(group: FoldGroup) -> None:
    for names in (["w1", "w2", "w3"], ["w4", "w5"]):
        group.start(*names, BROKEN="round_robin_unseen")
        workers = list(group.workers.values())

        with pytest.raises(AssertionError):
            until(lambda w=workers: dealt(group, w) == even(8, len(w)), 20, f"{len(workers)} have whole numbers")

        assert split(group, workers) != []


def test_a_worker_whose_numbers_are_not_whole_says_so_and_ends(group: FoldGroup) -> None:
    workers = group.start("w1", "w2", "w3", BROKEN="round_robin")
    said: set[str] = set()

    def one_ends() -> list[FoldWorker]:
        said.update(reason for worker in workers for reason in worker.reasons)
        return [worker for worker in workers if worker.process.poll() is not None]

    ended = until(one_ends, DEADLINE_S, "the first ends")

    assert ended[0].process.returncode == 70
    assert any("is not whole" in reason for reason in said)
    assert "the assignment stays wrong after 3 more joins" in ended[0].log


def test_a_second_process_on_one_data_dir_exits_with_one_line(group: FoldGroup) -> None:
    (worker,) = group.start("w1")
    until(lambda: worker.ready, what="ready")

    second = subprocess.run(
        [sys.executable, "-m", "tests.system.fold_worker"],
        env={
            "APP": group.app,
            "BROKERS": group.brokers,
            "NUMBERS": "8",
            "DATA_DIR": str(worker.dir),
            "PATH": "",
        },
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert "in use by another process" in second.stderr
