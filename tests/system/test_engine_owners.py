"""A worker frozen beyond its session, and woken when another one owns its numbers: it writes nothing, and goes on."""

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median

import pytest
from confluent_kafka import Producer

from app.devstack.kafka import KafkaServer
from app.engine import faults
from tests.support.fold import FoldGroup, FoldWorker, folded, until
from tests.support.logs import came_back, written_again
from tests.support.nemesis import seed_of_run
from tests.support.proxy import Api, Deed, KafkaProxy, Rule
from tests.support.report import report

pytestmark = pytest.mark.kafka

SIDE_BY_SIDE = 3
FED = 300
"""To the one that is frozen, to its heir, while it wakes, and when both are at work."""
RECORDS = 4 * FED
SESSION_S = 6.0
DEADLINE_S = 90.0
FENCINGS = 20

ASKED = "open:asked"
"""Between the heartbeat's answer and InitProducerId: the one step at which a woken zombie fences its heir."""
REOPENING = "open:asked again"
"""The same in a reopening, which names the id that it had: the broker refuses the zombie, the heir hears nothing."""
COMMIT = "a commit on its way"
"""EndTxn has left the worker, and reaches the broker when the heir is at work."""
CUT_OFF = "cut off"
"""Not frozen: it runs on, with a commit on its way, and hears nothing of the group until the heir is at work."""
WIRED = (REOPENING, COMMIT, CUT_OFF)
INVALID_TXN_STATE = 48


@dataclass(frozen=True)
class Seen:
    """What a handover was like.

    Attributes:
        fenced: Checkpoints of the heir that failed, though it was the rightful owner.
    """

    fenced: int


