from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from agents.registry import LOOK_AHEAD, WINDOW, registry_agent
from app.engine import Record
from app.events import STRUCTURED_HEADERS
from app.integrations.registry import DatasetRow
from app.topics import Topics
from tables.datasets import DATASETS, dataset_key
from tests.support.agent_scene import AgentScene
from tests.support.memory_unit import START_MS, MemoryContext, MemoryUnit, record
from tests.support.scripted_upstream import Call, ScriptedUpstream

TOPICS = Topics("vault", "vs")


def registering() -> ScriptedUpstream:
    """A registry that says under which id it has what it was told."""
    return ScriptedUpstream(body=lambda call: b'{"id":"ds-1"}' if call.method == "POST" else b"")


@dataclass
class Scene(AgentScene):
    registry: ScriptedUpstream | None = field(default_factory=registering)

    @property
    def upstream(self) -> ScriptedUpstream:
        assert self.registry is not None
        return self.registry

    async def start(self) -> None:
        self.processor = registry_agent(TOPICS, self.registry, jitter=lambda: 1.0).processor(self.context)
        await self.context.open(self.processor)

    async def restart(self, registry: ScriptedUpstream | None) -> None:
        await self.context.close(self.processor)
        self.registry = registry
        self.context = MemoryContext(rows=self.context.rows, clock=self.context.clock)
        await self.start()
        await self.advance(0)

    def row(self, dataset_id: str = "ds-1") -> DatasetRow:
        row = self.context.rows.get(DATASETS, dataset_key(dataset_id))
        assert row is not None
        return row

    def dirty(self) -> bool:
        return self.row().version > self.row().pushed

    def changes(self) -> list[tuple[str, str, dict[str, Any]]]:
        changes = [orjson.loads(sent.value or b"") for sent in self.context.sent_to(TOPICS.registry_changes)]
        return [(change["type"], change["id"], change["data"]) for change in changes]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    await scene.start()
    yield scene
    await scene.context.close(scene.processor)


_offsets = iter(range(1_000_000))


def event(
    type_: str, dataset_id: str = "ds-1", *, time: str | None = None, at_ms: int | None = None, **data: Any
) -> Record:
    offset = next(_offsets)
    fields = {"specversion": "1.0", "id": f"e-{offset}", "source": "/vault", "type": f"llm.data-vault.{type_}"}
    if time:
        fields["time"] = time
    value = orjson.dumps({**fields, "data": {"dataset_id": dataset_id, **data}})
    headers = [("vs-timestamp", b"%d" % (START_MS if at_ms is None else at_ms))]
    return record(value, topic=TOPICS.registry_datasets, offset=offset, key=dataset_id.encode(), headers=headers)


def created(dataset_id: str = "ds-1", **data: Any) -> Record:
    return event("dataset.created", dataset_id, **{"name": "Claims", **data})


def fails_for(dataset_id: str) -> Any:
    def judge(call: Call) -> int:
        return 503 if dataset_id.encode() in call.body else 200

    return judge


async def test_a_dataset_is_pushed_as_an_upsert_and_its_record_is_done(scene: Scene) -> None:
    scene.upstream.body = lambda _: b'{"id":"reg-1"}'
    await scene.deliver(created(version="1", record_count=10, tags=["pii"]))
    (call,) = scene.upstream.calls
    assert (call.method, call.path, call.key) == ("POST", "/api/v1/datasets", "ds-1:1")
    assert orjson.loads(call.body) == {
        "id": "ds-1",
        "name": "Claims",
        "version": "1",
        "record_count": 10,
        "created_at": "2025-06-15T15:06:40.000Z",
        "tags": ["pii"],
    }
    assert (scene.row().pushed, scene.row().registration_id) == (1, "reg-1")
    assert scene.context.unfinished == []


