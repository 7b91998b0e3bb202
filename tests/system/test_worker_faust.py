"""`faust -A app.main worker` is the same worker."""

import pytest

from app.devstack.kafka import free_port
from app.devstack.workload import make_workload
from tests.support.workers import Deployment, fetch

pytestmark = pytest.mark.kafka


async def test_faust_starts_the_same_worker_and_its_stats_page_answers(deployment: Deployment) -> None:
    stats_port = free_port()
    worker = deployment.worker("w1", faust=True, STATS_PORT=str(stats_port))
    await worker.start()
    await deployment.ready(worker)

    hook = await deployment.hook("dataset.created")
    events = make_workload(23, seed=1, start_ms=1_790_000_000_000).events
    await deployment.publish(events)
    await deployment.observed(lambda: hook.receiver.accepted == hook.expected(events), "delivered")
    assert hook.receiver.signatures_bad == 0

    status, page = await fetch(f"http://127.0.0.1:{stats_port}/")
    assert status == 200
    assert page["Sensor0"]["messages_received_total"] > 0
    assert await worker.stop() == 0
