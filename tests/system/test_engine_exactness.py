"""Real processes on a real Kafka, killed and stopped: nothing lost, nothing folded twice."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.devstack.kafka import KafkaServer
from tests.support.fold import FoldGroup, folded, until

pytestmark = pytest.mark.kafka

NAMES = ("w1", "w2", "w3")
SESSION_S = 6.0


@pytest.fixture
def group(kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> Iterator[FoldGroup]:
    group = FoldGroup(kafka.bootstrap, unique("fold"), tmp_path, numbers=4)
    yield group
    group.close()


class Nemesis:
    """Kills, wipes, stops and restarts workers, by a seed that is printed."""

    def __init__(self, group: FoldGroup, seed: int) -> None:
        print(f"nemesis seed {seed}")  # noqa: T201  # a failure is repeated with it
        self.group, self.random = group, random.Random(seed)

    def kill(self, *, wipe: bool = False) -> None:
        worker = self.group.workers[self.random.choice(NAMES)]
        worker.kill()
        if wipe:
            worker.wipe()
        worker.start()

    def zombie(self) -> None:
        worker = self.group.workers[self.random.choice(NAMES)]
        worker.signal(signal.SIGSTOP)
        time.sleep(SESSION_S + 2.5)
        worker.signal(signal.SIGCONT)

    def restart(self) -> None:
        worker = self.group.workers[self.random.choice(NAMES)]
        assert worker.terminate() == 0
        worker.start()


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
    total, seed = 12_000, int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 10_000)
    workers = group.start(*NAMES)
    until(lambda: all(w.ready for w in workers), what="all ready")
    nemesis = Nemesis(group, seed)
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
