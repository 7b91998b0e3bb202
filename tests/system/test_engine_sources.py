"""Source topics that misbehave: what cannot be read is named, what is lost is counted, and nobody else pays for it."""

import re
import signal
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import NewPartitions, NewTopic, OffsetSpec

from app.devstack.kafka import KafkaServer
from tests.support.fold import FoldGroup, FoldWorker, until

pytestmark = pytest.mark.kafka

NUMBERS = 4
PARTITIONS = 12


@pytest.fixture
def group(kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> Iterator[FoldGroup]:
    group = FoldGroup(kafka.bootstrap, unique("source"), tmp_path, numbers=NUMBERS)
    yield group
    group.close()


def producer(group: FoldGroup, **settings: object) -> Producer:
    return Producer({"bootstrap.servers": group.brokers, "linger.ms": 5, "log_level": 0, **settings})


def spread(to: Producer, topic: str, mark: str, each: int, partitions: range) -> None:
    """`each` records with the key `{mark}-{partition}` to each partition, in one batch each."""
    for partition in partitions:
        for _ in range(each):
            to.produce(topic, b"v", f"{mark}-{partition}", partition=partition)
    assert to.flush(30) == 0


def spread_counts(mark: str, each: int, partitions: set[int]) -> Counter[bytes]:
    return Counter({f"{mark}-{partition}".encode(): each for partition in partitions})


def corrupt_a_batch(data_dir: Path, partition: str, at: float) -> int:
    """Flip a byte of the records of the batch at this part of the log; the offset of its first record."""
    (file,) = data_dir.rglob(f"{partition}/*.log")
    data = bytearray(file.read_bytes())
    place = following = 0
    while following < len(data) * at:
        place = following
        following += 12 + struct.unpack_from(">i", data, place + 8)[0]
    data[place + 80] ^= 0xFF
    file.write_bytes(data)
    return int(struct.unpack_from(">q", data, place)[0])


def test_a_corrupt_batch_costs_the_other_partitions_nothing_and_readiness_names_it(
    own_kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path
) -> None:
    group = FoldGroup(own_kafka.bootstrap, unique("corrupt"), tmp_path, numbers=NUMBERS)
    try:
        topic, to = f"{group.app}.in", producer(group)
        for _ in range(20):
            spread(to, topic, "old", 25, range(PARTITIONS))
        own_kafka.stop()
        offset = corrupt_a_batch(own_kafka.data_dir, f"{topic}-5", 0.7)
        own_kafka.start()
        others = set(range(PARTITIONS)) - {5}
        wanted = spread_counts("old", 500, others) + Counter({b"old-5": offset})

        (worker,) = group.start("w1")
        until(lambda: group.counted() == wanted, what="everything that can be read")
        until(lambda: any(f"{topic}/5 cannot be read: offset {offset}" in r for r in worker.reasons), what="named")
        for _ in range(5):
            spread(to, topic, "new", 5, range(PARTITIONS))
        wanted += spread_counts("new", 25, others)
        until(lambda: group.counted() == wanted, what="what came later, too")

        assert worker.terminate() == 0
        worker.start()
        spread(to, topic, "last", 1, range(PARTITIONS))
        wanted += spread_counts("last", 1, others)
        until(lambda: group.counted() == wanted, what="the same after a restart")
        until(lambda: any(f"{topic}/5 cannot be read" in r for r in worker.reasons), what="named again")
    finally:
        group.close()


def test_an_open_transaction_refuses_nothing_and_an_aborted_one_is_not_counted(
    group: FoldGroup, unique: Callable[[str], str]
) -> None:
    (worker,) = group.start("w1")
    until(lambda: worker.ready, what="ready")
    topic, plain = f"{group.app}.in", producer(group)
    vault = producer(group, **{"transactional.id": unique("vault"), "transaction.timeout.ms": 300_000})
    vault.init_transactions()
    vault.begin_transaction()
    spread(vault, topic, "aborted", 10, range(PARTITIONS))
    spread(plain, f"{group.app}.small", "plain", 10, range(3))
    wanted = spread_counts("plain", 10, {0, 1, 2})
    until(lambda: group.counted() == wanted, what="other topics go on")

    assert worker.terminate() == 0
    worker.start()
    until(lambda: worker.ready, what="ready beside the open transaction")

    vault.abort_transaction()
    spread(plain, topic, "after", 1, range(PARTITIONS))
    wanted += spread_counts("after", 1, set(range(PARTITIONS)))
    until(lambda: group.counted().total() >= wanted.total(), what="what came after it")
    assert group.counted() == wanted
    assert worker.ready
    assert worker.process.poll() is None


def test_what_retention_takes_from_a_running_worker_is_counted_and_logged(group: FoldGroup) -> None:
    (worker,) = group.start("w1", SESSION="30")
    until(lambda: worker.ready, what="ready")
    topic, to = f"{group.app}.in", producer(group)
    spread(to, topic, "read", 100, range(1))
    until(lambda: group.counted().total() == 100, what="read")

    worker.signal(signal.SIGSTOP)
    until(lambda: worker.stopped, what="stopped")
    for _ in range(6000):
        to.produce(topic, b"x" * 1000, b"unread", partition=0)
    assert to.flush(30) == 0
    place = TopicPartition(topic, 0)
    end = group.admin.list_offsets({place: OffsetSpec.latest()})[place].result(20).offset
    kept = TopicPartition(topic, 0, end - 100)
    group.admin.delete_records([kept])[kept].result(20)
    worker.signal(signal.SIGCONT)

    gap = until(lambda: re.search(rf"{topic}/0: retention took the records (\d+) to (\d+)", worker.log), what="a gap")
    lost = int(gap[2]) - int(gap[1]) + 1
    assert int(gap[2]) == end - 101
    assert lost > 0
    until(lambda: group.counted().total() == end - lost, what="every record is counted or known to be lost")
    until(lambda: worker.ready, what="ready again")
    assert worker.process.poll() is None


def test_a_topic_made_again_while_stopped_is_refused_by_name_and_the_others_work(group: FoldGroup) -> None:
    (worker,) = group.start("w1")
    until(lambda: worker.ready, what="ready")
    small, to = f"{group.app}.small", producer(group)
    spread(to, small, "former", 50, range(3))
    until(lambda: group.counted().total() == 150, what="the former topic")
    assert worker.terminate() == 0
    group.admin.delete_topics([small])[small].result(20)
    until(lambda: made(group, NewTopic(small, 3, 1)), what="made again")
    to = producer(group)
    spread(to, small, "latter", 50, range(3))

    worker.start()
    until(lambda: len(worker.reasons) == 3 and not any("restoring" in r for r in worker.reasons), what="refused")

    for number, reason in enumerate(worker.reasons):
        assert reason.startswith(f"number {number} is refused: {small}/{number}: the topic was deleted and made again")
        assert f"vault-stream positions reset {small}/{number}" in reason
    spread(to, f"{group.app}.in", "other", 10, range(PARTITIONS))
    wanted = spread_counts("former", 50, {0, 1, 2}) + spread_counts("other", 10, {3, 7, 11})
    until(lambda: group.counted() == wanted, what="number 3 works")
    assert worker.process.poll() is None


def made(group: FoldGroup, topic: NewTopic) -> bool:
    """Whether it could be made; the broker deletes a topic a little later than it says."""
    try:
        group.admin.create_topics([topic])[topic.topic].result(20)
    except KafkaException:
        return False
    return True


def test_a_topic_that_grows_is_read_whole_by_old_workers_and_by_one_that_joins_later(group: FoldGroup) -> None:
    (first,) = group.start("w1")
    until(lambda: first.ready, what="ready")
    small = f"{group.app}.small"
    spread(producer(group), small, "before", 10, range(3))
    group.admin.create_partitions([NewPartitions(small, 6)])[small].result(20)

    (second,) = group.start("w2")
    until(lambda: read_whole([first, second], small, 6), what="read whole")

    spread(producer(group), small, "after", 10, range(6))
    wanted = spread_counts("before", 10, set(range(3))) + spread_counts("after", 10, set(range(6)))
    until(lambda: group.counted() == wanted, what="counted whole")
    assert first.process.poll() is None
    assert second.process.poll() is None


def read_whole(workers: list[FoldWorker], topic: str, partitions: int) -> bool:
    """Whether all are ready, and read every partition of a topic between them."""
    numbers = [places for worker in workers for places in worker.status.get("partitions", {}).values()]
    read = sorted(partition for places in numbers for name, partition in places if name == topic)
    return all(worker.ready and worker.numbers for worker in workers) and read == list(range(partitions))
