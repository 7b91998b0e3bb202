"""A worker that dies, fails or freezes between any two steps: counts stay exact and outputs come out whole."""

import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.devstack.kafka import KafkaServer
from app.engine import faults
from tests.support.fold import FoldGroup, FoldWorker, folded, until
from tests.support.logs import written_again
from tests.support.nemesis import seed_of_run
from tests.support.report import report

pytestmark = pytest.mark.kafka

SIDE_BY_SIDE = 4
FED = 400
"""Before the fault, again while it is waited for, and when all has healed."""
RECORDS = 3 * FED
KEYS = 1_000
"""Most rows are written once, so that one that was lost is not made good by a later record of its key."""
SESSION_S = 6.0
DEADLINE_S = 90.0
DISKS = ("kept", "wiped", "moved")
"""What the worker finds when it comes back; moved: it does not, another one takes its numbers."""


@dataclass(frozen=True)
class Case:
    """One fault and what becomes of the disk."""

    point: str
    action: str
    disk: str
    nth: int | None = None

    @property
    def at_start(self) -> bool:
        return self.point.startswith(("open:", "restore:"))

    @property
    def fault(self) -> str:
        # Some have passed by then, of this number or another, so that there is something to lose.
        nth = 3 if self.point.startswith(("unit:", "checkpoint:")) else 2
        # All numbers may be placed in one go.
        nth = 1 if self.point == "restore:placed" else nth
        return f"{self.point}:{self.nth or nth}:{self.action}"

    def __str__(self) -> str:
        return f"{self.point} {self.action} {self.disk}"


class Run:
    """One case, in a group of its own.

    Args:
        within_s: How long it may take until everything is counted and sent.
        env: Of its workers.
    """

    def __init__(self, case: Case, group: FoldGroup, within_s: float = DEADLINE_S, **env: str) -> None:
        self.case, self.group, self.within_s = case, group, within_s
        self.env = {"SESSION": f"{SESSION_S:.0f}"} | env

    def run(self) -> dict[str, object]:
        began = time.monotonic()
        try:
            victim = self._reach_the_point()
            self._feed(FED)
            self._let_it_act(victim)
            self._recover(victim)
            repeats = self._settle(victim)
        finally:
            self.group.close()
        return {"repeated outputs": repeats, "seconds": round(time.monotonic() - began, 1)}

    def _reach_the_point(self) -> FoldWorker:
        """A worker that will pass the armed point once it works."""
        fault = {"FAULT": self.case.fault}
        if not self.case.at_start:
            self._feed(0)
            (victim,) = self.group.start("victim", **self.env, **fault)
            if self.case.point.startswith("revoke:"):
                until(lambda: victim.ready, DEADLINE_S, "ready")
                self._another()
            return victim
        self._feed(0)
        (victim,) = self.group.start("victim", **self.env)
        until(lambda: self.group.counted() == folded(FED, 2, KEYS), DEADLINE_S, "rows to restore")
        victim.kill()
        victim.wipe()
        victim.env |= fault
        victim.start()
        return victim

    def _another(self) -> None:
        if "heir" not in self.group.workers:
            self.group.start("heir", **self.env)

    def _feed(self, first: int) -> None:
        self.group.produce(first, FED, keys=KEYS)

    def _let_it_act(self, victim: FoldWorker) -> None:
        acted: dict[str, Callable[[], bool]] = {
            "kill": lambda: victim.process.poll() is not None,
            "stop": lambda: victim.stopped,
            "raise": lambda: "FaultInjected" in victim.log,
        }
        until(acted[self.case.action], DEADLINE_S, f"{self.case}: it acts")
        if self.case.action == "kill":
            assert victim.process.returncode == -signal.SIGKILL

    def _recover(self, victim: FoldWorker) -> None:
        del victim.env["FAULT"]
        if self.case.action == "stop":
            self._another()
            heir = self.group.workers["heir"]
            # The stopped one has been thrown out, and its heir owns everything.
            until(lambda: heir.ready and len(heir.numbers) == self.group.numbers, DEADLINE_S, "the heir")
        if self.case.disk == "moved":
            victim.kill()
            self._another()
        elif self.case.disk == "wiped":
            victim.kill()
            victim.wipe()
            victim.start()
        elif self.case.action == "stop":
            victim.signal(signal.SIGCONT)
        elif victim.process.poll() is not None:
            victim.start()

    def _settle(self, victim: FoldWorker) -> int:
        """Everything is counted once and sent at least once; how many were sent again."""
        group, wanted = self.group, folded(RECORDS, 2, KEYS)
        until(lambda: self._all_ready(victim), DEADLINE_S, f"{self.case}: ready")
        # The last records of each partition: what is read twice before them shows with them.
        self._feed(2 * FED)
        # Asked again, for what it says of itself is a moment older than its end.
        until(
            lambda: self._all_ready(victim) and group.counted().total() >= wanted.total(),
            self.within_s,
            f"{self.case}: counted",
        )
        assert group.counted() == wanted, self.case
        assert written_again(group) == [], self.case
        until(lambda: len(group.relayed()) >= RECORDS, self.within_s, f"{self.case}: relayed")
        relayed = group.relayed()
        assert set(relayed) == {b"v-%d" % i for i in range(RECORDS)}, self.case
        return relayed.total() - RECORDS

    def _all_ready(self, victim: FoldWorker) -> bool:
        """A worker that a `raise` ended at its own request is started again, as a supervisor would."""
        if victim.process.poll() is not None and self.case.disk != "moved":
            assert victim.process.returncode == 70, self.case
            victim.start()
        alive = [worker for worker in self.group.workers.values() if worker.process.poll() is None]
        return all(worker.ready for worker in alive) and sum(len(w.numbers) for w in alive) == self.group.numbers


