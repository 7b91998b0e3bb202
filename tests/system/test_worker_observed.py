"""What operators see of a real worker that works: its metrics are fed, and its log can be rotated under it."""

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from app.devstack.workload import make_workload
from tests.support.workers import Deployment, RunningWorker, until

pytestmark = [pytest.mark.kafka, pytest.mark.prove]

EVENTS: Final = 220
OPENMETRICS: Final = {"Accept": "application/openmetrics-text; version=1.0.0"}
# Without a trouble, and on one worker that nothing was taken from, these stay at zero or without samples.
OF_TROUBLE: Final = {
    "grpc_requests", "vault_stream_outcome_unknown", "vault_stream_gap_records", "vault_stream_dead_letters",
    "vault_stream_quarantined", "vault_stream_restore_remaining_rows", "vault_stream_restored_rows",
    "vault_stream_stores_removed", "vault_stream_policy_cache_stale", "vault_stream_log_lines_dropped",
    "vault_stream_encryption_key_missing", "vault_stream_audit_oldest_unaccepted_seconds",
    "vault_stream_oldest_unfinished_seconds", "vault_stream_consumer_lag", "vault_stream_loop_lag_seconds",
    "vault_stream_deliveries_oldest_waiting_seconds", "vault_stream_deliveries_waiting",
    "vault_stream_clock_skew_seconds", "queue_depth",
}  # fmt: skip


async def families(worker: RunningWorker) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"{worker.url}/metrics", headers=OPENMETRICS) as answer:
        return {family.name: family for family in text_string_to_metric_families(await answer.text())}


def lines(file: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, file.read_text().splitlines())


async def test_a_worker_that_works_feeds_every_metric_and_its_log_can_be_rotated(
    deployment: Deployment, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    deployment.settings |= {"LOG__FORMAT": "json", "LOG__OUTPUT": f"both:{log}"}
    (worker,) = await deployment.start("w1")
    hook = await deployment.hook("*", "flaky")
    events = make_workload(EVENTS, seed=8, start_ms=time.time_ns() // 1_000_000).events
    await deployment.publish(events)

    async def answered_from_memory() -> bool:
        # Just after the start nothing is: the end of the log of invalidations is not known yet.
        question = {"principal_id": "alice", "action": "read", "resource_id": "ds-1", "context": {}}
        url = f"{worker.url}/v1/policy/evaluate"
        async with aiohttp.ClientSession() as session, session.post(url, json=question) as answer:
            assert answer.status == 200
        return await worker.metric("cache_hits_total") > 0

    await worker.while_alive(until(answered_from_memory, "a decision that is kept"))
    wanted = len(hook.expected(events))

    async def all_arrived() -> bool:
        return await worker.metric("vault_stream_deliveries_total", status="delivered") >= wanted

    await worker.while_alive(until(all_arrived, "all deliveries"))
    await deployment.idle()

    shown = await families(worker)
    silent = {name for name, family in shown.items() if not any(sample.value for sample in family.samples)}
    assert silent - OF_TROUBLE == set()
    peers = {sample.labels["peer"] for sample in shown["vault_stream_clock_skew_seconds"].samples}
    assert peers == {"broker", "governance", "policy", "registry"}
    assert all(abs(sample.value) < 1 for sample in shown["vault_stream_clock_skew_seconds"].samples)
    operations = {sample.labels["operation"] for sample in shown["storage_operations"].samples if sample.value}
    assert operations >= {"get", "put", "scan", "checkpoint"}

    queues = {sample.labels["queue_name"] for sample in shown["queue_depth"].samples}
    agents = ("router", "webhooks", "governance", "violations", "decisions", "registry")
    assert queues == {"webhooks_waiting", "webhooks_in_flight", "decisions_audit", *(f"jobs_{name}" for name in agents)}

    moved = log.rename(tmp_path / "worker.log.1")
    worker.signal(signal.SIGHUP)
    await worker.while_alive(until(_exists(log), "the file is opened again"))
    assert await worker.stop() == 0
    assert any(line["message"].startswith("ready") for line in lines(moved))
    assert any(line["message"].startswith("stopping") for line in lines(log))
    both = [*lines(moved), *lines(log)]
    assert [json.loads(line) for line in worker.log.read_text().splitlines()] == both


def _exists(file: Path) -> Any:
    async def exists() -> bool:
        return await asyncio.to_thread(file.exists)

    return exists
