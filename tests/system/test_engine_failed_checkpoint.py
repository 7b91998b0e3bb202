"""A broker that is late, breaks off or refuses in the middle of a checkpoint: nothing is retried, the log is read.

The worker reaches the broker through a proxy, which meets the one request of the one number that a case names.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path

import pytest

from app.devstack.kafka import KafkaServer
from tests.support.fold import FoldGroup, FoldWorker, folded, until
from tests.support.logs import came_back, written_again
from tests.support.nemesis import seed_of_run
from tests.support.proxy import Api, Deed, KafkaProxy, Rule
from tests.support.report import report

pytestmark = pytest.mark.kafka

WRITE_DEADLINE_S = 2.0
"""Of a checkpoint, in these workers; 20 s elsewhere."""
DEADLINE_S = 90.0
NUMBERS = 4
HARD_CLOSES = 50
CHUNK = 100
ALWAYS = 1_000_000
BETWEEN_TWO = 3
"""A client may be between two connections, or two tasks, when they are counted."""
READER_TASKS, READER_SOCKETS = 4, 1
INVALID_TXN_STATE = 48
INVALID_PRODUCER_EPOCH = 47


@dataclass(frozen=True)
class Trouble:
    """What happens to requests of one number, and whether its checkpoint fails of it.

    Attributes:
        then: What happens to the whole wire once the request is on its way.
        fails: False where the client repeats the request under its id and epoch, and the checkpoint goes through.
    """

    name: str
    rules: tuple[tuple[Api, Deed, dict[str, float]], ...]
    fails: bool = True
    then: Callable[[KafkaProxy], None] | None = None

    def rules_for(self, client: str) -> list[Rule]:
        return [Rule(api, deed, client, **options) for api, deed, options in self.rules]


LATE = {"seconds": 2 * WRITE_DEADLINE_S}
TROUBLES = (
    Trouble("the answer to the commit is late", ((Api.END_TXN, Deed.LATE, LATE),)),
    Trouble("the answer to the rows is late", ((Api.PRODUCE, Deed.LATE, LATE),)),
    Trouble("broken once before the commit", ((Api.END_TXN, Deed.CUT_BEFORE, {}),), fails=False),
    Trouble("broken once after the commit", ((Api.END_TXN, Deed.CUT_AFTER, {}),), fails=False),
    Trouble("broken once after the rows", ((Api.PRODUCE, Deed.CUT_AFTER, {}),), fails=False),
    Trouble("broken before each commit", ((Api.END_TXN, Deed.CUT_BEFORE, {"times": ALWAYS}),)),
    Trouble("broken after each commit", ((Api.END_TXN, Deed.CUT_AFTER, {"times": ALWAYS}),)),
    Trouble("broken before the transaction", ((Api.ADD_PARTITIONS_TO_TXN, Deed.CUT_BEFORE, {"times": ALWAYS}),)),
    Trouble("the commit is refused", ((Api.END_TXN, Deed.REFUSED, {"error": INVALID_TXN_STATE}),)),
    Trouble("the commit is refused as another's", ((Api.END_TXN, Deed.REFUSED, {"error": INVALID_PRODUCER_EPOCH}),)),
    Trouble("no connection is taken any more", ((Api.END_TXN, Deed.HELD, {}),), then=KafkaProxy.refuse),
    Trouble("the broker falls silent", ((Api.END_TXN, Deed.HELD, {}),), then=KafkaProxy.silence),
    Trouble(
        "the answer to the reopening is late too",
        ((Api.END_TXN, Deed.REFUSED, {"error": INVALID_TXN_STATE}), (Api.INIT_PRODUCER_ID, Deed.LATE, {"seconds": 7})),
    ),
)
OF_ONE_NUMBER = [trouble for trouble in TROUBLES if trouble.then is None]
ROUNDS = [
    *(OF_ONE_NUMBER[at : at + NUMBERS] for at in range(0, len(OF_ONE_NUMBER), NUMBERS)),
    *([trouble] for trouble in TROUBLES if trouble.then is not None),
]


def dealt_by(seed: int) -> Callable[[Sequence[Trouble]], list[int]]:
    """A number for each trouble."""
    sample = random.Random(seed).sample
    return lambda troubles: sample(range(NUMBERS), len(troubles))


@dataclass
class Patient:
    """A worker behind a wire, fed while it is in trouble."""

    group: FoldGroup
    wire: KafkaProxy
    worker: FoldWorker
    within_s: float = DEADLINE_S
    fed: int = 0
    tasks: int = 0
    sockets: int = 0
    failed: int = 0
    suffered: Counter[str] = field(default_factory=Counter)

    def warm_up(self) -> None:
        """All that a worker opens lazily is open then: each of its outputs has a producer since its first record."""
        until(lambda: self.worker.ready, DEADLINE_S, "ready")
        self.feed()
        self.settle("at the start")
        self.relayed()
        self.tasks, self.sockets = self.worker.tasks, self.worker.sockets

    def feed(self) -> None:
        self.group.produce(self.fed, CHUNK)
        self.fed += CHUNK

    def settle(self, what: str) -> None:
        """Everything that was fed is counted, once."""
        until(lambda: self.group.counted().total() >= 2 * self.fed, self.within_s, f"{what}: counted")
        until(lambda: self.worker.ready, self.within_s, f"{what}: ready")
        assert self.group.counted() == folded(self.fed, 2), what

    def suffer(self, troubles: Sequence[Trouble], numbers: Sequence[int]) -> None:
        """Each on a number of its own, at one time."""
        before, what = self.worker.failed_checkpoints, "; ".join(trouble.name for trouble in troubles)
        rules = [
            self.wire.add(rule)
            for trouble, number in zip(troubles, numbers, strict=True)
            for rule in trouble.rules_for(f"{self.group.app}-{number}")
        ]
        self.feed()
        until(lambda: all(rule.acted for rule in rules), DEADLINE_S, f"{what}: it happens")
        for trouble in troubles:
            if trouble.then is not None:
                trouble.then(self.wire)
        wanted = before + sum(trouble.fails for trouble in troubles)
        until(lambda: self.worker.failed_checkpoints >= wanted, DEADLINE_S, f"{what}: the checkpoint fails")
        self.wire.clear()
        self.wire.heal()
        self.settle(what)
        self.failed += self.worker.failed_checkpoints - before
        self.suffered.update(trouble.name for trouble in troubles)

    def relayed(self) -> None:
        """Everything that was fed is sent on, at least once."""
        until(lambda: len(self.group.relayed()) >= self.fed, DEADLINE_S, "relayed")
        assert set(self.group.relayed()) == {b"v-%d" % i for i in range(self.fed)}

    def nothing_is_left(self) -> bool:
        """As many tasks and sockets as before the first trouble; a producer left behind is five and two more.

        But for the reader of lag, which is opened when a number is closed while its lag is asked for, and then stays.
        """
        tasks, sockets = self.tasks + READER_TASKS, self.sockets + READER_SOCKETS
        return self.worker.tasks <= tasks + BETWEEN_TWO and self.worker.sockets <= sockets + BETWEEN_TWO

    def check(self, broker: Path) -> None:
        # The last records of each partition: what is read twice before them shows with them.
        self.feed()
        self.settle("in the end")
        assert self.worker.process.poll() is None
        assert came_back(broker, self.group) == {}
        assert written_again(self.group) == []
        self.relayed()
        told = f"{self.tasks} tasks and {self.sockets} sockets at first; hard closes since: {self.failed}"
        try:
            until(self.nothing_is_left, self.within_s, told)
        except AssertionError as error:
            raise AssertionError(f"{error}; now {self.worker.tasks} and {self.worker.sockets}") from None


@pytest.fixture
def admit(kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> Iterator[Callable[..., Patient]]:
    """Starts a worker behind a wire; its environment may be told."""
    with KafkaProxy(kafka.bootstrap) as wire:
        group = FoldGroup(kafka.bootstrap, unique("trouble"), tmp_path, numbers=NUMBERS)
        try:
            env = {"BROKERS": wire.address, "WRITE_DEADLINE": f"{WRITE_DEADLINE_S:.0f}", "SESSION": "10"}
            yield lambda **more: Patient(group, wire, *group.start("w1", **env, **more))
        finally:
            group.close()


def test_a_checkpoint_without_an_answer_is_never_repeated_and_leaves_nothing_behind(
    kafka: KafkaServer, admit: Callable[..., Patient]
) -> None:
    numbers, patient = dealt_by(seed_of_run()), admit()
    patient.warm_up()

    for troubles in ROUNDS:
        patient.suffer(troubles, numbers(troubles))

    assert set(patient.suffered) == {trouble.name for trouble in TROUBLES}
    patient.check(kafka.data_dir)


@pytest.mark.prove
def test_fifty_hard_closes_leave_neither_a_task_nor_a_socket(kafka: KafkaServer, admit: Callable[..., Patient]) -> None:
    numbers, patient = dealt_by(seed_of_run()), admit()
    patient.warm_up()

    for troubles in cycle(ROUNDS):
        patient.suffer(troubles, numbers(troubles))
        if patient.failed >= HARD_CLOSES:
            break

    patient.check(kafka.data_dir)
    report(
        "Checkpoints that failed",
        {what: f"{times} times" for what, times in patient.suffered.items()}
        | {
            "hard closes": patient.failed,
            "records folded, each counted once": 2 * patient.fed,
            "tasks before and after": f"{patient.tasks}, {patient.worker.tasks}",
            "sockets before and after": f"{patient.sockets}, {patient.worker.sockets}",
        },
    )


@pytest.mark.prove
@pytest.mark.parametrize(
    ("broken", "trouble", "found"),
    [
        ("blind_retry", "the answer to the commit is late", "-changelog/"),
        ("forgotten_producers", "the commit is refused", "no more than"),
    ],
)
def test_the_proof_fails_for_an_engine_that_repeats_a_transaction_or_leaves_producers_behind(
    kafka: KafkaServer, admit: Callable[..., Patient], broken: str, trouble: str, found: str
) -> None:
    # A checkpoint that is repeated until it is through is none that fails.
    (named,) = (replace(one, fails=broken != "blind_retry") for one in TROUBLES if one.name == trouble)
    patient = admit(BROKEN=broken)
    patient.warm_up()
    patient.within_s = 20.0

    def suffer_and_check() -> None:
        for number in range(3):
            patient.suffer([named], [number])
        patient.check(kafka.data_dir)

    with pytest.raises(AssertionError, match=found) as failure:
        suffer_and_check()

    report(f"The proof of failed checkpoints with the engine broken: {broken}", {trouble: str(failure.value)[:300]})
