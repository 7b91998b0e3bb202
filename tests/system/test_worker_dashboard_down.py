"""A dashboard that is down while many events flow: nothing is lost, memory is flat, webhooks do not notice; then it
comes back, and everything is caught up with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.devstack.demo import chain_holds
from app.devstack.workload import make_workload
from app.publishing import VaultEvent
from tests.support.report import report
from tests.support.workers import Deployment, Hook, RunningWorker

pytestmark = [pytest.mark.kafka, pytest.mark.prove]

EVENTS = 15_000
"""In each of three phases: warm-up, down, down for longer."""
PER_S = 600.0
GROWTH_MB = 64.0
"""What the second half of the outage may add: audit records that wait are in Kafka, and nowhere else."""
SLOWER = 3.0
CATCH_UP_S = 600.0


async def test_an_outage_of_the_dashboard_costs_no_event_no_memory_and_no_webhook(deployment: Deployment) -> None:
    dashboard = deployment.upstreams.dashboard
    deployment.settings |= {"GOVERNANCE__FLUSH_INTERVAL_S": "0.5", "GOVERNANCE__BUFFER_SIZE": "500"}
    (worker,) = await deployment.start("w1")
    # One webhook of a family: the worker is to have time left for audit.
    hook = await deployment.hook("access.*")
    phases = [workload(number) for number in range(3)]
    well_s = await play(deployment, hook, phases[0])
    everything = {(event.source, event.id) for event in phases[0]}
    await deployment.observed(lambda: everything <= dashboard.events, "all audited", CATCH_UP_S)

    await dashboard.stop()
    first_s = await play(deployment, hook, phases[1])
    before_mb = rss_mb(worker)
    second_s = await play(deployment, hook, phases[2])
    grown_mb = rss_mb(worker) - before_mb
    assert await worker.ready()
    waiting = await worker.metric("vault_stream_consumer_lag", topic=deployment.topics.audit)

    missing = {(event.source, event.id) for phase in phases for event in phase}
    entries = len(dashboard.entries)
    await dashboard.start()
    await deployment.observed(lambda: len(dashboard.entries) > entries, "it is back", CATCH_UP_S)
    began = time.monotonic()
    await deployment.observed(lambda: missing <= dashboard.events, "all caught up with", CATCH_UP_S)
    caught_up_s = time.monotonic() - began
    await deployment.idle()

    caught_up = len(dashboard.entries) - entries
    assert grown_mb <= GROWTH_MB
    assert max(first_s, second_s) <= SLOWER * well_s + 5
    assert hook.receiver.accepted == hook.expected([event for phase in phases for event in phase])
    assert len(dashboard.entries) == len(await deployment.read(deployment.topics.audit))
    assert chain_holds(dashboard.chain())
    assert dashboard.changed == 0
    await deployment.verify_audit()
    report(
        "A dashboard is down while events flow",
        {
            "events in each phase, at so many a second": f"{EVENTS}, {PER_S:.0f}",
            "deliveries to the webhook in each": [len(hook.expected(phase)) for phase in phases],
            "seconds until the last one, dashboard well": f"{well_s:.1f}",
            "seconds until the last one, dashboard down": f"{first_s:.1f}, {second_s:.1f}",
            "audit lag when it came back": round(waiting),
            "memory that the second half of the outage added, MB": round(grown_mb, 1),
            "caught up with, entries a second": round(caught_up / max(caught_up_s, 0.1)),
            "audit events missing": 0,
        },
    )


def workload(number: int) -> Sequence[VaultEvent]:
    return make_workload(EVENTS, seed=number, start_ms=time.time_ns() // 1_000_000).events


async def play(deployment: Deployment, hook: Hook, events: Sequence[VaultEvent]) -> float:
    """Publishes at a steady rate; seconds until the last of them that the webhook wants was delivered."""
    began = time.monotonic()
    await deployment.publish(events, per_s=PER_S)
    expected = hook.expected(events)
    await deployment.observed(lambda: expected <= hook.receiver.accepted, "all delivered", CATCH_UP_S)
    # What follows a delivery is logged, too, before memory is looked at.
    await asyncio.sleep(1.0)
    return time.monotonic() - began


def rss_mb(worker: RunningWorker) -> float:
    for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the worker has ended")
