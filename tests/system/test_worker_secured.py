"""Workers on Kafka as companies run it: TLS, a login, an authorizer, and no right too many."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from app.events import VaultEventType
from app.publishing import VaultEvent
from app.topics import AclRole, Topics, acls_of
from tests.support.secure_kafka import SecureKafka
from tests.support.secured import Secured, leaks, logged, not_ready_because, said
from tests.support.workers import Deployment, RunningWorker

pytestmark = pytest.mark.kafka

SEVERAL_TRIES_S = 8.0


@pytest.fixture
async def secured(secure_kafka: SecureKafka, unique: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Secured]:
    async with Deployment(secure_kafka.bootstrap, unique("app"), tmp_path) as deployment:
        yield Secured(secure_kafka, deployment, tmp_path)


def events(count: int) -> list[VaultEvent]:
    type_ = VaultEventType.DATASET_CREATED
    return [VaultEvent.new(type_, "/vault", {"dataset_id": f"ds-{n}", "name": "n"}) for n in range(count)]


async def test_a_wrong_password_is_one_line_and_a_reason_and_the_right_one_is_enough(secured: Secured) -> None:
    secured.prepare()
    secured.keep(secured.new_password())
    worker = secured.deployment.worker("w1")
    await worker.start()
    reason = await not_ready_because(worker, "KAFKA__SASL_PASSWORD")

    secured.keep(secured.password)
    await secured.deployment.ready(worker)
    hook = await secured.deployment.hook("*")
    published = events(5)
    await secured.deployment.publish(published)
    await secured.deployment.observed(lambda: hook.expected(published) <= hook.receiver.accepted, "all arrive")

    assert await worker.stop() == 0
    assert len(said(worker, "KAFKA__SASL_PASSWORD")) == 1
    assert reason in said(worker, "KAFKA__SASL_PASSWORD")[0]
    assert flood(worker) == []
    assert leaks([worker.log], secured.passwords) == []


def flood(worker: RunningWorker) -> list[str]:
    """What it logged of errors besides the lines that say what to do."""
    entries = logged(worker, "WARNING", "ERROR", "CRITICAL")
    ours = [entry for entry in entries if not entry["message"].startswith(("Kafka refuses", "not ready: "))]
    return [entry["message"] for entry in ours if "exception" in entry or entry["target"].startswith("app.")]


@pytest.mark.prove
@pytest.mark.parametrize("lacking", range(len(acls_of(AclRole.WORKER, Topics("t", "a")))))
async def test_a_worker_that_lacks_one_right_says_which_and_goes_on_once_it_has_it(
    secured: Secured, lacking: int
) -> None:
    secured.prepare()
    right = secured.acls[lacking]
    secured.kafka.forbid(secured.principal, [right])
    worker = secured.deployment.worker("w1")
    await worker.start()
    await secured.deployment.publish(events(1))
    named = f"no right {right.operation} on {right.resource} {right.name}"
    await not_ready_because(worker, named)
    await asyncio.sleep(SEVERAL_TRIES_S)

    secured.kafka.allow(secured.principal, [right])
    await secured.deployment.ready(worker)
    await secured.deployment.idle()
    assert len(said(worker, "")) == 1
    assert said(worker, named)
    assert flood(worker) == []
