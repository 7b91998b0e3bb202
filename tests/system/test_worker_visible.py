"""How soon an operator sees that a worker has nothing to do, is not let in, or is fenced: readiness and metrics."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, KafkaException, Producer

from app.devstack.workload import make_workload
from tests.support.report import report
from tests.support.workers import Deployment, RunningWorker, until

pytestmark = [pytest.mark.kafka, pytest.mark.prove]

VISIBLE_WITHIN_S = 15.0


async def seconds_until(condition: Callable[[], Awaitable[bool]], what: str) -> float:
    began_s = time.monotonic()
    await until(condition, what, VISIBLE_WITHIN_S)
    return time.monotonic() - began_s


async def reasons(worker: RunningWorker) -> str:
    """What `/health` says that stands against readiness."""
    _, health = await worker.get("/health")
    return "" if health is None else " ".join(check.get("message") or "" for check in health["checks"])


@contextmanager
def another_kind_of_member(brokers: str, group: str, topic: str) -> Iterator[None]:
    """Somebody of the same group who knows none of our assignors: the broker refuses whoever comes second."""
    member = Consumer(
        {"bootstrap.servers": brokers, "group.id": group, "session.timeout.ms": 6000, "enable.auto.commit": False}
    )
    member.subscribe([topic])
    ends_s = time.monotonic() + 60
    while not member.assignment():
        member.poll(0.1)
        assert time.monotonic() < ends_s
    try:
        yield
    finally:
        member.close()


async def test_a_worker_that_the_group_refuses_says_so_and_joins_once_it_may(deployment: Deployment) -> None:
    (first,) = await deployment.start("w1")
    await first.stop()
    refused = deployment.worker("w2")

    with another_kind_of_member(deployment.brokers, deployment.app_id, deployment.topics.events):
        await refused.start()

        async def listening() -> bool:
            return (await refused.get("/health/live"))[0] == 200

        await until(listening, "it listens")

        async def named() -> bool:
            status, _ = await refused.get("/health/ready")
            return status == 503 and "InconsistentGroupProtocol" in await reasons(refused)

        seen_s = await seconds_until(named, "the refusal is named")
        assert await refused.metric("vault_stream_numbers", state="open") == 0
    await deployment.ready(refused)

    report("A refused join is visible", {"after it listens": f"{seen_s:.1f} s, at most {VISIBLE_WITHIN_S:.0f}"})


async def test_a_worker_without_a_number_is_seen_to_be_a_ready_spare(deployment: Deployment) -> None:
    deployment.settings["PARTITIONS"] = "1"
    await deployment.start("w1")
    spare = deployment.worker("w2")
    await spare.start()

    async def is_spare() -> bool:
        stats = await spare.stats()
        return bool(stats) and await spare.ready() and stats["owners"] == {"0": "w1"} and not stats["numbers"]

    seen_s = await seconds_until(is_spare, "a ready spare, which knows who has the number")
    assert await spare.metric("vault_stream_numbers", state="open") == 0

    report("A worker without a number is visible", {"after its start": f"{seen_s:.1f} s"})


async def test_a_number_that_is_fenced_is_seen_in_readiness_and_metrics_and_comes_back(deployment: Deployment) -> None:
    (worker,) = await deployment.start("w1")
    over = threading.Event()

    def fence() -> None:
        while not over.is_set():
            try:
                Producer(
                    {
                        "bootstrap.servers": deployment.brokers,
                        "transactional.id": f"{deployment.app_id}-0",
                        "log_level": 0,
                    }
                ).init_transactions(10)
            except KafkaException:
                continue

    fencing = threading.Thread(target=fence)
    fencing.start()
    events = make_workload(400, seed=1, start_ms=1_790_000_000_000).events
    publishing = asyncio.create_task(deployment.publish(events, per_s=100))
    try:

        async def seen() -> bool:
            status, _ = await worker.get("/health/ready")
            opening = await worker.metric("vault_stream_numbers", state="opening")
            return status == 503 and "number 0 is" in await reasons(worker) and opening > 0

        seen_s = await seconds_until(seen, "number 0 is named, and counted as opening")
    finally:
        over.set()
        await asyncio.to_thread(fencing.join)
        await publishing
    await deployment.ready(worker)
    await deployment.idle()

    report("A fenced number is visible", {"after the first fencing": f"{seen_s:.1f} s, while others went on"})
