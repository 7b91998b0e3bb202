from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import orjson
import pytest

from agents.governance import GovernanceOptions, governance_agent
from app.engine import Record
from app.integrations.chain import GENESIS
from app.integrations.governance import Flush
from app.integrations.verification import TopicCheck
from app.observability import metrics
from app.topics import Topics
from tables.audit import AUDIT, batch_key, head_key
from tests.support.agent_scene import AgentScene
from tests.support.audit_records import audit_value
from tests.support.memory_unit import START_MS, MemoryContext, MemoryRows, record
from tests.support.scripted_upstream import ScriptedUpstream

TOPICS = Topics("vault", "vs")
OPTIONS = GovernanceOptions(flush=Flush(size=3, limit_bytes=100_000, interval_s=5.0))


@dataclass
class Scene(AgentScene):
    """One worker at a time; `restart` is a crash, or a move to another worker."""

    dashboard: ScriptedUpstream = field(default_factory=ScriptedUpstream)

    async def start(self) -> None:
        agent = governance_agent(TOPICS, self.dashboard, OPTIONS, jitter=lambda: 1.0)
        self.processor = agent.processor(self.context)
        await self.context.open(self.processor)

    async def restart(self, rows: MemoryRows | None = None) -> None:
        await self.context.close(self.processor)
        self.context = MemoryContext(rows=rows or self.context.rows, clock=self.context.clock)
        await self.start()

    def unfinished(self) -> list[int]:
        return [record.offset for record in self.context.unfinished]

    def ranges(self) -> list[tuple[int, int]]:
        return [
            (int(call.headers["X-Batch-First-Offset"]), int(call.headers["X-Batch-Last-Offset"]))
            for call in self.dashboard.calls
        ]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    await scene.start()
    yield scene
    await scene.context.close(scene.processor)


def audits(*offsets: int, at_ms: int = START_MS, partition: int = 0) -> list[Record]:
    return [
        record(audit_value(offset), topic=TOPICS.audit, partition=partition, offset=offset, timestamp=at_ms)
        for offset in offsets
    ]


def outcome_count(outcome: str) -> float:
    return metrics.REGISTRY.get_sample_value("vault_stream_audit_batches_total", {"outcome": outcome}) or 0.0


async def test_a_full_batch_is_posted_and_its_records_are_done(scene: Scene) -> None:
    await scene.deliver(*audits(0, 1, 2))
    (call,) = scene.dashboard.calls
    entries = orjson.loads(call.body)
    assert (call.method, call.path) == ("POST", "/api/v1/audit/events/batch")
    assert call.key == f"{entries[0]['hash'][:12]}-0-0-2"
    assert [entry["sequence"] for entry in entries] == [0, 1, 2]
    assert entries[0]["previous_hash"] == GENESIS
    assert [entries[1]["previous_hash"], entries[2]["previous_hash"]] == [entries[0]["hash"], entries[1]["hash"]]
    assert scene.unfinished() == []


async def test_a_batch_is_in_the_changelog_before_it_is_posted(scene: Scene) -> None:
    rows_at_post: list[bool] = []

    def judge(_: object) -> int:
        assert scene.context.checkpoints > 0
        rows_at_post.append(scene.context.rows.get(AUDIT, batch_key(0, 0)) is not None)
        return 200

    scene.dashboard.judge = judge
    await scene.deliver(*audits(0, 1, 2))
    assert rows_at_post == [True]


async def test_an_incomplete_batch_leaves_when_its_first_record_has_its_age(scene: Scene) -> None:
    await scene.deliver(*audits(0))
    await scene.advance(4.9)
    assert scene.dashboard.calls == []
    await scene.advance(0.2)
    assert scene.ranges() == [(0, 0)]


async def test_records_that_are_old_already_leave_at_once(scene: Scene) -> None:
    await scene.deliver(*audits(0, at_ms=START_MS - 10_000))
    assert scene.ranges() == [(0, 0)]


