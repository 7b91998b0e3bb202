"""A real OpenTelemetry Collector takes what is sent, and refuses what it should."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.devstack.kafka import KafkaServer
from app.events import VaultEventType
from app.observability.tracing import Messages, TracingConfig, client_span, start_tracing
from app.publishing import VaultEvent
from tests.support.deploy_tools import ended, said
from tests.support.memory_unit import record
from tests.support.otelcol import CONFIG, RealCollector, program, running
from tests.support.spans import PARENT, PARENT_ID, TRACE_ID
from tests.support.trace_tree import root_of
from tests.support.workers import Deployment, until

pytestmark = pytest.mark.foreign


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCollector]:
    with running(tmp_path_factory.mktemp("collector")) as started:
        yield started


async def seen(collector: RealCollector, count: int, trace_id: int) -> None:
    async def arrived() -> bool:
        return len([span for span in collector.spans if span.trace_id == f"{trace_id:032x}"]) >= count

    await until(arrived, f"{count} spans are printed")


async def test_it_prints_each_span_as_it_was_recorded(collector: RealCollector) -> None:
    tracing = start_tracing(TracingConfig(collector.endpoint, "night-shift", instance_id="w1"), {})
    assert tracing is not None
    messages = Messages(tracing.tracer, "vault-stream")
    passage = messages.passage(record(b"", topic="vault.events", offset=7), PARENT, id_="e-1")
    attempt = client_span(tracing.tracer, "POST", "https://a.example/hush", traceparent=PARENT)
    batch = messages.batch("vault.governance.audit", 0, [PARENT], 2)
    assert passage is not None
    assert attempt is not None
    assert batch is not None
    passage.header("vault.webhook.deliveries")
    passage.end()
    attempt.end("timeout")
    batch.end()
    await tracing.close(30)
    await seen(collector, 3, TRACE_ID)

    spans = {span.name: span for span in collector.spans}
    process, send = spans["process vault.events"], spans["send vault.webhook.deliveries"]
    assert (process.kind, int(process.parent_id, 16), process.attributes["messaging.kafka.offset"]) == (
        "consumer",
        PARENT_ID,
        7,
    )
    assert (send.kind, send.parent_id, send.attributes["messaging.system"]) == ("producer", process.span_id, "kafka")
    post = spans["POST"]
    assert (post.kind, post.failed, post.attributes["error.type"]) == ("client", True, "timeout")
    assert post.attributes["url.full"] == "https://a.example/REDACTED"
    assert spans["process vault.governance.audit"].links == [(f"{TRACE_ID:032x}", f"{PARENT_ID:016x}")]
    resource = process.resource
    assert (resource["service.name"], resource["service.instance.id"]) == ("night-shift", "w1")


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"\xff\xff\xff", "application/x-protobuf", 400),
        (b"{", "application/json", 400),
        (b"", "text/plain", 415),
    ],
)
async def test_it_refuses_what_is_no_trace(
    collector: RealCollector, body: bytes, content_type: str, status: int
) -> None:
    assert await collector.answer(body, content_type) == status


async def test_it_knows_a_good_configuration_from_a_bad_one(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(CONFIG % 4318)
    bad.write_text((CONFIG % 4318).replace("[debug]", "[nowhere]"))
    assert ended(program(), "validate", "--config", str(good)).returncode == 0
    refused = ended(program(), "validate", "--config", str(bad))
    assert refused.returncode == 1
    assert "nowhere" in said(refused)


@pytest.mark.kafka
async def test_it_has_one_tree_of_one_event_of_a_worker(
    collector: RealCollector, kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path
) -> None:
    trace_id, publisher = secrets.token_hex(16), secrets.token_hex(8)
    event = VaultEvent.new(VaultEventType.DATASET_CREATED, "/vault", {"dataset_id": "ds-1", "name": "a"})
    event = event.with_extension("traceparent", f"00-{trace_id}-{publisher}-01")
    async with Deployment(kafka.bootstrap, unique("app"), tmp_path) as deployment:
        deployment.settings["TRACING__ENDPOINT"] = collector.endpoint
        await deployment.start("w1")
        hook = await deployment.hook("*")
        await deployment.publish([event])
        await deployment.observed(lambda: hook.expected([event]) <= hook.receiver.accepted, "it is delivered")
        await deployment.idle()
        assert await deployment.stop() == [0]
        topics = deployment.topics

    def names() -> list[str]:
        return sorted(span.name for span in collector.spans if span.trace_id == trace_id)

    sent = [f"send {topic}" for topic in (topics.deliveries, topics.audit, topics.registry_datasets)]
    # The attempt, and the push to the registry.
    calls = ["POST", "POST"]

    async def all_printed() -> bool:
        return len(names()) >= 1 + len(sent) + len(calls)

    await until(all_printed, "all spans are printed")
    root = root_of([span for span in collector.spans if span.trace_id == trace_id], publisher)
    assert root.attributes["cloudevents.event_id"] == event.id
    assert names() == sorted([root.name, *sent, *calls])
