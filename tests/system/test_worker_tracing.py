"""Traces of real workers on a real broker, as a collector sees them."""

from __future__ import annotations

import secrets
from collections import defaultdict
from itertools import count

import pytest

from app.devstack.kafka import free_port
from app.events import VaultEventType, partition_for
from app.publishing import VaultEvent
from tests.support.collector import Collector
from tests.support.trace_tree import root_of, workers_of
from tests.support.workers import Deployment, until

pytestmark = pytest.mark.kafka

NUMBERS = 4
PRINCIPAL = "principal-whose-name-is-nobodys-business"


def traced(type_: VaultEventType, **data: str) -> VaultEvent:
    """With the context of whoever publishes it."""
    context = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    return VaultEvent.new(type_, "/vault", data).with_extension("traceparent", context)


def dataset_of(number: int) -> str:
    """A dataset whose events are of that number."""
    return next(f"ds-{i}" for i in count() if partition_for(f"ds-{i}".encode(), NUMBERS) == number)


def events_of_all_numbers() -> list[VaultEvent]:
    datasets = [dataset_of(number) for number in range(NUMBERS)]
    created = [traced(VaultEventType.DATASET_CREATED, dataset_id=one, name=one) for one in datasets]
    violation = traced(
        VaultEventType.POLICY_VIOLATION, policy_id="pol-1", resource_id=datasets[0], principal_id=PRINCIPAL
    )
    return [*created, violation]


class Heard:
    """What receivers and upstreams were sent as `traceparent`, by what they are."""

    def __init__(self) -> None:
        self.contexts: defaultdict[str, set[str]] = defaultdict(set)

    def tap(self, who: str, sent: bytes) -> None:
        for line in sent.partition(b"\n\n")[0].splitlines():
            name, _, value = line.partition(b": ")
            if name.lower() == b"traceparent":
                self.contexts[who].add(value.decode())


async def test_one_vault_event_is_one_tree_over_two_workers_and_is_sent_by_the_end(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only their end sends anything.
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    heard, events = Heard(), events_of_all_numbers()
    topics, ups = deployment.topics, deployment.upstreams
    with Collector() as collector:
        deployment.settings["TRACING__ENDPOINT"] = collector.endpoint
        await deployment.start("w1", "w2")
        hook = await deployment.hook("*", "flaky")
        for who, standin in {"receiver": hook.receiver, "policy": ups.policy, "registry": ups.registry}.items():
            standin.tap = lambda _, sent, who=who: heard.tap(who, sent)
        ups.dashboard.tap = lambda _, sent: heard.tap("dashboard", sent)
        await deployment.publish(events)
        expected = hook.expected(events)
        await deployment.observed(lambda: expected <= hook.receiver.accepted, "all are delivered")
        await deployment.observed(
            lambda: len(heard.contexts["registry"]) >= NUMBERS and heard.contexts["policy"] != set(), "all is told"
        )
        await deployment.idle()
        assert collector.spans == []
        assert await deployment.stop() == [0, 0]

    spans, crossed = collector.spans, False
    batches = collector.named(f"process {topics.audit}")
    linked = {link for batch in batches for link in batch.links}
    for event in events:
        _, trace_id, publisher, _ = str(event.extensions["traceparent"]).split("-")
        tree = [span for span in spans if span.trace_id == trace_id]
        root = root_of(tree, publisher)
        assert (root.name.split()[0], root.attributes["cloudevents.event_id"]) == ("process", event.id)
        named = {span.name: span for span in tree}
        attempts = [span for span in tree if span.parent_id == named[f"send {topics.deliveries}"].span_id]
        assert sorted(span.attributes.get("http.request.resend_count", 0) for span in attempts) == [0, 1, 2]
        assert [span.failed for span in attempts].count(False) == 1
        assert {span.traceparent for span in attempts} <= heard.contexts["receiver"]
        assert (trace_id, named[f"send {topics.audit}"].span_id) in linked
        if event.type == VaultEventType.DATASET_CREATED:
            told, who = named[f"send {topics.registry_datasets}"], "registry"
        else:
            told, who = named[f"send {topics.violations}"], "policy"
        # One, unless the machine was too busy to answer in time.
        calls = [span for span in tree if span.parent_id == told.span_id]
        assert {(call.kind, call.name) for call in calls} == {("client", "POST")}
        assert {call.traceparent for call in calls if not call.failed} & heard.contexts[who]
        crossed = crossed or workers_of(tree) == {"w1", "w2"}
    assert crossed, "no event was routed by one worker and delivered by the other"

    for batch in batches:
        (request,) = [span for span in spans if span.parent_id == batch.span_id]
        assert (request.kind, request.traceparent in heard.contexts["dashboard"]) == ("client", True)
    assert all(span.resource["service.name"] == "vault-stream" for span in spans)
    # Nobody's name, and nothing of the path that a receiver may keep for a secret.
    sent = b"".join(collector.bodies)
    assert PRINCIPAL.encode() not in sent
    assert b"/hook" not in sent


@pytest.mark.prove
async def test_without_a_collector_events_go_on_and_a_count_says_what_is_lost(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    deployment.settings["TRACING__ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
    (worker,) = await deployment.start("w1")
    hook = await deployment.hook("*")
    events = events_of_all_numbers()
    await deployment.publish(events)
    await deployment.observed(lambda: hook.expected(events) <= hook.receiver.accepted, "all are delivered")

    async def lost() -> bool:
        return await worker.metric("vault_stream_spans_total", outcome="failed") > 0

    await until(lost, "what is lost is counted")
    await deployment.idle()
    assert await deployment.stop() == [0]
    assert worker.log.read_text().count("spans cannot be exported") == 1