async def test_a_record_from_the_future_waits_no_longer_than_the_interval(scene: Scene) -> None:
    await scene.deliver(*audits(0, at_ms=START_MS + 3_600_000))
    await scene.advance(5.1)
    assert scene.ranges() == [(0, 0)]


async def test_one_batch_of_a_partition_is_under_way_at_a_time_and_they_go_in_order(scene: Scene) -> None:
    scene.dashboard.gate.clear()
    await scene.deliver(*audits(*range(8)))
    assert scene.ranges() == [(0, 2)]
    scene.dashboard.gate.set()
    await scene.advance(6)
    assert scene.ranges() == [(0, 2), (3, 5), (6, 7)]
    assert scene.dashboard.most_under_way == 1
    assert scene.unfinished() == []


async def test_partitions_do_not_wait_for_each_other(scene: Scene) -> None:
    scene.dashboard.gate.clear()
    await scene.deliver(*audits(0, 1, 2), *audits(0, 1, 2, partition=12))
    assert scene.dashboard.under_way == 2


async def test_a_repeat_that_the_dashboard_knows_is_accepted(scene: Scene) -> None:
    before = outcome_count("duplicate")
    scene.dashboard.script = deque([409])
    await scene.deliver(*audits(0, 1, 2))
    assert scene.unfinished() == []
    assert outcome_count("duplicate") == before + 1


@pytest.mark.parametrize("status", [None, 401, 403, 404, 415, 429, 500, 503])
async def test_a_dashboard_that_does_not_take_it_costs_lag_and_nothing_else(scene: Scene, status: int | None) -> None:
    scene.dashboard.judge = lambda _: status
    await scene.deliver(*audits(0, 1, 2, 3))
    for _ in range(20):
        await scene.advance(60)
    assert len(scene.dashboard.calls) > 10
    assert {(call.key, call.body) for call in scene.dashboard.calls} == {
        (scene.dashboard.calls[0].key, scene.dashboard.calls[0].body)
    }
    assert scene.unfinished() == [0, 1, 2, 3]
    assert scene.context.quarantined == []
    scene.dashboard.judge = lambda _: 200
    await scene.advance(61)
    assert scene.unfinished() == []


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (200, "text/html; charset=utf-8", b"<html>Please log in</html>"),
        (202, "text/html", b"\x1f\x8bcompressed"),
        (200, "text/plain", b"\n<!DOCTYPE html><title>Please log in</title>"),
        (206, "application/json", b"{}"),
        (207, "application/json", b"{}"),
    ],
)
async def test_a_login_page_and_a_part_of_a_success_are_no_acceptance(
    scene: Scene, status: int, content_type: str, body: bytes
) -> None:
    scene.dashboard.judge, scene.dashboard.body, scene.dashboard.content_type = (
        lambda _: status,
        lambda _: body,
        content_type,
    )
    await scene.deliver(*audits(0, 1, 2))
    assert scene.unfinished() == [0, 1, 2]
    scene.dashboard.judge, scene.dashboard.body, scene.dashboard.content_type = (
        lambda _: 204,
        lambda _: b"",
        "text/html",
    )
    await scene.advance(61)
    assert scene.unfinished() == []
    assert len({(call.key, call.body) for call in scene.dashboard.calls}) == 1


async def test_the_back_off_grows_and_honours_retry_after(scene: Scene) -> None:
    scene.dashboard.judge = lambda _: 503
    scene.dashboard.retry_after_s = 30.0
    await scene.deliver(*audits(0, 1, 2))
    await scene.advance(29.0)
    assert len(scene.dashboard.calls) == 1
    await scene.advance(1.1)
    assert len(scene.dashboard.calls) == 2


