"""An upstream goes away and comes back: auditors and webhooks learn of both, from the same log as of anything else."""

import json
from typing import Any

import pytest

from app.devstack.workload import make_workload
from tests.support.workers import Deployment

pytestmark = [pytest.mark.kafka, pytest.mark.prove]


async def test_a_dashboard_that_is_down_is_told_of_while_it_is_and_once_it_is_back(deployment: Deployment) -> None:
    deployment.settings |= {
        "HEALTH__DEGRADED_AFTER_S": "1",
        "HEALTH__RESTORED_AFTER_S": "1",
        "GOVERNANCE__FLUSH_INTERVAL_S": "0.2",
    }
    (worker,) = await deployment.start("w1")
    hook = await deployment.hook("health.*")
    dashboard = deployment.upstreams.dashboard
    events = make_workload(23, seed=1, start_ms=0).events
    known = hook.expected(events)

    await dashboard.stop()
    await deployment.publish(events)
    await deployment.observed(lambda: len(hook.receiver.accepted - known) == 1, "degraded is delivered")
    status, health = await worker.get("/health")
    (check,) = (check for check in health["checks"] if check["name"] == "governance")
    assert (status, check["status"]) == (200, "degraded")
    assert await worker.ready()

    await dashboard.start()
    await deployment.observed(lambda: len(hook.receiver.accepted - known) == 2, "restored is delivered")
    told = await _told(deployment)
    assert [(event["type"].rpartition(".")[2], event["data"]["component"]) for event in told] == [
        ("degraded", "governance"),
        ("restored", "governance"),
    ]
    assert told[1]["data"]["duration_s"] > 0
    # The events about it are audited as all others, by the dashboard that was away, each once.
    ids = {(event["source"], event["id"]) for event in told}
    expected = ids | {(event.source, event.id) for event in events}
    await deployment.observed(lambda: expected <= dashboard.events, "everything is audited")
    await deployment.idle()
    assert hook.receiver.accepted == known | ids


async def _told(deployment: Deployment) -> list[dict[str, Any]]:
    events = [json.loads(message.value()) for message in await deployment.read(deployment.topics.events)]
    own = f"/vault-stream/{deployment.app_id}"
    return [event for event in events if event["source"] == own and ".health." in event["type"]]
