"""A worker that is stopped while its group rebalances leaves at once: neither it nor the others wait for a timeout."""

import asyncio
import json
import signal
import time
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from app.devstack.workload import make_workload
from app.topics import client_config
from tests.support.workers import Deployment, RunningWorker, until

pytestmark = pytest.mark.kafka

SESSION_S = 15
"""How long a join waits for a member that is frozen; a stop that waits with it takes most of that."""
AT_ONCE_S = 6.0


async def ended(worker: RunningWorker) -> tuple[int | None, float]:
    """SIGTERM; its exit code, and the seconds until it ended."""
    began = time.monotonic()
    return await worker.stop(), time.monotonic() - began


async def test_whoever_stops_in_the_middle_of_a_join_keeps_nobody_waiting(deployment: Deployment) -> None:
    deployment.settings["SESSION_TIMEOUT_S"] = str(SESSION_S)
    admin = AdminClient(client_config(deployment.brokers))

    def members() -> int:
        answer: Any = admin.describe_consumer_groups([deployment.app_id])[deployment.app_id]
        return len(answer.result(10).members)

    async def all_wait() -> bool:
        return await asyncio.to_thread(members) == 3 and not await old.ready()

    old, frozen = await deployment.start("old", "frozen")
    hook = await deployment.hook("*")
    frozen.signal(signal.SIGSTOP)
    new = deployment.worker("new")
    await new.start()
    await until(all_wait, "the old and the new worker have joined, and wait for the frozen one")

    (old_code, old_s), (new_code, new_s) = await ended(old), await ended(new)

    assert (old_code, new_code) == (0, 0)
    assert max(old_s, new_s) < AT_ONCE_S, f"{old_s:.1f} s in a group, {new_s:.1f} s in a first join"
    assert await asyncio.to_thread(members) == 1, "the broker still waits for one that has left"
    frozen.signal(signal.SIGCONT)
    events = make_workload(100, seed=1, start_ms=time.time_ns() // 1_000_000).events
    await deployment.publish(events)
    await deployment.observed(lambda: hook.receiver.accepted == hook.expected(events), "the woken one delivers all")
    for worker in (old, new):
        goodbye = worker.log.read_text().partition('"stopping: ')[2]
        assert '"stopped: exit 0"' in goodbye
        assert '"level":"ERROR"' not in goodbye
        kept = json.loads((worker.data_dir / "membership.json").read_bytes())
        assert kept["member_id"] == "", "it would be taken out of the group once more at its next start"
