"""How a worker begins and ends: what it refuses, in one line each, and what it answers before there is a broker."""

import asyncio
import fcntl
import json
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.devstack.kafka import free_port
from app.devstack.workload import make_workload
from app.topics import TopicAdmin, apply, client_config, plan
from tests.support.workers import DEADLINE_S, Deployment, RunningWorker, until

END_S = 5.0
"""A worker that does not drain ends within this."""


@pytest.fixture
async def lonely(tmp_path: Path) -> AsyncIterator[Deployment]:
    """A deployment whose broker nobody has started."""
    async with Deployment(f"127.0.0.1:{free_port()}", "lonely", tmp_path) as deployment:
        yield deployment


async def refusal(worker: RunningWorker) -> str:
    """The one line with which it refuses to start, once it has exited 1."""
    await worker.start()
    assert await worker.exit_code(DEADLINE_S) == 1
    lines = worker.log.read_text().splitlines()
    said = [line for line in lines if not line.startswith("{") or json.loads(line)["level"] in ("ERROR", "CRITICAL")]
    assert len(said) == 1, lines
    return said[0]


async def test_a_web_port_in_use_is_one_line_and_exit_1(lonely: Deployment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = await refusal(lonely.worker("w1", WEB_PORT=str(port)))
    assert f"127.0.0.1:{port} is in use" in line
    assert "VAULT_STREAM_WEB_PORT" in line


async def test_a_data_dir_in_use_is_one_line_and_exit_1(lonely: Deployment) -> None:
    worker = lonely.worker("w1")
    worker.data_dir.mkdir(parents=True)
    with (worker.data_dir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = await refusal(worker)
    assert f"DATA_DIR {worker.data_dir} is in use" in line
    assert "VAULT_STREAM_DATA_DIR" in line


async def test_an_unknown_setting_is_one_line_and_exit_1(lonely: Deployment) -> None:
    line = await refusal(lonely.worker("w1", PARTITION="4"))
    assert "VAULT_STREAM_PARTITION: no such setting; did you mean VAULT_STREAM_PARTITIONS?" in line


async def test_an_authority_that_is_no_certificate_is_one_line_and_exit_1(lonely: Deployment, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    line = await refusal(lonely.worker("w1", KAFKA__SECURITY_PROTOCOL="SSL", KAFKA__SSL_CA=str(tmp_path / "ca.pem")))
    assert "VAULT_STREAM_KAFKA__SSL_CA" in line
    assert "PEM" in line


async def test_without_a_broker_it_is_live_and_not_ready_and_ends_when_asked(lonely: Deployment) -> None:
    worker = lonely.worker("w1")
    await worker.start()

    async def live() -> bool:
        return (await worker.get("/health/live"))[0] == 200

    await worker.while_alive(until(live, "it answers"))
    status, health = await worker.get("/health/ready")
    assert (status, health["status"]) == (503, "not_ready")

    worker.signal(signal.SIGTERM)
    assert await worker.exit_code(END_S) == 0


@pytest.mark.kafka
async def test_another_number_of_partitions_than_the_data_has_is_one_line_and_exit_1(deployment: Deployment) -> None:
    deployment.settings["PARTITIONS"] = "2"
    (worker,) = await deployment.start("w1")
    assert await worker.stop() == 0

    worker.log.unlink()
    deployment.settings["PARTITIONS"] = "3"
    line = await refusal(deployment.worker("w1"))
    assert "partitions" in line
    assert "VAULT_STREAM_APP_ID" in line


@pytest.mark.kafka
async def test_invalidations_that_end_before_the_decisions_they_end_are_one_line_and_exit_1(
    deployment: Deployment,
) -> None:
    specs = plan(deployment.topics, partitions=2, replication=1, policy_ttl_s=300)
    await asyncio.to_thread(apply, specs, TopicAdmin(client_config(deployment.brokers)))

    worker = deployment.worker("w1", PARTITIONS="2", POLICY__CACHE_TTL_S="7200")
    line = await refusal(worker)
    assert f"--entity-name {deployment.topics.invalidations} --add-config retention.ms=14400000" in line


@pytest.mark.kafka
async def test_sigterm_drains_and_a_second_one_does_not_wait(deployment: Deployment) -> None:
    deployment.settings["WEBHOOKS__TIMEOUT_S"] = "60"
    (worker,) = await deployment.start("w1")
    hook = await deployment.hook("health.degraded", "hanging")
    await deployment.publish(make_workload(23, seed=1, start_ms=1_790_000_000_000).events)
    await deployment.observed(lambda: bool(hook.receiver.attempts), "a POST is under way")

    async def draining() -> bool:
        status, health = await worker.get("/health/ready")
        return status == 503 and "draining" in json.dumps(health)

    worker.signal(signal.SIGTERM)
    await until(draining, "it says that it drains")
    with pytest.raises(TimeoutError):
        await worker.exit_code(1.0)

    worker.signal(signal.SIGTERM)
    assert await worker.exit_code(END_S) == 0
