"""Three workers and eight numbers: whole, even, and answering for each other."""

from collections import Counter
from collections.abc import Sequence

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from app.devstack.workload import make_workload
from app.events import VaultEventType, topic_of
from tests.support.report import report
from tests.support.workers import Deployment, RunningWorker, until

pytestmark = pytest.mark.kafka

NUMBERS = 8


async def shares(deployment: Deployment, workers: Sequence[RunningWorker]) -> list[int]:
    """How many numbers each worker has, largest first, once all agree and all are open; empty before."""
    sections = [await worker.stats() for worker in workers]
    if not all(stats and not stats["not_ready"] for stats in sections):
        return []
    owners = sections[0]["owners"]
    if len(owners) != NUMBERS or any(stats["owners"] != owners for stats in sections):
        return []
    for worker, stats in zip(workers, sections, strict=True):
        mine = {number for number, name in owners.items() if name == worker.name}
        if stats["numbers"] != dict.fromkeys(mine, "open"):
            return []
    return sorted(Counter(owners.values()).values(), reverse=True)


@pytest.mark.parametrize(
    "events", [pytest.param(200, id="short"), pytest.param(5_000, id="full", marks=pytest.mark.prove)]
)
async def test_numbers_are_whole_and_even_and_every_worker_answers_for_every_row(
    deployment: Deployment, events: int
) -> None:
    deployment.settings["PARTITIONS"] = str(NUMBERS)
    create(deployment, VaultEventType.DATASET_CREATED, 12)
    create(deployment, VaultEventType.VERSION_CREATED, 3)
    workers = await deployment.start("w1", "w2", "w3")

    async def dealt(among: Sequence[RunningWorker], wanted: list[int]) -> None:
        async def even() -> bool:
            return await shares(deployment, among) == wanted

        await until(even, f"{wanted} on {len(among)} workers")

    await dealt(workers, [3, 3, 2])
    hook = await deployment.hook("*")
    first = make_workload(events, seed=1, start_ms=1_790_000_000_000).events
    await deployment.publish(first)
    await deployment.observed(lambda: hook.expected(first) <= hook.receiver.accepted, "all partitions consumed")

    await workers[2].kill()
    await dealt(workers[:2], [4, 4])
    second = make_workload(events, seed=2, start_ms=1_790_000_000_000).events
    await deployment.publish(second)
    await deployment.observed(lambda: hook.expected(second) <= hook.receiver.accepted, "consumed by two")

    await workers[2].start()
    await dealt(workers, [3, 3, 2])
    await deployment.idle()
    await everyone_answers(workers, hook.id)
    dashboard = deployment.upstreams.dashboard
    assert hook.expected([*first, *second]) <= dashboard.events
    report(
        "Numbers are whole and even",
        {
            "numbers of three workers": "3, 3, 2",
            "after `kill -9` of one": "4, 4",
            "after its return": "3, 3, 2",
            "events published to vault topics of 12, 3 and 8 partitions": len(first) + len(second),
            "events delivered": len(hook.receiver.accepted),
            "webhook, deliveries and delivery from any worker": "the same",
        },
    )


def create(deployment: Deployment, kind: VaultEventType, partitions: int) -> None:
    """A vault topic as its services made it."""
    admin = AdminClient({"bootstrap.servers": deployment.brokers, "log_level": 0})
    topic = topic_of(kind, deployment.topics.prefix)
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(20)


async def everyone_answers(workers: Sequence[RunningWorker], webhook_id: str) -> None:
    """The webhook, its deliveries and one delivery, each the same from every worker, though one owns the rows."""
    for path in (f"/v1/webhooks/{webhook_id}", f"/v1/deliveries?webhook_id={webhook_id}&limit=200"):
        answers = [await worker.get(path) for worker in workers]
        assert [status for status, _ in answers] == [200] * len(workers)
        assert all(body == answers[0][1] for _, body in answers)
    delivery_id = answers[0][1]["items"][0]["id"]
    shown = [await worker.get(f"/v1/deliveries/{delivery_id}") for worker in workers]
    assert all(status == 200 and body["id"] == delivery_id for status, body in shown)
