"""Ways in which Faust and aiokafka lose or freeze, on a real Kafka; each proof fails without our way round it."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from app.devstack.kafka import KafkaServer
from tests.support.feeding import Feed
from tests.support.fold import FoldGroup, folded, until

pytestmark = pytest.mark.kafka

DEADLINE_S = 90.0
SHORT_S = 30.0
"""Of a proof that must fail: longer than the same takes when it holds."""
RECORDS = 9_000
PER_S = 100.0


@pytest.fixture
def new_group(kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> Iterator[Callable[..., FoldGroup]]:
    groups: list[FoldGroup] = []

    def make(numbers: int = 4) -> FoldGroup:
        app = unique("trap")
        (tmp_path / app).mkdir()
        groups.append(FoldGroup(kafka.bootstrap, app, tmp_path / app, numbers))
        return groups[-1]

    yield make
    for group in groups:
        group.close()


@pytest.fixture
def group(new_group: Callable[..., FoldGroup]) -> FoldGroup:
    return new_group()


# -- a fetch under way when the group rebalances


def rebalance_in_fetches(group: FoldGroup, broken: str, deadline_s: float = DEADLINE_S) -> None:
    """Workers come and go while there is always something to fetch; every record is folded once."""
    group.produce(0, RECORDS // 3)
    group.start("w1", "w2", BROKEN=broken)
    for step in (1, 2):
        until(lambda: all(worker.ready for worker in group.workers.values()), DEADLINE_S, "all ready")
        group.produce(RECORDS // 3 * step, RECORDS // 3)
        first, second = group.workers["w1"], group.workers["w2"]
        # One goes with what it fetched, and the other is assigned something else in the middle of its own.
        first.kill()
        first.start()
        if step == 2:
            assert second.terminate() == 0
            second.start()
    wanted = folded(RECORDS, 2)
    until(lambda: group.counted().total() >= wanted.total(), deadline_s, "everything counted")
    assert group.counted() == wanted
    until(lambda: len(set(group.relayed())) == RECORDS, deadline_s, "everything relayed")


def test_a_rebalance_in_the_middle_of_fetches_skips_nothing_with_or_without_committed_offsets(
    new_group: Callable[..., FoldGroup],
) -> None:
    with ThreadPoolExecutor() as side_by_side:
        runs = [side_by_side.submit(rebalance_in_fetches, new_group(), broken) for broken in ("", "no_group_offsets")]
        for run in runs:
            run.result()


@pytest.mark.prove
@pytest.mark.parametrize("broken", ["no_seek", "no_seek no_group_offsets"])
def test_the_proof_fails_for_partitions_that_nobody_puts_in_place(
    new_group: Callable[..., FoldGroup], broken: str
) -> None:
    def three_times() -> None:
        # A fetch must be under way in the moment of a rebalance, which it is nearly always, but not always.
        for _ in range(3):
            rebalance_in_fetches(new_group(), broken, SHORT_S)

    with pytest.raises(AssertionError):
        three_times()


# -- a join that is refused


@contextmanager
def another_kind_of_member(group: FoldGroup) -> Iterator[None]:
    """Somebody of the same group who knows none of our assignors: the broker refuses whoever comes second."""
    member = Consumer(
        {
            "bootstrap.servers": group.brokers,
            "group.id": group.app,
            "session.timeout.ms": 6000,
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    member.subscribe([f"{group.app}.in"])

    def assigned() -> list[TopicPartition]:
        member.poll(0.1)
        return member.assignment()

    # From then on its heartbeats go out by themselves, and it never polls again.
    until(assigned, what="a member of another kind")
    try:
        yield
    finally:
        member.close()


def join_after_a_refusal(group: FoldGroup, broken: str, deadline_s: float = DEADLINE_S) -> None:
    with another_kind_of_member(group):
        (worker,) = group.start("w1", BROKEN=broken)
        until(
            lambda: any("InconsistentGroupProtocol" in reason for reason in worker.reasons),
            deadline_s,
            "the refusal is named",
        )
        assert not worker.ready
    until(lambda: worker.ready, deadline_s, "it joins")
    group.produce(0, 100)
    until(lambda: group.counted() == folded(100, 2), DEADLINE_S, "counted")
    assert worker.process.poll() is None


def test_a_refused_join_is_named_and_the_worker_joins_once_the_group_takes_it(group: FoldGroup) -> None:
    join_after_a_refusal(group, "")


@pytest.mark.prove
def test_the_proof_fails_when_nobody_asks_the_coordinator_for_errors(group: FoldGroup) -> None:
    with pytest.raises(AssertionError):
        join_after_a_refusal(group, "coordinator_not_asked", SHORT_S)


# -- a restore that takes long


def restore_slowly(group: FoldGroup, broken: str, deadline_s: float = DEADLINE_S) -> None:
    """The first assignment stands until its numbers are open, however long that takes."""
    (worker,) = group.start("w1", BROKEN=f"slow_restore {broken}")
    first = until(lambda: max(0, worker.status.get("generation", -1)), DEADLINE_S, "assigned")
    until(lambda: worker.ready, deadline_s, "open")
    assert worker.status["generation"] == first
    group.produce(0, 100)
    until(lambda: group.counted() == folded(100, 2), DEADLINE_S, "counted")


def test_a_restore_longer_than_a_session_costs_no_membership(group: FoldGroup) -> None:
    restore_slowly(group, "")


@pytest.mark.prove
def test_the_proof_fails_when_the_assignment_waits_for_the_restore(group: FoldGroup) -> None:
    with pytest.raises(AssertionError):
        restore_slowly(group, "restore_in_callback", SHORT_S)


# -- a number whose producer somebody else takes, again and again


def test_a_number_that_is_fenced_says_so_and_the_others_go_on_and_it_comes_back(group: FoldGroup) -> None:
    (worker,) = group.start("w1")
    until(lambda: worker.ready, DEADLINE_S, "ready")
    over = threading.Event()

    def fence() -> None:
        while not over.is_set():
            try:
                taker = Producer(
                    {"bootstrap.servers": group.brokers, "transactional.id": f"{group.app}-0", "log_level": 0}
                )
                taker.init_transactions(10)
            except KafkaException:
                continue

    fencing = threading.Thread(target=fence)
    # A number finds out when it has something to log.
    with Feed(group.brokers, [f"{group.app}.{topic}" for topic in ("in", "small", "relay")], PER_S) as feed:
        fencing.start()
        try:
            until(lambda: any(reason.startswith("number 0 is") for reason in worker.reasons), DEADLINE_S, "named")
            others = {m.value() for m in group.read(f"{group.app}.relay", 4) if m.partition() != 0}
            until(lambda: set(group.relayed()) >= others, DEADLINE_S, "the others have relayed all")
        finally:
            over.set()
            fencing.join()
        total = feed.stop()

    until(lambda: group.counted().total() >= total * 2, DEADLINE_S, "counted")
    until(lambda: worker.ready, DEADLINE_S, "ready again")
    assert group.counted() == folded(total, 2)
    assert worker.process.poll() is None
