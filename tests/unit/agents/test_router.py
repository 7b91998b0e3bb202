import asyncio
from collections.abc import Iterable
from typing import Any

import orjson
import pytest

from agents.router import route_handler, router_agent
from app.engine import Record, Slice, Table
from app.events import (
    AUDIT_RECORDED,
    STRUCTURED_HEADERS,
    AdminEventType,
    CloudEvent,
    OperatorEventType,
    VaultEventType,
    decode_derived,
    delivery_id,
    new_event,
)
from app.observability import metrics
from app.topics import Topics
from tests.support.memory_unit import MemoryUnit, Sent, record

TOPICS = Topics("vault", "vault-stream")
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TIMESTAMP_MS = 1767323045678
ACCESS = {"principal_id": "p-1", "resource_id": "r-1", "action": "read"}
VIOLATION = {"policy_id": "pol-1", "resource_id": "r-1", "principal_id": "p-1"}


class Webhooks:
    """Matches every event with the webhooks that it was given, and remembers what it was asked."""

    def __init__(self, *ids: str) -> None:
        self.ids = ids
        self.asked: list[str] = []

    def match(self, event: CloudEvent) -> Iterable[str]:
        self.asked.append(event.type)
        return self.ids


def event(type_: str, data: Any, **changes: Any) -> CloudEvent:
    return new_event(**{"id": "e-1", "source": "/vault", "type": type_, "data": data, **changes})


def of(posted: bytes | None, *, offset: int = 7, **changes: Any) -> Record:
    where = {"topic": "vault.events", "partition": 3, "offset": offset, "timestamp": TIMESTAMP_MS, **changes}
    return record(posted, **where)


async def route(*records: Record, webhooks: Webhooks | None = None) -> MemoryUnit:
    unit = MemoryUnit()
    await route_handler(TOPICS, webhooks or Webhooks())(Slice(0, list(records)), unit.unit)
    return unit


def to(unit: MemoryUnit, topic: str) -> list[Sent]:
    return [sent for sent in unit.sent if sent.topic == topic]


DELETED = event(VaultEventType.DATASET_DELETED, {"dataset_id": "ds-1"}, extensions={"traceparent": TRACE})


async def test_each_matching_webhook_gets_one_intent_with_the_bytes_to_post() -> None:
    unit = await route(of(DELETED.posted), webhooks=Webhooks("wh_a", "wh_b"))
    first, second = to(unit, TOPICS.deliveries)
    assert (first.key, second.key) == (b"wh_a", b"wh_b")
    assert first.value == second.value == DELETED.posted
    assert dict(first.headers) == {
        "vs-delivery-id": delivery_id("wh_a", "/vault", "e-1").encode(),
        "vs-webhook-id": b"wh_a",
        "vs-reason": b"event",
        "vs-origin": b"vault.events/3/7",
        "traceparent": TRACE.encode(),
    }


async def test_the_same_record_routed_twice_makes_the_same_outputs() -> None:
    webhooks = Webhooks("wh_a")
    assert (await route(of(DELETED.posted), webhooks=webhooks)).sent == (
        await route(of(DELETED.posted), webhooks=webhooks)
    ).sent


async def test_a_binary_record_is_posted_in_its_structured_form() -> None:
    headers = [
        ("content-type", b"application/json"),
        ("ce_specversion", b"1.0"),
        ("ce_id", b"e-1"),
        ("ce_source", b"/vault"),
        ("ce_type", b"llm.data-vault.dataset.deleted"),
    ]
    unit = await route(of(b'{ "dataset_id": "ds-1" }', headers=headers), webhooks=Webhooks("wh_a"))
    (intent,) = to(unit, TOPICS.deliveries)
    assert intent.value == (
        b'{"specversion":"1.0","id":"e-1","source":"/vault","type":"llm.data-vault.dataset.deleted",'
        b'"datacontenttype":"application/json","data":{ "dataset_id": "ds-1" }}'
    )


