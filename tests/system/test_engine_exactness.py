"""Real processes on a real Kafka, killed and stopped: nothing lost, nothing folded twice."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.devstack.kafka import KafkaServer
from tests.support.fold import FoldGroup, folded, until
from tests.support.nemesis import Nemesis, seed_of_run

pytestmark = pytest.mark.kafka

NAMES = ("w1", "w2", "w3")
SESSION_S = 6.0


@pytest.fixture
def group(kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> Iterator[FoldGroup]:
    group = FoldGroup(kafka.bootstrap, unique("fold"), tmp_path, numbers=4)
    yield group
    group.close()


def feed(group: FoldGroup, total: int, pause_s: float) -> threading.Thread:
    def run() -> None:
        for first in range(0, total, 500):
            group.produce(first, 500)
            time.sleep(pause_s)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def settle(group: FoldGroup, total: int) -> None:
    wanted = folded(total, 2)
    until(lambda: group.counted().total() >= wanted.total(), 90, "everything counted")
    assert group.counted() == wanted
    until(lambda: len(group.relayed()) >= total, 30, "everything relayed")
    assert set(group.relayed()) == {b"v-%d" % i for i in range(total)}


def test_a_count_is_exact_through_kills_a_wiped_disk_a_zombie_and_a_restart(group: FoldGroup) -> None:
    total = 12_000
    workers = group.start(*NAMES)
    until(lambda: all(w.ready for w in workers), what="all ready")
    nemesis = Nemesis(group, seed_of_run(), session_s=SESSION_S)
    feeding = feed(group, total, 0.8)
    nemesis.kill()
    nemesis.kill(wipe=True)
    nemesis.zombie()
    nemesis.restart()
    feeding.join()

    settle(group, total)

    until(lambda: all(w.ready for w in workers), what="all ready again")
    assert all(w.process.poll() is None for w in workers)


def test_a_poisonous_record_goes_to_quarantine_and_its_neighbours_go_on(group: FoldGroup) -> None:
    group.start("w1")
    group.produce(0, 50, ("relay",))
    from confluent_kafka import Producer  # noqa: PLC0415  # only here

    producer = Producer({"bootstrap.servers": group.brokers, "log_level": 0})
    producer.produce(f"{group.app}.relay", b"poison", b"k-1")
    producer.flush()
    group.produce(50, 50, ("relay",))

    until(lambda: len(group.relayed()) >= 100, what="the neighbours")
    (poison,) = until(lambda: group.read(f"{group.app}.quarantine", 1), what="the poison")

    assert poison.value() == b"poison"
    assert dict(poison.headers())["vs-reason"] == b"handler_error"
    assert set(group.relayed()) == {b"v-%d" % i for i in range(100)}
