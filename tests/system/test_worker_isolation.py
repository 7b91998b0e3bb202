"""A dashboard that is dead, then refuses us: its own work waits, nothing else does, and nothing is missing later."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from app.devstack.demo import chain_holds
from app.devstack.standins import Dashboard, Fault
from app.devstack.workload import make_workload
from app.publishing import VaultEvent
from tests.support.report import report
from tests.support.workers import Deployment, Hook, RunningWorker, until

pytestmark = pytest.mark.kafka

SLOWER = 3.0
"""Deliveries may take so many times as long as with a healthy dashboard: others use the machine, too."""
ALLOWANCE_S = 2.0


@dataclass(frozen=True)
class Scale:
    events: int
    """In each of the three phases."""


def workload(scale: Scale, phase: int) -> Sequence[VaultEvent]:
    return make_workload(scale.events, seed=phase, start_ms=time.time_ns() // 1_000_000).events


@pytest.mark.parametrize(
    "scale", [pytest.param(Scale(900), id="short"), pytest.param(Scale(5_000), id="full", marks=pytest.mark.prove)]
)
async def test_a_dead_dashboard_costs_audit_lag_and_nothing_else(deployment: Deployment, scale: Scale) -> None:
    dashboard = deployment.upstreams.dashboard
    # One number takes no more of the audit topic than it has room for, and must show the whole lag all the same.
    deployment.settings |= {"PARTITIONS": "1", "GOVERNANCE__FLUSH_INTERVAL_S": "0.5"}
    (worker,) = await deployment.start("w1")
    hook = await deployment.hook("*")
    published = list(workload(scale, 1))
    healthy_s = await deliver(deployment, hook, published)
    await deployment.observed(lambda: hook.expected(published) <= dashboard.events, "all audited")

    await dashboard.stop()
    refused = workload(scale, 2)
    refused_s = await deliver(deployment, hook, refused)
    refused_lag = await audit_lags(deployment, worker, at_least=scale.events)
    assert (await worker.get("/health/live"))[0] == 200

    dashboard.fault = Fault(status=401)
    await dashboard.start()
    unauthorized = workload(scale, 3)
    unauthorized_s = await deliver(deployment, hook, unauthorized)
    await until(lambda: answered(dashboard), "a batch was answered with 401")
    unauthorized_lag = await audit_lags(deployment, worker, at_least=2 * scale.events)

    for slow_s in (refused_s, unauthorized_s):
        assert slow_s <= SLOWER * healthy_s + ALLOWANCE_S
    status, health = await worker.get("/health")
    (governance,) = [check for check in health["checks"] if check["name"] == "governance"]
    assert (status, health["status"], governance["status"]) == (200, "degraded", "degraded")
    assert (await worker.get("/health/live"))[0] == 200
    assert await worker.ready()
    assert await deployment.read(deployment.topics.quarantine) == []

    dashboard.fault = None
    published += [*refused, *unauthorized]
    await deployment.observed(lambda: hook.expected(published) <= dashboard.events, "nothing is missing")
    await deployment.idle()
    assert chain_holds(dashboard.chain())
    assert len(dashboard.entries) == len(await deployment.read(deployment.topics.audit))
    assert await deployment.read(deployment.topics.quarantine) == []
    await deployment.verify_audit()
    report(
        "A dead dashboard delays its own work only",
        {
            "events in each phase": scale.events,
            "deliveries with a healthy dashboard": f"{scale.events / healthy_s:.0f}/s",
            "with one that refuses connections": f"{scale.events / refused_s:.0f}/s, audit lag {refused_lag:.0f}",
            "with one that answers 401": f"{scale.events / unauthorized_s:.0f}/s, audit lag {unauthorized_lag:.0f}",
            "in quarantine": 0,
            "audit events missing after its return": 0,
        },
    )


async def answered(dashboard: Dashboard) -> bool:
    """Whether it refused anything since it is back."""
    return dashboard.requests > len(dashboard.batches) + dashboard.repeated


async def deliver(deployment: Deployment, hook: Hook, events: Sequence[VaultEvent]) -> float:
    """Publishes and waits for the webhooks; how long it took, in seconds."""
    began = time.monotonic()
    await deployment.publish(events)
    expected = hook.expected(events)
    await deployment.observed(lambda: expected <= hook.receiver.accepted, "all delivered")
    return time.monotonic() - began


async def audit_lags(deployment: Deployment, worker: RunningWorker, *, at_least: int) -> float:
    """Waits until the lag of the audit topic is that large; the lag."""

    async def lag() -> float:
        found = await worker.metric("vault_stream_consumer_lag", topic=deployment.topics.audit)
        return found if found >= at_least else 0.0

    return await until(lag, f"audit lag of {at_least}")