async def test_every_event_has_one_audit_record_under_its_own_source_and_id() -> None:
    unit = await route(of(DELETED.posted))
    (sent,) = to(unit, TOPICS.audit)
    assert sent.key == b"ds-1"
    assert tuple(sent.headers) == STRUCTURED_HEADERS
    audit = decode_derived(sent.value)
    assert (audit.type, audit.source, audit.id) == ("llm.vault-stream.audit.recorded", "/vault", "e-1")
    assert (audit.subject, audit.time) == ("ds-1", "2026-01-02T03:04:05.678Z")
    assert audit.extensions == {"traceparent": TRACE}
    assert (audit.data["id"], audit.data["action"]) == ("e-1", "delete")
    assert not {"partition", "sequence", "recorded_at", "previous_hash", "hash"} & audit.data.keys()


@pytest.mark.parametrize("type_", [*AdminEventType, AUDIT_RECORDED])
async def test_what_is_delivered_to_nobody_is_audited_and_not_even_matched(type_: str) -> None:
    webhooks = Webhooks("wh_a")
    unit = await route(of(event(str(type_), {"webhook_id": "wh_x"}).posted), webhooks=webhooks)
    assert [sent.topic for sent in unit.sent] == [TOPICS.audit]
    assert webhooks.asked == []


@pytest.mark.parametrize("type_", [OperatorEventType.WEBHOOK_FAILING, OperatorEventType.WEBHOOK_DISABLED])
async def test_an_operator_event_is_matched_and_audited(type_: OperatorEventType) -> None:
    unit = await route(of(event(type_, {"webhook_id": "wh_x"}).posted), webhooks=Webhooks("wh_a"))
    assert [sent.topic for sent in unit.sent] == [TOPICS.deliveries, TOPICS.audit]


async def test_a_policy_violation_is_to_be_reported() -> None:
    posted = event(VaultEventType.POLICY_VIOLATION, VIOLATION, extensions={"correlationid": "c-1"}).posted
    (sent,) = to(await route(of(posted)), TOPICS.violations)
    assert sent.key == b"r-1"
    report = decode_derived(sent.value)
    assert (report.type, report.source, report.id) == ("llm.vault-stream.violation.raised", "/vault", "e-1")
    assert report.extensions == {"correlationid": "c-1"}
    assert (report.data["violation_id"], report.data["severity"]) == ("e-1", "medium")
    assert report.data["occurred_at"] == "2026-01-02T03:04:05.678Z"


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        (VaultEventType.ACCESS_GRANTED, ACCESS),
        (VaultEventType.ACCESS_REVOKED, ACCESS),
        (VaultEventType.POLICY_VIOLATION, VIOLATION),
        (VaultEventType.ACCESS_REVOKED, {"subject_id": "p-1", "resource_id": "r-1", "action": "read"}),
    ],
)
async def test_a_change_of_permission_invalidates_principal_and_resource(
    type_: VaultEventType, data: dict[str, Any]
) -> None:
    sent = to(await route(of(event(type_, data).posted)), TOPICS.invalidations)
    assert [found.key for found in sent] == [b"p:p-1", b"r:r-1"]
    assert orjson.loads(sent[0].value or b"") == {"event_type": type_, "event_source": "/vault", "event_id": "e-1"}


async def test_a_violation_without_a_principal_invalidates_the_resource_alone() -> None:
    posted = event(VaultEventType.POLICY_VIOLATION, {"policy_id": "x", "resource_id": "r-1"}).posted
    assert [sent.key for sent in to(await route(of(posted)), TOPICS.invalidations)] == [b"r:r-1"]


async def test_a_denied_access_invalidates_nothing() -> None:
    assert to(await route(of(event(VaultEventType.ACCESS_DENIED, ACCESS).posted)), TOPICS.invalidations) == []


REGISTERED = [type_ for type_ in VaultEventType if type_.split(".")[2] in {"dataset", "version", "branch", "records"}]
FULL = {
    "dataset_id": "ds-1", "name": "n", "version_id": "v", "tag": "t", "branch": "b", "source_branch": "a",
    "target_branch": "b", "record_count": 1, "job_id": "j", "pii_types": [], "policy_id": "p", "framework": "f",
    "severity": "s", "message": "m", "component": "c", **ACCESS,
}  # fmt: skip