class Handover:
    """A worker is frozen at a step, its heir takes over and counts on, and the frozen one is woken."""

    def __init__(self, kafka: KafkaServer, group: FoldGroup, step: str, **env: str) -> None:
        self.kafka, self.group, self.step = kafka, group, step
        self.env = {"SESSION": f"{SESSION_S:.0f}"} | env

    def run(self) -> Seen:
        try:
            with KafkaProxy(self.kafka.bootstrap) as wire:
                return self._run(wire)
        finally:
            self.group.close()

    def _run(self, wire: KafkaProxy) -> Seen:
        group = self.group
        victim = self._gone_at_work(wire) if self.step in WIRED else self._frozen_at_the_point()
        heir = self._heir(victim)
        group.produce(FED, FED)
        until(lambda: group.counted() == folded(2 * FED, 2), DEADLINE_S, f"{self.step}: the heir counts on")

        wire.clear()
        wire.heal()
        victim.signal(signal.SIGCONT)
        group.produce(2 * FED, FED)

        until(lambda: self._shared(victim, heir), DEADLINE_S, f"{self.step}: both at work")
        self._assert_the_zombie_wrote_nothing()
        # The last records of each partition: what is read twice before them shows with them.
        group.produce(3 * FED, FED)
        until(lambda: group.counted().total() >= 2 * RECORDS, DEADLINE_S, f"{self.step}: all is counted")
        assert group.counted() == folded(RECORDS, 2)
        until(lambda: len(group.relayed()) >= RECORDS, DEADLINE_S, f"{self.step}: all is relayed")
        assert set(group.relayed()) == {b"v-%d" % i for i in range(RECORDS)}
        self._assert_the_zombie_wrote_nothing()
        return Seen(heir.failed_checkpoints)

    def _assert_the_zombie_wrote_nothing(self) -> None:
        assert came_back(self.kafka.data_dir, self.group) == {}
        assert written_again(self.group) == []

    def _frozen_at_the_point(self) -> FoldWorker:
        group = self.group
        fault = {"FAULT": f"{self.step}:{self._nth()}:stop"}
        group.produce(0, FED)
        if self.step.startswith(("open:", "restore:")):
            (victim,) = group.start("victim", **self.env)
            until(lambda: group.counted() == folded(FED, 2), DEADLINE_S, "rows to restore")
            victim.kill()
            victim.wipe()
            victim.env |= fault
            victim.start()
        else:
            (victim,) = group.start("victim", **self.env, **fault)
        if self.step.startswith("revoke:"):
            until(lambda: victim.ready, DEADLINE_S, "ready")
            group.start("heir", **self.env)
        until(lambda: victim.stopped, DEADLINE_S, f"frozen at {self.step}")
        return victim

    def _nth(self) -> int:
        """Some have passed by then, of this number or another, so that there is something to lose."""
        if self.step == "restore:placed":
            return 1
        return 3 if self.step.startswith(("unit:", "checkpoint:")) else 2

    def _gone_at_work(self, wire: KafkaProxy) -> FoldWorker:
        """Frozen or cut off in the middle of a commit, or in the reopening that follows a refused one."""
        (victim,) = self.group.start("victim", BROKERS=wire.address, WRITE_DEADLINE="2", **self.env)
        until(lambda: victim.ready, DEADLINE_S, "ready")
        if self.step == REOPENING:
            victim.arm("open:asked:stop")
            rule = wire.add(Rule(Api.END_TXN, Deed.REFUSED, error=INVALID_TXN_STATE))
        else:
            rule = wire.add(Rule(Api.END_TXN, Deed.HELD, times=self.group.numbers))
        self.group.produce(0, FED)
        until(lambda: rule.acted, DEADLINE_S, f"{self.step}: a commit is on its way")
        if self.step == REOPENING:
            until(lambda: victim.stopped, DEADLINE_S, f"frozen at {self.step}")
        elif self.step == COMMIT:
            victim.signal(signal.SIGSTOP)
        else:
            wire.silence()
        return victim

    def _heir(self, victim: FoldWorker) -> FoldWorker:
        """It has everything: the group has thrown the frozen one out."""
        if "heir" not in self.group.workers:
            self.group.start("heir", **self.env)
        heir = self.group.workers["heir"]
        until(lambda: heir.ready and len(heir.numbers) == self.group.numbers, DEADLINE_S, f"{self.step}: the heir")
        assert victim.stopped == (self.step != CUT_OFF)
        return heir

    def _shared(self, *workers: FoldWorker) -> bool:
        """Both live, are ready, and have half of the numbers each: the woken one has joined again."""
        assert all(worker.process.poll() is None for worker in workers), self.step
        half = self.group.numbers // 2
        return all(worker.ready and len(worker.numbers) == half for worker in workers)


@pytest.fixture
def run_all(
    kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path
) -> Iterator[Callable[[list[str]], dict[str, Seen | Exception]]]:
    """Runs handovers side by side on one broker; what was seen of each, an exception where it failed."""

    def one(step: str, **env: str) -> Seen | Exception:
        app = unique("owners")
        (tmp_path / app).mkdir()
        try:
            return Handover(kafka, FoldGroup(kafka.bootstrap, app, tmp_path / app, numbers=4), step, **env).run()
        except Exception as error:  # noqa: BLE001  # the others go on, and the test shows all that failed
            return error

    def run(steps: list[str], **env: str) -> dict[str, Seen | Exception]:
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            return dict(zip(steps, pool.map(lambda step: one(step, **env), steps), strict=True))

    return run


STEPS = [*faults.POINTS, *WIRED]


def assert_only_the_asked_one_is_fenced(results: dict[str, Seen | Exception]) -> None:
    assert {step: repr(seen) for step, seen in results.items() if isinstance(seen, Exception)} == {}
    fenced = {step: seen.fenced for step, seen in results.items() if isinstance(seen, Seen) and seen.fenced}
    assert set(fenced) <= {ASKED}


def test_a_woken_zombie_writes_nothing_and_works_on_as_one_of_two(run_all: Callable) -> None:
    choice = random.Random(seed_of_run()).choice
    checkpoint = [step for step in STEPS if step.startswith("checkpoint:")]
    others = [step for step in STEPS if step not in (*checkpoint, ASKED, *WIRED)]

    results = run_all([choice(checkpoint), choice(others), ASKED, *WIRED])

    assert_only_the_asked_one_is_fenced(results)