@pytest.fixture
def run_all(kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> Callable[..., dict[Case, object]]:
    """Runs cases side by side on one broker; what came of each, an exception where it failed."""

    def one(case: Case, within_s: float, env: dict[str, str]) -> object:
        app = unique("fault")
        (tmp_path / app).mkdir()
        try:
            return Run(case, FoldGroup(kafka.bootstrap, app, tmp_path / app, numbers=4), within_s, **env).run()
        except Exception as error:  # noqa: BLE001  # the others go on, and the test shows all that failed
            return error

    def run(cases: list[Case], within_s: float = DEADLINE_S, **env: str) -> dict[Case, object]:
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            return dict(zip(cases, pool.map(lambda case: one(case, within_s, env), cases), strict=True))

    return run


def failed(results: dict[Case, object]) -> dict[str, str]:
    return {str(case): repr(result) for case, result in results.items() if isinstance(result, Exception)}


def test_counts_are_exact_after_a_kill_at_each_point(run_all: Callable) -> None:
    choice = random.Random(seed_of_run()).choice

    results = run_all([Case(point, "kill", choice(DISKS)) for point in faults.POINTS])

    assert failed(results) == {}


@pytest.mark.prove
def test_counts_are_exact_after_a_kill_an_exception_or_a_freeze_at_each_point_on_each_disk(run_all: Callable) -> None:
    cases = [Case(p, a, d) for p in faults.POINTS for a in ("kill", "raise", "stop") for d in DISKS]

    results = run_all(cases)

    report("A fault at each point", {str(case): result for case, result in results.items()})
    assert failed(results) == {}


@pytest.mark.prove
@pytest.mark.parametrize(
    ("broken", "case"),
    [
        ("unfenced", Case("checkpoint:begun", "stop", "kept")),
        # Each of the four numbers has a checkpoint at its opening, which need not have records.
        ("flush_after_done", Case("checkpoint:offsets", "kill", "kept", nth=6)),
        ("rows_before_changelog", Case("checkpoint:begun", "kill", "kept")),
        ("late_after_the_log", Case("checkpoint:offsets", "kill", "kept", nth=6)),
    ],
)
def test_the_proof_fails_for_an_engine_that_does_its_steps_in_another_order(
    run_all: Callable, broken: str, case: Case
) -> None:
    # All that comes has come by then: a sound engine needs about 5 s.
    results = run_all([case], within_s=20.0, BROKEN=broken)

    report(f"The proof of the fault points with the engine broken: {broken}", failed(results))
    assert isinstance(results[case], AssertionError)