async def test_a_batch_that_is_too_large_goes_in_halves_and_each_split_is_logged_first(scene: Scene) -> None:
    def judge(call: object) -> int:
        row = scene.context.rows.get(AUDIT, batch_key(0, 0))
        assert row is not None
        assert row.batch is not None
        checkpoints.append((scene.context.checkpoints, dict(row.batch.parts)))
        return 413 if len(orjson.loads(call.body)) > 1 else 200  # type: ignore[attr-defined]

    checkpoints: list[tuple[int, dict[str, str]]] = []
    scene.dashboard.judge = judge
    await scene.deliver(*audits(0, 1, 2))
    whole = scene.dashboard.calls[0].key
    assert [call.key for call in scene.dashboard.calls] == [
        whole,
        f"{whole}.0",
        f"{whole}.0.0",
        f"{whole}.0.1",
        f"{whole}.1",
    ]
    assert scene.ranges() == [(0, 2), (0, 1), (0, 0), (1, 1), (2, 2)]
    assert checkpoints[1] == (2, {"": "split"})
    assert scene.unfinished() == []
    assert scene.context.quarantined == []


@pytest.mark.parametrize("status", [400, 422])
async def test_a_poisoned_record_is_isolated_and_put_aside_while_the_chain_keeps_its_entry(
    scene: Scene, status: int
) -> None:
    scene.dashboard.judge = lambda call: status if b'"sequence":1' in call.body else 200
    await scene.deliver(*audits(0, 1, 2))
    await scene.deliver(*audits(3, 4, 5))
    (poison,) = scene.context.quarantined
    assert (poison.record.offset, poison.reason) == (1, "rejected_upstream")
    assert str(status) in poison.detail
    assert scene.unfinished() == []
    accepted = [call for call in scene.dashboard.calls if b'"sequence":1' not in call.body]
    assert [entry["sequence"] for call in accepted for entry in orjson.loads(call.body)] == [0, 2, 3, 4, 5]
    whole = orjson.loads(scene.dashboard.calls[0].body)
    assert orjson.loads(accepted[-1].body)[0]["previous_hash"] == whole[2]["hash"]


async def test_after_a_crash_exactly_the_sealed_range_goes_out_again_under_its_id(scene: Scene) -> None:
    scene.dashboard.gate.clear()
    await scene.deliver(*audits(0, 1))
    await scene.advance(6)
    await scene.restart()
    await scene.deliver(*audits(0, 1, 2, 3, 4))
    assert scene.ranges() == [(0, 1), (0, 1)]
    assert scene.dashboard.calls[0] == scene.dashboard.calls[1]
    scene.dashboard.gate.set()
    await scene.advance(0)
    assert scene.ranges() == [(0, 1), (0, 1), (2, 4)]
    assert scene.unfinished() == []


async def test_what_was_merged_and_never_logged_is_sealed_anew(scene: Scene) -> None:
    scene.dashboard.judge = lambda _: None
    await scene.deliver(*audits(0, 1))
    await scene.restart(MemoryRows())
    scene.dashboard.judge = lambda _: 200
    scene.dashboard.calls.clear()
    await scene.deliver(*audits(0, 1, 2))
    assert scene.ranges() == [(0, 2)]


async def test_a_record_that_is_no_audit_event_is_put_aside_and_the_chain_goes_on_around_it(scene: Scene) -> None:
    noise = record(b"{}", topic=TOPICS.audit, offset=1, timestamp=START_MS)
    records = [*audits(0), noise, *audits(2, 3)]
    await scene.deliver(*records)
    (put_aside,) = scene.context.quarantined
    assert (put_aside.record.offset, put_aside.reason) == (1, "invalid_envelope")
    (call,) = scene.dashboard.calls
    assert [entry["sequence"] for entry in orjson.loads(call.body)] == [0, 2, 3]
    row = scene.context.rows.get(AUDIT, batch_key(0, 0))
    assert row is not None
    assert row.batch is not None
    check = TopicCheck(0, [row.batch])
    for item in records:
        check.add(item.offset, item.timestamp, item.value)
    assert check.end(4).ok


