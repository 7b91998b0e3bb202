"""A worker between the neighbours of the compose file, watched by a real Prometheus with the rules we ship."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from app.devstack.kafka import free_port
from app.devstack.neighbours import PORTS, Neighbours, publish_for_ever
from app.devstack.standins import Fault
from app.publishing import KafkaConfig, KafkaEventPublisher
from deploy.files import ALERTS, ROOT
from tests.support.deploy_tools import require
from tests.support.workers import Deployment, RunningWorker, fetch, until

pytestmark = pytest.mark.kafka

SECRET = "whsec_ZGV2ZWxvcG1lbnQtb25seS1zZWNyZXQhIQ=="
RATE_PER_S = 20.0
AUDIT_ALERTS = {"VaultStreamAuditFlushFailing", "VaultStreamAuditOldestUnflushedAge"}


@asynccontextmanager
async def neighbourhood(deployment: Deployment) -> AsyncIterator[tuple[Neighbours, RunningWorker, dict[str, str]]]:
    """Neighbours, a worker that reports to them, and a vault that publishes."""
    neighbours = Neighbours.new("127.0.0.1", "127.0.0.1", SECRET, dict.fromkeys(PORTS, 0))
    async with AsyncExitStack() as stack:
        urls = await neighbours.start(stack)
        deployment.settings |= {
            "GOVERNANCE__ENDPOINT": urls["dashboard"],
            "POLICY__ENDPOINT": urls["policy"],
            "REGISTRY__ENDPOINT": urls["registry"],
        }
        (worker,) = await deployment.start("w1")
        config = KafkaConfig(brokers=[deployment.brokers], topic_prefix=deployment.topics.prefix)
        publisher = await stack.enter_async_context(KafkaEventPublisher(config))
        publishing = asyncio.create_task(publish_for_ever(publisher, RATE_PER_S))
        try:
            yield neighbours, worker, urls
        finally:
            publishing.cancel()


async def test_the_neighbours_of_the_compose_file_get_what_a_vault_publishes(deployment: Deployment) -> None:
    async with neighbourhood(deployment) as (neighbours, worker, urls):
        made = [await neighbours.make_webhooks(worker.url, None, urls) for _ in range(2)]
        honest, flaky = neighbours.receivers

        async def everybody_has_something() -> bool:
            return bool(honest.accepted and flaky.accepted and neighbours.upstreams.dashboard.events)

        await worker.while_alive(until(everybody_has_something, "events at receivers and dashboard"))

    assert made == [2, 0]
    assert honest.signatures_bad + flaky.signatures_bad == 0


@asynccontextmanager
async def prometheus(folder: Path, worker: RunningWorker) -> AsyncIterator[Callable[[str], Awaitable[Any]]]:
    """A server with the configuration of the compose file, but for addresses and pace; asks it a query."""
    config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(ALERTS)]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [worker.url.removeprefix("http://")]}]
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    with (folder / "prometheus.log").open("w") as log:
        server = await asyncio.create_subprocess_exec(
            require("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
        )

    async def ask(query: str) -> Any:
        status, body = await fetch(f"http://127.0.0.1:{port}/api/v1/query?{urlencode({'query': query})}")
        return body["data"]["result"] if status == 200 else []

    try:
        yield ask
    finally:
        server.terminate()
        await server.wait()


@pytest.mark.foreign
async def test_a_dead_dashboard_raises_the_alerts_of_the_audit_trail(deployment: Deployment, tmp_path: Path) -> None:
    async with neighbourhood(deployment) as (neighbours, worker, _), prometheus(tmp_path, worker) as ask:

        async def raised() -> set[str]:
            """Pending or firing: the expression is above its threshold."""
            return {each["metric"]["alertname"] for each in await ask("ALERTS")} & AUDIT_ALERTS

        async def both() -> bool:
            return await raised() == AUDIT_ALERTS

        await until(lambda: ask("vault_stream_ready == 1"), "a scrape of a ready worker")
        await until(lambda: ask('vault_stream_audit_batches_total{outcome="accepted"} > 0'), "batches accepted")
        before = await raised()
        neighbours.upstreams.dashboard.fault = Fault(status=503)
        await worker.while_alive(until(both, "both alerts", 180))

    assert before == set()