async def test_what_the_registry_acknowledged_is_told_to_others(scene: Scene) -> None:
    scene.upstream.body = lambda _: b'{"id":"reg-1"}'
    await scene.deliver(created(version="1"))
    await scene.deliver(event("dataset.updated", at_ms=START_MS + 1, name="New"))
    await scene.deliver(event("dataset.deleted", at_ms=START_MS + 2))
    assert scene.changes() == [
        (
            "llm.vault-stream.registry.registered",
            "ds-1-1-registered",
            {"dataset_id": "ds-1", "registration_id": "reg-1", "version": "1"},
        ),
        (
            "llm.vault-stream.registry.updated",
            "ds-1-2-updated",
            {"dataset_id": "ds-1", "registration_id": "reg-1", "version": "1"},
        ),
        ("llm.vault-stream.registry.deleted", "ds-1-3-deleted", {"dataset_id": "ds-1", "version": "1"}),
    ]
    sent = scene.context.sent_to(TOPICS.registry_changes)[0]
    assert sent.key == b"ds-1"
    assert tuple(sent.headers) == tuple(STRUCTURED_HEADERS)
    assert orjson.loads(sent.value or b"")["source"] == "/vault-stream/vs"


async def test_a_record_is_done_when_its_row_is_merged_though_nothing_was_pushed(scene: Scene) -> None:
    scene.upstream.gate.clear()
    await scene.deliver(created())
    assert scene.context.unfinished == []
    assert scene.dirty()


async def test_a_slice_of_many_events_of_one_dataset_is_one_push(scene: Scene) -> None:
    events = [event("records.ingested", at_ms=START_MS + n, record_count=1) for n in range(1, 50)]
    await scene.deliver(created(record_count=0), *events)
    assert [orjson.loads(call.body)["record_count"] for call in scene.upstream.calls] == [49]


async def test_what_changes_during_a_push_is_pushed_after_it(scene: Scene) -> None:
    scene.upstream.gate.clear()
    await scene.deliver(created(record_count=0))
    await scene.deliver(event("records.ingested", at_ms=START_MS + 1, record_count=5))
    scene.upstream.gate.set()
    await scene.advance(0)
    assert [call.key for call in scene.upstream.calls] == ["ds-1:1", "ds-1:2"]
    assert not scene.dirty()


async def test_a_deleted_dataset_is_deleted_and_an_unknown_one_is_gone_already(scene: Scene) -> None:
    scene.upstream.script = deque([200, 404])
    await scene.deliver(created("a/b"))
    await scene.deliver(event("dataset.deleted", "a/b", at_ms=START_MS + 1))
    assert (scene.upstream.calls[1].method, scene.upstream.calls[1].path) == ("DELETE", "/api/v1/datasets/a%2Fb")
    assert scene.row("a/b").pushed == scene.row("a/b").version


async def test_an_archived_dataset_is_an_upsert_that_says_so(scene: Scene) -> None:
    await scene.deliver(created())
    await scene.deliver(event("dataset.archived", at_ms=START_MS + 1))
    assert orjson.loads(scene.upstream.calls[1].body)["status"] == "archived"


async def test_a_conflict_under_the_same_id_is_a_success(scene: Scene) -> None:
    scene.upstream.script = deque([409])
    scene.upstream.body = lambda _: b'{"id":"ds-1"}'
    await scene.deliver(created())
    assert not scene.dirty()
    assert scene.changes()[0][0] == "llm.vault-stream.registry.registered"


async def test_a_conflict_under_another_id_is_told_and_waits_for_the_next_change(scene: Scene) -> None:
    scene.upstream.script = deque([409])
    scene.upstream.body = lambda _: b'{"id":"other"}'
    await scene.deliver(created())
    await scene.advance(3600)
    assert len(scene.upstream.calls) == 1
    assert scene.changes() == [
        (
            "llm.vault-stream.registry.conflict",
            "ds-1-1-conflict",
            {"dataset_id": "ds-1", "conflict": {"vault": "ds-1", "registry": "other", "winner": "registry"}},
        )
    ]


LONG_ID = orjson.dumps({"id": "x" * 2_000_000})
WITHOUT_ID = [b"", b"<html>", b"[]", b"{}", b'{"id":7}', b'{"id":""}', b'{"id":"a","id":"b"}', LONG_ID]