@pytest.mark.prove
def test_a_woken_zombie_writes_nothing_whatever_step_it_was_frozen_at(run_all: Callable) -> None:
    results = run_all(STEPS)

    report(
        "A worker frozen at a step, and woken beside its heir",
        {step: repr(seen) for step, seen in results.items()},
    )
    assert_only_the_asked_one_is_fenced(results)


@pytest.mark.prove
@pytest.mark.parametrize(
    ("broken", "step"),
    [
        ("unfenced", "checkpoint:begun"),
        ("unfenced", "checkpoint:sending"),
        ("plain_reopening", REOPENING),
        ("blind_retry", CUT_OFF),
    ],
)
def test_the_proof_fails_for_an_engine_that_does_not_keep_owners_apart(
    run_all: Callable, broken: str, step: str
) -> None:
    results = run_all([step], BROKEN=broken)

    with pytest.raises(AssertionError):
        assert_only_the_asked_one_is_fenced(results)
    report(f"The proof of two owners with the engine broken: {broken}", {step: str(results[step])})


class Stranger:
    """Opens the producers of a group's numbers, as a zombie does that was frozen between answer and InitProducerId."""

    def __init__(self, group: FoldGroup) -> None:
        self.group = group

    def fence(self, number: int) -> None:
        options = {"bootstrap.servers": self.group.brokers, "log_level": 0}
        Producer(options | {"transactional.id": f"{self.group.app}-{number}"}).init_transactions(30)


@pytest.fixture
def group(kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> Iterator[FoldGroup]:
    group = FoldGroup(kafka.bootstrap, unique("wrongly"), tmp_path, numbers=2)
    yield group
    group.close()


def test_an_owner_that_is_fenced_wrongly_opens_again_without_a_rebalance(group: FoldGroup) -> None:
    (owner,) = group.start("w1", SESSION="30")
    group.produce(0, 200)
    until(lambda: owner.ready and group.counted() == folded(200, 2), DEADLINE_S, "at work")
    generation = owner.status["generation"]

    for number in range(group.numbers):
        Stranger(group).fence(number)
    group.produce(200, 200)

    until(lambda: group.counted() == folded(400, 2), DEADLINE_S, "it counts on")
    until(lambda: owner.ready, DEADLINE_S, "ready")
    assert owner.failed_checkpoints >= group.numbers
    assert owner.status["generation"] == generation


@pytest.mark.prove
def test_an_owner_that_is_fenced_wrongly_is_open_again_within_a_second(group: FoldGroup) -> None:
    (owner,) = group.start("w1", SESSION="30")
    until(lambda: owner.ready, DEADLINE_S, "ready")
    closed_s: list[float] = []
    stop = threading.Event()

    def feed() -> None:
        for first in count(step=20):
            if stop.wait(0.1):
                break
            group.produce(first, 20)

    with ThreadPoolExecutor(1) as pool:
        feeding = pool.submit(feed)
        for turn in range(FENCINGS):
            number = turn % group.numbers
            until(lambda: owner.ready, DEADLINE_S, "ready")
            Stranger(group).fence(number)
            until(lambda number=number: number not in owner.numbers, DEADLINE_S, "it finds out")
            began = time.monotonic()
            until(lambda number=number: number in owner.numbers, DEADLINE_S, "open again")
            closed_s.append(time.monotonic() - began)
        stop.set()
        feeding.result(DEADLINE_S)

    report(
        "An owner fenced wrongly",
        {
            "fenced by a stranger's InitProducerId": FENCINGS,
            "not open for, median": f"{median(closed_s):.2f} s",
            "not open for, at most": f"{max(closed_s):.2f} s",
        },
    )
    assert median(closed_s) < 1.0
