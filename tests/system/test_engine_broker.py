"""A broker that freezes, dies and comes back: workers stay alive, say so, go on by themselves and lose nothing."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Producer

from app.devstack.kafka import KafkaServer
from app.devstack.workload import make_workload
from tests.support.fold import FoldGroup, FoldWorker, folded, until
from tests.support.report import report
from tests.support.workers import Deployment, RunningWorker
from tests.support.workers import until as until_async

pytestmark = pytest.mark.kafka

SESSION_S = 6.0
RECOVERY_S = 150.0
EVENTS = 200


@dataclass(frozen=True)
class Scale:
    frozen_s: float
    """At least; longer if a worker has not yet said that it is not ready."""
    kills: int
    dead_s: float


SHORT = Scale(frozen_s=8.0, kills=1, dead_s=0.0)
FULL = Scale(frozen_s=30.0, kills=3, dead_s=30.0)


class Feed:
    """Input for the fold, without end until it is told; each record is in its topic exactly once."""

    def __init__(self, group: FoldGroup) -> None:
        self.total = 0
        self._group, self._ending = group, threading.Event()
        # What was produced while the broker was away waits, and is neither lost nor written twice.
        self._producer = Producer(
            {
                "bootstrap.servers": group.brokers,
                "linger.ms": 20,
                "enable.idempotence": True,
                "message.timeout.ms": 600_000,
                "log_level": 0,
            }
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.wait(0.1):
            for i in range(self.total, self.total + 20):
                for topic in ("in", "small", "relay"):
                    self._producer.produce(f"{self._group.app}.{topic}", b"v-%d" % i, b"k-%d" % (i % 97))
            self.total += 20
            self._producer.poll(0)

    def end(self) -> int:
        """Stops; how many records each topic has."""
        self._ending.set()
        self._thread.join()
        assert self._producer.flush(120) == 0
        return self.total


@pytest.fixture
def group(own_kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> Iterator[FoldGroup]:
    group = FoldGroup(own_kafka.bootstrap, unique("away"), tmp_path, numbers=4)
    yield group
    group.close()


@pytest.fixture
def feed(group: FoldGroup) -> Iterator[Feed]:
    feed = Feed(group)
    yield feed
    feed.end()


@pytest.fixture
async def deployment(own_kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Deployment]:
    async with Deployment(own_kafka.bootstrap, unique("app"), tmp_path) as deployment:
        deployment.settings["SESSION_TIMEOUT_S"] = f"{SESSION_S:.0f}"
        yield deployment


def settled(group: FoldGroup, total: int) -> None:
    wanted = folded(total, 2)
    until(lambda: group.counted().total() >= wanted.total(), RECOVERY_S, "everything counted")
    assert group.counted() == wanted
    until(lambda: len(group.relayed()) >= total, RECOVERY_S, "everything relayed")
    assert set(group.relayed()) == {b"v-%d" % i for i in range(total)}


class Outage:
    """What is asked of workers while their broker is away, and after."""

    def __init__(self, worker: RunningWorker, folds: list[FoldWorker]) -> None:
        self.worker, self.folds = worker, folds
        self.liveness: set[int] = set()

    async def unready(self) -> bool:
        self.liveness.add((await self.worker.get("/health/live"))[0])
        return (await self.worker.get("/health/ready"))[0] == 503

    async def felt(self, least_s: float) -> None:
        """Lasts until everybody says that it is not ready, and for so long at least."""
        began = time.monotonic()
        await until_async(self.unready, "the worker says that it is not ready", RECOVERY_S)
        await until_async(self._folds_unready, "the folds say that they are not ready", RECOVERY_S)
        while time.monotonic() < began + least_s:
            assert await self.unready()
            await asyncio.sleep(0.1)

    async def _folds_unready(self) -> bool:
        return not any(fold.ready for fold in self.folds)

    async def over(self) -> float:
        """Waits until everybody works again; how long it took."""
        began = time.monotonic()
        await until_async(self._all_ready, "ready by itself", RECOVERY_S)
        return round(time.monotonic() - began, 1)

    async def _all_ready(self) -> bool:
        return await self.worker.ready() and all(fold.ready for fold in self.folds)


@pytest.mark.parametrize(
    "scale", [pytest.param(SHORT, id="short"), pytest.param(FULL, id="full", marks=pytest.mark.prove)]
)
async def test_a_broker_that_freezes_and_is_killed_under_load_costs_nothing(
    own_kafka: KafkaServer, group: FoldGroup, feed: Feed, deployment: Deployment, scale: Scale
) -> None:
    folds = group.start("w1", "w2")
    (worker,) = await deployment.start("w3")
    outage = Outage(worker, folds)
    hook = await deployment.hook("*")
    events = make_workload(2 * EVENTS, seed=1, start_ms=time.time_ns() // 1_000_000).events
    await outage.over()
    await deployment.publish(events[:EVENTS])
    pids = [fold.process.pid for fold in folds]

    os.kill(own_kafka.pid, signal.SIGSTOP)
    try:
        await outage.felt(scale.frozen_s)
    finally:
        os.kill(own_kafka.pid, signal.SIGCONT)
    after_freeze_s = await outage.over()
    after_kill_s = []
    for kill in range(scale.kills):
        await asyncio.to_thread(own_kafka.kill)
        if kill == 0 and scale.dead_s:
            await outage.felt(scale.dead_s)
        await asyncio.to_thread(own_kafka.start)
        after_kill_s.append(await outage.over())
        until_more = feed.total + 200
        await until_async(lambda until_more=until_more: _reached(feed, until_more), "more input")

    await deployment.publish(events[EVENTS:])
    await deployment.observed(lambda: hook.receiver.accepted == hook.expected(events), "delivered", RECOVERY_S)
    total = await asyncio.to_thread(feed.end)
    await asyncio.to_thread(settled, group, total)
    assert outage.liveness == {200}
    assert [fold.process.poll() for fold in folds] == [None, None]
    assert [fold.process.pid for fold in folds] == pids
    await outage.over()
    assert await deployment.stop() == [0]
    report(
        "A broker that freezes and is killed under load",
        {
            "records folded twice and relayed": total,
            "lost, or counted twice": 0,
            "frozen": f"{scale.frozen_s:.0f} s; liveness 200, readiness 503",
            "seconds until all are ready after it woke": after_freeze_s,
            "kill -9 of the broker": f"{scale.kills}, the first time away for {scale.dead_s:.0f} s",
            "seconds until all are ready after it served again": ", ".join(map(str, after_kill_s)),
            "events delivered by webhook": len(hook.receiver.accepted),
        },
    )


async def _reached(feed: Feed, total: int) -> bool:
    return feed.total >= total


@pytest.mark.prove
def test_outputs_are_lost_by_an_engine_that_gives_them_up(own_kafka: KafkaServer, group: FoldGroup) -> None:
    (worker,) = group.start("w1", BROKEN="outputs_given_up")
    until(lambda: worker.ready, RECOVERY_S, "ready")

    total = 200_000
    worker.signal(signal.SIGSTOP)
    for first in range(0, total, total // 10):
        group.produce(first, total // 10, ("relay",))
    worker.signal(signal.SIGCONT)
    until(lambda: len(group.relayed()) > 0, RECOVERY_S, "it is at work")
    own_kafka.kill()
    own_kafka.start()
    until(lambda: worker.ready, RECOVERY_S, "ready again")
    group.produce(total, 97, ("relay",))
    last = {b"v-%d" % i for i in range(total, total + 97)}
    until(lambda: last <= group.relayed().keys(), RECOVERY_S, "the last ones relayed")

    lost = {b"v-%d" % i for i in range(total)} - group.relayed().keys()
    report("Outputs given up while a broker is dead", {"records": total, "lost": len(lost)})
    assert lost