@pytest.mark.parametrize("body", WITHOUT_ID, ids=range(len(WITHOUT_ID)))
async def test_a_success_without_an_id_is_none_and_sent_again_under_the_same_key(scene: Scene, body: bytes) -> None:
    bodies = deque([body])
    scene.upstream.body = lambda _: bodies.popleft() if bodies else b'{"id":"reg-1"}'
    await scene.deliver(created())
    assert (scene.row().pushed, scene.changes()) == (0, [])
    await scene.advance(1)
    assert [call.key for call in scene.upstream.calls] == ["ds-1:1", "ds-1:1"]
    assert (scene.row().pushed, scene.row().registration_id) == (1, "reg-1")


@pytest.mark.parametrize("body", WITHOUT_ID, ids=range(len(WITHOUT_ID)))
async def test_a_conflict_without_an_id_is_no_success(scene: Scene, body: bytes) -> None:
    scene.upstream.script = deque([409])
    scene.upstream.body = lambda _: body
    await scene.deliver(created())
    assert scene.row().pushed == 0
    ((_, _, data),) = scene.changes()
    assert data["conflict"]["registry"] is None
    assert scene.row().registration_id is None


async def test_a_rejected_state_is_not_sent_again_before_the_next_change(scene: Scene) -> None:
    scene.upstream.script = deque([422])
    await scene.deliver(created())
    await scene.advance(3600)
    assert len(scene.upstream.calls) == 1
    await scene.deliver(event("dataset.updated", at_ms=START_MS + 1, name="New"))
    assert len(scene.upstream.calls) == 2
    assert not scene.dirty()


@pytest.mark.parametrize("status", [None, 401, 404, 429, 500, 503])
async def test_a_registry_that_does_not_answer_costs_nothing_but_time(scene: Scene, status: int | None) -> None:
    scene.upstream.judge = lambda _: status
    await scene.deliver(created(), created("ds-2"))
    for _ in range(10):
        await scene.advance(60)
    assert scene.dirty()
    assert 10 <= len(scene.upstream.calls) <= 40
    scene.upstream.judge = lambda _: 200
    for _ in range(3):
        await scene.advance(61)
    assert scene.row().pushed == scene.row("ds-2").pushed == 1


async def test_a_dead_registry_is_asked_by_one_push_at_a_time_with_growing_gaps(scene: Scene) -> None:
    scene.upstream.judge = lambda _: None
    await scene.deliver(*(created(f"ds-{number}") for number in range(100)))
    assert len(scene.upstream.calls) == 16
    for _ in range(600):
        await scene.advance(1)
    assert 16 + 10 <= len(scene.upstream.calls) <= 16 + 20
    scene.upstream.judge = lambda _: 200
    for _ in range(60):
        await scene.advance(1)
    await scene.advance(60)
    assert all(scene.row(f"ds-{number}").pushed == 1 for number in range(100))


async def test_a_dataset_that_alone_is_not_taken_holds_no_other_back(scene: Scene) -> None:
    scene.upstream.judge = fails_for("ds-1")
    await scene.deliver(created(), *(created(f"other-{number}") for number in range(40)))
    await scene.advance(1)
    await scene.advance(1)
    assert all(scene.row(f"other-{number}").pushed == 1 for number in range(40))
    assert scene.dirty()


@pytest.mark.parametrize("count", [1, 3, WINDOW])
async def test_datasets_that_are_never_taken_hold_a_new_one_back_for_a_minute_at_most(scene: Scene, count: int) -> None:
    scene.upstream.judge = fails_for("bad-")
    await scene.deliver(*(created(f"bad-{number}") for number in range(count)))
    for _ in range(200):
        await scene.advance(1)
    await scene.deliver(created("new"))
    for _ in range(61):
        await scene.advance(1)
    assert scene.row("new").pushed == 1


async def test_a_dataset_that_is_due_again_waits_for_no_end_of_new_ones(scene: Scene) -> None:
    scene.upstream.script = deque([503])
    await scene.deliver(created())
    scene.upstream.gate.clear()
    await scene.deliver(*(created(f"new-{number}") for number in range(LOOK_AHEAD)))
    await scene.advance(1)
    scene.upstream.gate.set()
    await scene.advance(0)
    ids = [orjson.loads(call.body)["id"] for call in scene.upstream.calls]
    assert ids.index("ds-1", 1) <= 2 * WINDOW + 1