@pytest.mark.parametrize("type_", VaultEventType)
async def test_events_of_datasets_versions_branches_and_records_go_to_the_registry(type_: VaultEventType) -> None:
    came = event(type_, FULL)
    sent = to(await route(of(came.posted)), TOPICS.registry_datasets)
    if type_ in REGISTERED:
        assert [(found.key, found.value) for found in sent] == [(b"ds-1", came.posted)]
        assert sent[0].header("vs-timestamp") == b"1767323045678"
    else:
        assert sent == []


@pytest.mark.parametrize(
    ("posted", "reason"),
    [
        (None, "invalid_envelope"),
        (b"{", "invalid_envelope"),
        (event(VaultEventType.DATASET_DELETED, {}).posted, "invalid_data"),
        (event("com.example.other", {}).posted, "unknown_type"),
        (b"x" * 300_000, "too_large"),
    ],
)
async def test_what_is_no_event_goes_to_quarantine_and_its_neighbours_are_routed(
    posted: bytes | None, reason: str
) -> None:
    bad = of(posted, offset=8)
    unit = await route(of(DELETED.posted), bad, of(DELETED.posted, offset=9), webhooks=Webhooks("wh_a"))
    (found,) = unit.quarantined
    assert (found.record, found.reason) == (bad, reason)
    assert found.detail
    origins = [sent.header("vs-origin") for sent in to(unit, TOPICS.deliveries)]
    assert origins == [b"vault.events/3/7", b"vault.events/3/9"]
    assert len(to(unit, TOPICS.audit)) == 2


def consumed(type_: str, outcome: str) -> float:
    labels = {"type": type_, "outcome": outcome}
    return metrics.REGISTRY.get_sample_value("vault_stream_events_consumed_total", labels) or 0


@pytest.mark.parametrize("timestamp", [TIMESTAMP_MS * 1000, -(10**15)])
async def test_a_record_whose_timestamp_no_calendar_has_is_no_event(timestamp: int) -> None:
    unit = await route(of(DELETED.posted, timestamp=timestamp))

    assert [(put.reason, put.record.timestamp) for put in unit.quarantined] == [("invalid_envelope", timestamp)]
    assert unit.sent == []


async def test_events_are_counted_by_a_closed_list_of_types_and_by_outcome() -> None:
    keys = [(DELETED.type, "routed"), ("unknown", "unknown_type"), ("unknown", "invalid_envelope")]
    keys.append((DELETED.type, "invalid_data"))
    before = [consumed(*key) for key in keys]
    empty = event(VaultEventType.DATASET_DELETED, {})
    other = event("com.example.other", {})
    unit = await route(of(DELETED.posted), of(DELETED.posted), of(other.posted), of(b"{"), of(empty.posted))
    assert [consumed(*key) for key in keys] == before, "a slice that is run again would be counted twice"
    unit.done()
    assert [consumed(*key) - was for key, was in zip(keys, before, strict=True)] == [2, 1, 1, 1]
    assert consumed("com.example.other", "unknown_type") == 0


async def test_a_long_slice_lets_others_run_every_32_records() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await route(*(of(DELETED.posted, offset=offset) for offset in range(256)))
    task.cancel()
    assert turns == 256 // 32


def test_the_agent_reads_all_vault_topics_and_keeps_its_positions_in_its_home() -> None:
    home = Table("positions", prefix=1, row=CloudEvent)
    agent = router_agent(TOPICS, Webhooks(), home)
    assert (agent.name, len(agent.topics)) == ("router", 23)
    assert agent.home is home
    assert agent.tables == (home,)


async def test_a_failure_of_figures_or_traces_is_logged_once_and_does_not_stop_the_router(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("a figure that cannot be")

    monkeypatch.setattr("agents.router._consumed", fail)
    handler = route_handler(TOPICS, Webhooks())
    for offset in (1, 2):
        unit = MemoryUnit()
        await handler(Slice(0, [of(DELETED.posted, offset=offset)]), unit.unit)
        unit.done()
        assert to(unit, TOPICS.audit)
    assert [message.levelname for message in caplog.records if message.name == "agents.router"] == ["ERROR"]