async def test_a_record_whose_timestamp_no_calendar_has_is_put_aside(scene: Scene) -> None:
    bad = record(audit_value(0), topic=TOPICS.audit, offset=0, timestamp=START_MS * 1000)
    await scene.deliver(bad, *audits(1, 2, 3))
    assert [put.reason for put in scene.context.quarantined] == ["invalid_envelope"]
    assert scene.ranges() == [(1, 3)]
    assert scene.unfinished() == []


async def test_an_accepted_batch_and_the_seal_of_the_next_are_one_unit(scene: Scene) -> None:
    heads: list[int | None] = []

    def judge(_: object) -> int:
        row = scene.context.rows.get(AUDIT, head_key(0))
        assert row is not None
        assert row.head is not None
        heads.append(row.head.unaccepted)
        return 200

    scene.dashboard.judge = judge
    await scene.deliver(*audits(*range(6)))
    assert heads == [0, 3]
    row = scene.context.rows.get(AUDIT, head_key(0))
    assert row is not None
    assert row.head is not None
    assert (row.head.sequence, row.head.unaccepted) == (5, None)


async def test_nothing_is_posted_while_the_worker_may_not_act(scene: Scene) -> None:
    scene.context.acting = False
    await scene.deliver(*audits(0, 1, 2))
    assert scene.dashboard.calls == []
    scene.context.acting = True
    await scene.advance(0)
    assert scene.ranges() == [(0, 2)]


async def test_a_drain_lets_the_post_under_way_end_and_starts_no_other(scene: Scene) -> None:
    assert scene.processor is not None
    scene.dashboard.gate.clear()
    await scene.deliver(*audits(*range(6)))
    scene.processor.begin_drain()
    assert scene.processor.busy()
    scene.dashboard.gate.set()
    await scene.advance(60)
    assert not scene.processor.busy()
    assert scene.ranges() == [(0, 2)]
    assert scene.unfinished() == [3, 4, 5]


async def test_the_age_of_the_oldest_unaccepted_record_is_a_metric(scene: Scene) -> None:
    scene.dashboard.judge = lambda _: None
    await scene.deliver(*audits(0, 1, 2))
    await scene.advance(90)
    assert metrics.REGISTRY.get_sample_value("vault_stream_audit_oldest_unaccepted_seconds") == 90.0
    scene.dashboard.judge = lambda _: 200
    await scene.advance(60)
    assert metrics.REGISTRY.get_sample_value("vault_stream_audit_oldest_unaccepted_seconds") == 0.0


async def test_batch_rows_older_than_the_topic_are_forgotten(scene: Scene) -> None:
    await scene.deliver(*audits(0, 1, 2))
    old_ms = START_MS
    await scene.advance((365 + 8) * 86_400)
    await scene.deliver(*audits(3, 4, 5, at_ms=scene.context.clock.now_ms()))
    assert scene.context.rows.get(AUDIT, batch_key(0, 0)) is None
    assert scene.context.rows.get(AUDIT, batch_key(0, 3)) is not None
    assert scene.context.clock.now_ms() > old_ms


async def test_a_changed_topic_stops_its_partition_and_says_so(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.dashboard.judge = lambda _: None
    await scene.deliver(*audits(0, 1, 2))
    await scene.restart()
    scene.dashboard.calls.clear()
    forged = record(audit_value(1, action="forged"), topic=TOPICS.audit, offset=1, timestamp=START_MS)
    await scene.deliver(*audits(0), forged, *audits(2))
    await scene.advance(600)
    assert scene.dashboard.calls == []
    assert scene.unfinished() == [0, 1, 2]
    assert "audit verify --topic" in caplog.text


async def test_two_slices_while_a_post_hangs_wait_without_blocking(scene: Scene) -> None:
    scene.dashboard.gate.clear()
    async with asyncio.timeout(5):
        await scene.deliver(*audits(0, 1, 2))
        await scene.deliver(*audits(3, 4))
    assert scene.unfinished() == [0, 1, 2, 3, 4]