async def test_at_most_16_pushes_are_under_way(scene: Scene) -> None:
    scene.upstream.gate.clear()
    await scene.deliver(*(created(f"ds-{number}") for number in range(50)))
    assert scene.upstream.under_way == WINDOW == 16
    scene.upstream.gate.set()
    await scene.advance(0)
    assert scene.upstream.most_under_way == 16
    assert all(scene.row(f"ds-{number}").pushed == 1 for number in range(50))


async def test_the_index_is_asked_once_for_many_pushes(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each question walks over the tombstones of all that was pushed.
    asked: list[int] = []
    scan_index = MemoryUnit.scan_index

    def counted(unit: MemoryUnit, *args: Any, **more: Any) -> list[bytes]:
        asked.append(1)
        return scan_index(unit, *args, **more)

    monkeypatch.setattr(MemoryUnit, "scan_index", counted)
    await scene.deliver(*(created(f"ds-{number}") for number in range(10 * WINDOW)))
    assert len(scene.upstream.calls) == 10 * WINDOW
    assert len(asked) == 1


async def test_more_datasets_than_are_looked_for_at_once_are_all_pushed(scene: Scene) -> None:
    count = 2 * LOOK_AHEAD + 10
    await scene.deliver(*(created(f"ds-{number}") for number in range(count)))
    assert len({call.key for call in scene.upstream.calls}) == count


async def test_without_an_endpoint_it_folds_and_a_later_endpoint_gets_everything() -> None:
    scene = Scene(registry=None)
    await scene.start()
    await scene.deliver(created())
    await scene.advance(3600)
    assert scene.dirty()
    await scene.restart(registering())
    assert [call.key for call in scene.upstream.calls] == ["ds-1:1"]
    assert not scene.dirty()
    await scene.context.close(scene.processor)


async def test_a_push_whose_acknowledgement_was_lost_is_repeated_under_its_key(scene: Scene) -> None:
    scene.upstream.gate.clear()
    await scene.deliver(created())
    first = scene.upstream
    await scene.restart(registering())
    assert scene.upstream.calls == first.calls


async def test_an_event_read_twice_counts_once(scene: Scene) -> None:
    ingested = event("records.ingested", at_ms=START_MS + 1, record_count=5)
    await scene.deliver(created(record_count=0), ingested)
    await scene.deliver(ingested)
    assert scene.row().changed_since == 5


async def test_the_time_is_the_event_s_own_else_that_of_its_vault_record(scene: Scene) -> None:
    await scene.deliver(created(time="2026-01-01T00:00:00Z"))
    assert scene.row().stated_ms["name"] == 1_767_225_600_000
    await scene.deliver(created("ds-2", at_ms=START_MS - 7))
    assert scene.row("ds-2").stated_ms["name"] == START_MS - 7


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"noise", "invalid_envelope"),
        (b'{"specversion":"1.0","id":"1","source":"/s","type":"x.y"}', "unknown_type"),
        (
            b'{"specversion":"1.0","id":"1","source":"/s","type":"llm.data-vault.dataset.created","data":{"name":"n"}}',
            "invalid_data",
        ),
        (
            b'{"specversion":"1.0","id":"1","source":"/s","type":"llm.data-vault.health.degraded","data":{"component":"c"}}',
            "invalid_data",
        ),
    ],
)
async def test_a_record_that_is_of_no_dataset_is_put_aside(scene: Scene, bad: bytes, reason: str) -> None:
    await scene.deliver(record(bad, topic=TOPICS.registry_datasets), created())
    assert [item.reason for item in scene.context.quarantined] == [reason]
    assert scene.row().pushed == 1


async def test_a_drain_starts_no_push(scene: Scene) -> None:
    assert scene.processor is not None
    scene.processor.begin_drain()
    await scene.deliver(created())
    assert scene.upstream.calls == []
    assert not scene.processor.busy()
