"""Two workers, killed at random moments, one of them with its disk: nothing is lost, and the tables are their logs.

`make test` plays it with 2,000 events and two kills, `make prove` with 20,000 and three.
"""

import asyncio
import json
import math
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest

from app.devstack.receivers import ReceiverKind
from app.devstack.standins import Dashboard
from app.devstack.tally import EventKey, Expected, expect
from app.devstack.workload import make_workload
from app.publishing import VaultEvent
from tests.support.kills import Nemesis, Place, unexcused
from tests.support.rebuild import AGENTS, Comparison, Rebuild
from tests.support.report import report
from tests.support.workers import Deployment, Hook

pytestmark = pytest.mark.kafka

NUMBERS = 4
PATTERNS: tuple[tuple[str, ReceiverKind], ...] = (
    ("*", "honest"),
    ("dataset.*", "honest"),
    ("access.*", "flaky"),
    ("policy.violation", "honest"),
)


@dataclass(frozen=True)
class Scale:
    events: int
    kills: int
    per_s: float
    deadline_s: float


SHORT = Scale(2_000, 2, 250, 90)
FULL = Scale(20_000, 3, 500, 600)


@pytest.mark.parametrize(
    "scale", [pytest.param(SHORT, id="short"), pytest.param(FULL, id="full", marks=pytest.mark.prove)]
)
async def test_nothing_is_lost_and_only_what_was_open_at_a_kill_comes_twice(
    deployment: Deployment, scale: Scale
) -> None:
    seed = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 10_000)
    events = make_workload(scale.events, seed=seed, start_ms=time.time_ns() // 1_000_000).events
    began = time.monotonic()
    deployment.settings["GOVERNANCE__FLUSH_INTERVAL_S"] = "0.5"
    workers = await deployment.start("w1", "w2")
    hooks = [await deployment.hook(pattern, kind) for pattern, kind in PATTERNS]
    nemesis = Nemesis(deployment, seed)

    everything = hooks[0].receiver.accepted
    async with asyncio.TaskGroup() as group:
        group.create_task(deployment.publish(events, per_s=scale.per_s))
        group.create_task(nemesis.during(lambda: len(everything) / scale.events, scale.kills))
    await deployment.observed(lambda: all_there(deployment, events, expect(events)), "everything", scale.deadline_s)
    await deployment.idle()
    assert await deployment.stop() == [0, 0]

    for hook in hooks:
        assert hook.receiver.accepted == hook.expected(events)
        assert (hook.receiver.signatures_bad, hook.receiver.bodies_changed) == (0, 0)
    posts = repeated_posts(nemesis, hooks)
    audits = await repeated_audits(deployment, nemesis, events)
    batches = await one_batch_a_record(deployment, nemesis)
    verdicts = await deployment.verify_audit()
    assert all(verdict["from_start"] and not verdict["unsealed"] for verdict in verdicts if verdict["checked"])
    tables = await equal_rebuild(deployment)
    report(
        "Nothing is lost",
        {
            "seed": seed,
            "events published": scale.events,
            "workers": len(workers),
            "kill -9": ", ".join(f"{kill.worker}{' and its disk' if kill.wiped else ''}" for kill in nemesis.kills),
            "(event, webhook) pairs expected and observed": sum(len(hook.expected(events)) for hook in hooks),
            "deliveries accepted twice; open at a kill": posts,
            "audit records of an event that had one; open at a kill": audits,
            "audit records, each in exactly one accepted batch": batches,
            "audit batches posted again under their id": deployment.upstreams.dashboard.repeated,
            "entries of the chain verified": sum(verdict["checked"] for verdict in verdicts),
            "stores equal to their changelogs": tables.stores,
            "rows, engine rows and index keys compared": tables.rows,
            "seconds": round(time.monotonic() - began),
        },
    )


def all_there(deployment: Deployment, events: Sequence[VaultEvent], expected: Expected) -> bool:
    """Whether the other ends have seen everything that they must see."""
    upstreams = deployment.upstreams
    return (
        all(hook.expected(events) <= hook.receiver.accepted for hook in deployment.hooks)
        and expected.audited <= upstreams.dashboard.events
        and expected.violations <= upstreams.policy.violations.keys()
        and expected.datasets <= upstreams.registry.datasets.keys()
        and expected.gone.isdisjoint(upstreams.registry.datasets)
    )


def repeated_posts(nemesis: Nemesis, hooks: Sequence[Hook]) -> str:
    """The bound: a delivery is accepted again only if its row had not ended in the log at a kill of its owner."""
    open_, ages_s = 0, [0.0]
    for hook in hooks:
        for delivery_id, times in hook.receiver.accepted_at.items():
            excuses = [kill for kill in nemesis.kills if kill.excuses_delivery(hook, delivery_id, NUMBERS)]
            assert unexcused(times, excuses) == 0, f"{hook.pattern}: {delivery_id} was accepted at {times}"
            open_ += any(kill.is_between(min(times), math.inf) for kill in excuses)
            for before, after in pairwise(sorted(times)):
                ages_s.append(min(kill.at - before for kill in excuses if kill.is_between(before, after)))
    return f"{len(ages_s) - 1}; {open_}, the oldest for {max(ages_s):.1f} s"


async def repeated_audits(deployment: Deployment, nemesis: Nemesis, events: Sequence[VaultEvent]) -> str:
    """The bound: a published event gets another audit record only if its own was not below the position at a kill."""
    origins: dict[EventKey, Place] = {}
    for message in await deployment.read(*deployment.topics.vault):
        event = json.loads(message.value())
        origins[event["source"], event["id"]] = (message.topic(), message.partition(), message.offset())
    routed: defaultdict[EventKey, list[float]] = defaultdict(list)
    for message in await deployment.read(deployment.topics.audit):
        record = json.loads(message.value())
        routed[record["source"], record["id"]].append(message.timestamp()[1] / 1000)
    assert routed.keys() == origins.keys() >= {(event.source, event.id) for event in events}
    repeats = open_ = 0
    for key in ((event.source, event.id) for event in events):
        times = routed[key]
        excuses = [kill for kill in nemesis.kills if kill.excuses_record(origins[key], NUMBERS)]
        assert unexcused(times, excuses) == 0, f"{key} of {origins[key]} was routed at {times}"
        repeats += len(times) - 1
        open_ += any(kill.is_between(min(times), math.inf) for kill in excuses)
    return f"{repeats}; {open_}"


async def one_batch_a_record(deployment: Deployment, nemesis: Nemesis) -> int:
    """Each record of the audit topic in exactly one batch, which is the same bytes when it comes again.

    The bound: a batch is posted only after the answer to the one before is in the log, so that at a kill at most one
    batch a number is open.
    """
    dashboard: Dashboard = deployment.upstreams.dashboard
    batches = Counter(
        (entry["partition"], entry["sequence"]) for body in dashboard.batches.values() for entry in json.loads(body)
    )
    records = {(message.partition(), message.offset()) for message in await deployment.read(deployment.topics.audit)}
    assert batches == dict.fromkeys(records, 1)
    assert dashboard.changed == 0
    assert dashboard.repeated <= sum(len(kill.numbers) for kill in nemesis.kills)
    return len(records)


async def equal_rebuild(deployment: Deployment) -> Comparison:
    """The stores of all workers, byte for byte, and of each number one that has everything."""
    data_dirs = [worker.data_dir for worker in deployment.workers.values()]

    def compare() -> Comparison:
        return Rebuild(deployment.brokers, deployment.topics).compare(*data_dirs)

    comparison = await asyncio.to_thread(compare)
    assert comparison.differences == []
    assert comparison.current == {(agent, number) for agent in AGENTS for number in range(NUMBERS)}
    return comparison
