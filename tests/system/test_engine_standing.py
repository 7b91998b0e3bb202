"""An agent that never returns: its own work waits, every other goes on as before, and memory does not grow."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Producer

from app.devstack.kafka import KafkaServer
from tests.support.fold import FoldGroup, FoldWorker, until
from tests.support.report import report

pytestmark = pytest.mark.kafka

NUMBERS = 4
WIDE = 12
SLOWER = 3.0
"""The others may take so many times as long as before, and some seconds: the machine has two cores, and more to do."""
ALLOWANCE_S = 5.0
GROWTH_MIB = 64
"""Room is 16 MiB a number and agent, and aiokafka holds a fetch of 1 MiB a partition: far less than what waits."""


@dataclass(frozen=True)
class Scale:
    relayed: int
    """Records of the agent that goes on, in each of the two phases."""
    waiting: int
    """Records of 1 KiB that wait for the one that stands."""


SHORT = Scale(4_000, 150_000)
FULL = Scale(40_000, 1_000_000)


@pytest.fixture
def group(kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> Iterator[FoldGroup]:
    group = FoldGroup(kafka.bootstrap, unique("standing"), tmp_path, numbers=NUMBERS)
    yield group
    group.close()


def stand(group: FoldGroup) -> None:
    """One record in each partition of `in` that its handler never returns from."""
    producer = Producer({"bootstrap.servers": group.brokers, "log_level": 0})
    for partition in range(WIDE):
        producer.produce(f"{group.app}.in", b"!stand", b"k", partition=partition)
    assert producer.flush(30) == 0


def let_wait(group: FoldGroup, count: int) -> None:
    producer = Producer(
        {"bootstrap.servers": group.brokers, "linger.ms": 20, "compression.type": "lz4", "log_level": 0}
    )
    for at in range(count):
        producer.produce(f"{group.app}.in", b"x" * 1024, b"k", partition=at % WIDE)
        producer.poll(0)
        while len(producer) > 50_000:
            producer.poll(0.1)
    assert producer.flush(120) == 0


def relay(group: FoldGroup, first: int, count: int) -> float:
    """How long all of them take, in seconds."""
    began = time.monotonic()
    group.produce(first, count, topics=("relay",))
    until(lambda: len(group.relayed()) >= first + count, what="all relayed")
    return time.monotonic() - began


def resident_mib(worker: FoldWorker) -> float:
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


@pytest.mark.parametrize(
    "scale", [pytest.param(SHORT, id="short"), pytest.param(FULL, id="full", marks=pytest.mark.prove)]
)
def test_an_agent_that_never_returns_costs_the_others_nothing_and_memory_stays_flat(
    group: FoldGroup, scale: Scale
) -> None:
    (worker,) = group.start("w1")
    until(lambda: worker.ready, what="ready")
    before_s = relay(group, 0, scale.relayed)

    stand(group)
    until(lambda: worker.status["oldest_s"]["fold"] > 0, what="it stands")
    let_wait(group, scale.waiting // 2)
    # Whatever it may hold of what waits, it holds by now.
    half_s = relay(group, scale.relayed, scale.relayed)
    half_mib = resident_mib(worker)
    let_wait(group, scale.waiting // 2)
    whole_s = relay(group, 2 * scale.relayed, scale.relayed)
    whole_mib = resident_mib(worker)

    assert max(half_s, whole_s) <= SLOWER * before_s + ALLOWANCE_S
    assert whole_mib - half_mib <= GROWTH_MIB
    assert set(group.relayed()) == {b"v-%d" % i for i in range(3 * scale.relayed)}
    until(lambda: worker.status["oldest_s"]["fold"] >= 5, what="its age is shown")
    assert worker.status["oldest_s"]["relay"] < 5
    assert worker.ready
    assert worker.process.poll() is None
    report(
        "A standing agent",
        {
            "records relayed a second before": round(scale.relayed / before_s),
            "with another that stands, half of its records waiting": round(scale.relayed / half_s),
            "with all of them waiting": round(scale.relayed / whole_s),
            "MiB that wait for it": scale.waiting // 1024,
            "MiB of process memory with half of them, with all": f"{half_mib:.0f}, {whole_mib:.0f}",
        },
    )


@pytest.mark.prove
def test_a_rebalance_and_a_shutdown_are_not_kept_from_ending_by_an_agent_that_stands(group: FoldGroup) -> None:
    (first,) = group.start("w1", SESSION="30")
    until(lambda: first.ready, what="ready")
    stand(group)
    until(lambda: first.status["oldest_s"]["fold"] > 0, what="it stands")

    began = time.monotonic()
    (second,) = group.start("w2", SESSION="30")
    until(lambda: all(len(w.numbers) == NUMBERS // 2 for w in (first, second)), what="dealt out")
    rebalanced_s = time.monotonic() - began
    relay(group, 0, 1000)
    began = time.monotonic()
    assert first.terminate() == 0
    stopped_s = time.monotonic() - began
    until(lambda: len(second.numbers) == NUMBERS, what="taken over")

    relay(group, 1000, 1000)
    report(
        "A standing agent and the group",
        {
            "a second worker has its numbers after": f"{rebalanced_s:.1f} s",
            "a worker has stopped": f"{stopped_s:.1f} s",
        },
    )


@pytest.mark.prove
def test_the_same_with_stock_faust_stands_whole(group: FoldGroup) -> None:
    (worker,) = group.start("stock", MODULE="tests.system.stock_faust_worker")
    until(lambda: worker.ready, what="ready")
    group.produce(0, 100, topics=("relay",))
    until(lambda: worker.status["relayed"] == 100, what="it relays")

    stand(group)
    let_wait(group, SHORT.waiting)
    group.produce(100, 4_000, topics=("relay",))

    with pytest.raises(AssertionError, match="not within"):
        until(lambda: worker.status["relayed"] == 4_100, deadline_s=20, what="all relayed")
    report("Stock Faust with a standing agent", {"records relayed of 4,000": worker.status["relayed"] - 100})
