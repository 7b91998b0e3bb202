"""The trace of an event through the agents: what each makes of it, and what it hands on."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from opentelemetry.trace import SpanKind, StatusCode

from agents.governance import GovernanceOptions, governance_agent
from agents.registry import registry_agent
from agents.router import route_handler
from agents.violations import violations_agent
from app.engine import Processor, Record, Slice
from app.events import STRUCTURED_HEADERS, CloudEvent, VaultEventType, decode_derived, new_event
from app.integrations.governance import Flush
from app.topics import Topics
from tables.datasets import DATASETS, dataset_key
from tests.support.audit_records import audit_value
from tests.support.memory_unit import START_MS, MemoryContext, MemoryUnit, Sent, record
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.spans import (
    PARENT,
    PARENT_ID,
    TRACE_ID,
    UNSAMPLED,
    Spans,
    attributes,
    parent_id,
    traceparent_of_span,
)

TOPICS = Topics("vault", "vault-stream")
START = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"


class Webhooks:
    def match(self, event: CloudEvent) -> tuple[str, ...]:
        return ("wh_a", "wh_b")


def vault_record(type_: str = VaultEventType.DATASET_DELETED, *, hop: str | None = None, **changes: Any) -> Record:
    data = {"dataset_id": "ds-1", "policy_id": "pol-1", "resource_id": "r-1", "principal_id": "p-1"}
    event = new_event(**{"id": "e-1", "source": "/vault", "type": str(type_), "data": data, **changes})
    headers = [] if hop is None else [("traceparent", hop.encode())]
    return record(event.posted, topic="vault.events", partition=3, offset=7, headers=headers)


async def route(one: Record, spans: Spans | None) -> MemoryUnit:
    unit = MemoryUnit()
    handler = route_handler(TOPICS, Webhooks(), None if spans is None else spans.messages)
    await handler(Slice(0, [one]), unit.unit)
    return unit


def sent_to(unit: MemoryUnit, topic: str) -> list[Sent]:
    return [sent for sent in unit.sent if sent.topic == topic]


async def test_what_an_event_becomes_follows_from_its_sending_and_that_from_the_event() -> None:
    spans = Spans()
    unit = await route(vault_record(VaultEventType.POLICY_VIOLATION, hop=PARENT), spans)
    assert spans.ended == []
    unit.done()
    process = spans.named("process vault.events")
    assert (process.kind, parent_id(process)) == (SpanKind.CONSUMER, PARENT_ID)
    assert process.context is not None
    for topic, count in ((TOPICS.deliveries, 2), (TOPICS.audit, 1), (TOPICS.violations, 1)):
        send = spans.named(f"send {topic}")
        assert (send.kind, parent_id(send)) == (SpanKind.PRODUCER, process.context.span_id)
        assert attributes(send).get("messaging.batch.message_count", 1) == count
        records = sent_to(unit, topic)
        assert len(records) == count
        assert {one.header("traceparent") for one in records} == {traceparent_of_span(send).encode()}


async def test_a_dataset_goes_to_the_registry_with_its_trace() -> None:
    spans = Spans()
    unit = await route(vault_record(hop=PARENT), spans)
    unit.done()
    (sent,) = sent_to(unit, TOPICS.registry_datasets)
    assert sent.header("traceparent") == traceparent_of_span(spans.named(f"send {TOPICS.registry_datasets}")).encode()


async def test_the_header_is_the_parent_and_the_extension_stays_where_the_trace_began() -> None:
    spans = Spans()
    unit = await route(vault_record(hop=PARENT, extensions={"traceparent": START}), spans)
    unit.done()
    assert parent_id(spans.named("process vault.events")) == PARENT_ID
    (audit,) = sent_to(unit, TOPICS.audit)
    assert decode_derived(audit.value).extensions == {"traceparent": START}


async def test_values_are_the_same_with_and_without_tracing() -> None:
    one = vault_record(VaultEventType.POLICY_VIOLATION, extensions={"traceparent": PARENT})
    plain, traced = await route(one, None), await route(one, Spans())
    assert [(sent.topic, sent.key, sent.value) for sent in plain.sent] == [
        (sent.topic, sent.key, sent.value) for sent in traced.sent
    ]


@pytest.mark.parametrize("spans", [None, Spans(), Spans(0.0)])
async def test_what_is_not_kept_is_handed_on_as_it_came(spans: Spans | None) -> None:
    unit = await route(vault_record(hop=UNSAMPLED), spans)
    unit.done()
    assert {sent.header("traceparent") for sent in sent_to(unit, TOPICS.deliveries)} == {UNSAMPLED.encode()}
    (audit,) = sent_to(unit, TOPICS.audit)
    assert tuple(audit.headers) == STRUCTURED_HEADERS
    assert spans is None or spans.ended == []


async def test_without_tracing_the_header_of_a_record_is_handed_on() -> None:
    unit = await route(vault_record(hop=PARENT, extensions={"traceparent": START}), None)
    assert {sent.header("traceparent") for sent in sent_to(unit, TOPICS.deliveries)} == {PARENT.encode()}


async def test_a_trace_may_begin_with_an_event_that_has_none() -> None:
    spans, never = Spans(), Spans(0.0)
    unit = await route(vault_record(), spans)
    unit.done()
    process = spans.named("process vault.events")
    assert process.parent is None
    (audit,) = sent_to(unit, TOPICS.audit)
    assert audit.header("traceparent") is not None
    (untraced,) = sent_to(await route(vault_record(), never), TOPICS.audit)
    assert untraced.header("traceparent") is None


async def test_an_event_that_is_none_has_a_span_that_says_why() -> None:
    spans = Spans()
    unit = await route(record(b"junk", topic="vault.events", headers=[("traceparent", PARENT.encode())]), spans)
    unit.done()
    process = spans.named("process vault.events")
    assert (parent_id(process), process.status.status_code) == (PARENT_ID, StatusCode.ERROR)
    assert attributes(process)["error.type"] == unit.quarantined[0].reason


async def test_a_unit_that_fails_leaves_no_span_behind() -> None:
    spans = Spans()
    await route(vault_record(hop=PARENT), spans)
    assert spans.ended == []


# -- governance


async def deliver(processor: Processor, context: MemoryContext, *records: Record) -> None:
    await context.deliver(processor, *records)
    await context.settle(processor)


def audit(offset: int, hop: str | None) -> Record:
    headers = [*STRUCTURED_HEADERS, *([] if hop is None else [("traceparent", hop.encode())])]
    return record(audit_value(offset), topic=TOPICS.audit, offset=offset, timestamp=START_MS, headers=headers)


async def batch_of(*hops: str | None, spans: Spans | None, status: int = 200) -> ScriptedUpstream:
    dashboard, context = ScriptedUpstream(judge=lambda _: status), MemoryContext()
    options = GovernanceOptions(flush=Flush(size=len(hops), limit_bytes=100_000, interval_s=5.0))
    messages = None if spans is None else spans.messages
    processor = governance_agent(TOPICS, dashboard, options, jitter=lambda: 1.0, traces=messages).processor(context)
    await context.open(processor)
    await deliver(processor, context, *(audit(offset, hop) for offset, hop in enumerate(hops)))
    await context.close(processor)
    return dashboard


async def test_an_audit_batch_is_linked_with_its_events_and_the_parent_of_its_request() -> None:
    spans = Spans()
    dashboard = await batch_of(PARENT, None, UNSAMPLED, START, spans=spans)
    batch = spans.named(f"process {TOPICS.audit}")
    assert (batch.kind, batch.parent) == (SpanKind.CONSUMER, None)
    assert [link.context.span_id for link in batch.links] == [PARENT_ID, int(START[36:52], 16)]
    assert {link.context.trace_id for link in batch.links} == {TRACE_ID}
    assert attributes(batch)["messaging.batch.message_count"] == 4
    (call,) = dashboard.calls
    assert call.headers["traceparent"] == traceparent_of_span(batch)


async def test_a_batch_of_which_nothing_is_kept_has_no_span() -> None:
    spans = Spans()
    for one in (spans, None):
        (call,) = (await batch_of(None, UNSAMPLED, spans=one)).calls
        assert "traceparent" not in call.headers
    assert spans.ended == []


async def test_a_dashboard_that_does_not_answer_is_an_error_of_the_batch() -> None:
    spans = Spans()
    await batch_of(PARENT, spans=spans, status=503)
    batch = spans.named(f"process {TOPICS.audit}")
    assert (attributes(batch)["error.type"], batch.status.status_code) == ("503", StatusCode.ERROR)


# -- violations and registry: their upstreams make the spans, and follow from what the agents hand them


async def test_a_report_follows_from_the_last_hop() -> None:
    engine, context = ScriptedUpstream(), MemoryContext()
    processor = violations_agent(TOPICS, engine, jitter=lambda: 1.0).processor(context)
    await context.open(processor)
    unit = await route(vault_record(VaultEventType.POLICY_VIOLATION, extensions={"traceparent": START}), None)
    (raised,) = sent_to(unit, TOPICS.violations)
    headers = [*raised.headers, ("traceparent", PARENT.encode())]
    await deliver(processor, context, record(raised.value, topic=TOPICS.violations, headers=headers))
    (call,) = engine.calls
    assert call.headers["traceparent"] == PARENT
    await context.close(processor)


async def push(context: MemoryContext, *hops: str | None) -> ScriptedUpstream:
    registry = ScriptedUpstream(body=lambda _: b'{"id":"reg-1"}')
    processor = registry_agent(TOPICS, registry, jitter=lambda: 1.0).processor(context)
    await context.open(processor)
    events = [
        new_event(
            id=f"e-{number}",
            source="/vault",
            type=str(VaultEventType.DATASET_CREATED if number == 0 else VaultEventType.DATASET_UPDATED),
            data={"dataset_id": "ds-1", "name": f"name-{number}"},
        )
        for number in range(len(hops))
    ]
    records = [
        record(
            event.posted,
            topic=TOPICS.registry_datasets,
            offset=offset,
            timestamp=START_MS + offset,
            headers=[] if hop is None else [("traceparent", hop.encode())],
        )
        for offset, (event, hop) in enumerate(zip(events, hops, strict=True))
    ]
    await deliver(processor, context, *records)
    await context.close(processor)
    return registry


async def test_a_push_follows_from_the_last_event_that_changed_what_is_told() -> None:
    context = MemoryContext()
    (call,) = (await push(context, START, PARENT)).calls
    assert call.headers["traceparent"] == PARENT
    assert orjson.loads(call.body)["name"] == "name-1"
    (change,) = context.sent_to(TOPICS.registry_changes)
    assert change.header("traceparent") == PARENT.encode()
    # What the registry has is nobody's errand any more.
    row = context.rows.get(DATASETS, dataset_key("ds-1"))
    assert row is not None
    assert (row.pushed, row.traceparent) == (row.version, None)


@pytest.mark.parametrize("last", [None, UNSAMPLED])
async def test_a_push_of_an_event_whose_trace_is_not_kept_follows_from_none(last: str | None) -> None:
    context = MemoryContext()
    (call,) = (await push(context, PARENT, last)).calls
    assert "traceparent" not in call.headers
    row = context.rows.get(DATASETS, dataset_key("ds-1"))
    assert row is not None
    assert row.traceparent is None
