from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from agents.violations import WINDOW, violations_agent
from app.engine import Record
from app.events import STRUCTURED_HEADERS, derived_event, new_event
from app.integrations.policy import idempotency_key
from app.topics import Topics
from tests.support.agent_scene import AgentScene
from tests.support.memory_unit import record
from tests.support.scripted_upstream import Call, ScriptedUpstream

TOPICS = Topics("vault", "vs")


@dataclass
class Scene(AgentScene):
    engine: ScriptedUpstream = field(default_factory=ScriptedUpstream)

    async def start(self) -> None:
        self.processor = violations_agent(TOPICS, self.engine, jitter=lambda: 1.0).processor(self.context)
        await self.context.open(self.processor)

    def outcomes(self) -> list[dict[str, Any]]:
        return [orjson.loads(sent.value or b"") for sent in self.context.sent_to(TOPICS.violations)]

    def unfinished(self) -> list[int]:
        return [record.offset for record in self.context.unfinished]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    await scene.start()
    yield scene
    await scene.context.close(scene.processor)


def raised(*offsets: int) -> list[Record]:
    return [record(value(offset), topic=TOPICS.violations, offset=offset, key=b"ds-1") for offset in offsets]


def value(number: int, type_: str = "violation.raised") -> bytes:
    cause = new_event(
        type="llm.data-vault.policy.violation",
        source="/vault",
        data={},
        id=f"v-{number}",
        extensions={"correlationid": "c-1", "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"},
    )
    report = orjson.dumps({"violation_id": f"v-{number}", "policy_id": "p", "resource_id": "ds-1"})
    return derived_event(
        type_, id_=f"v-{number}", source="/vault", subject="ds-1", time="2026-01-01T00:00:00Z", data=report, cause=cause
    )


async def test_a_violation_is_reported_and_its_record_done(scene: Scene) -> None:
    await scene.deliver(*raised(0))
    (call,) = scene.engine.calls
    assert (call.method, call.path) == ("POST", "/api/v1/violations")
    assert orjson.loads(call.body) == {"violation_id": "v-0", "policy_id": "p", "resource_id": "ds-1"}
    assert call.key == idempotency_key("/vault", "v-0")
    assert scene.unfinished() == []


async def test_the_report_goes_on_with_the_trace_of_its_event(scene: Scene) -> None:
    await scene.deliver(*raised(0))
    (call,) = scene.engine.calls
    assert call.headers["traceparent"] == "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


async def test_the_outcome_is_a_record_of_its_own(scene: Scene) -> None:
    await scene.deliver(*raised(0))
    (sent,) = scene.context.sent_to(TOPICS.violations)
    assert sent.key == b"ds-1"
    assert tuple(sent.headers) == tuple(STRUCTURED_HEADERS)
    assert orjson.loads(sent.value or b"") == {
        "specversion": "1.0",
        "type": "llm.vault-stream.violation.reported",
        "id": "v-0-reported",
        "source": "/vault",
        "subject": "ds-1",
        "time": "2025-06-15T15:06:40.000Z",
        "datacontenttype": "application/json",
        "correlationid": "c-1",
        "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
        "data": {"violation_id": "v-0", "outcome": "accepted", "status_code": 200, "attempts": 1},
    }


async def test_an_outcome_is_never_reported(scene: Scene) -> None:
    await scene.deliver(record(value(0, "violation.reported"), topic=TOPICS.violations))
    assert scene.engine.calls == []
    assert scene.context.quarantined == []
    assert scene.unfinished() == []


async def test_a_repeat_that_the_engine_knows_is_a_success(scene: Scene) -> None:
    scene.engine.script = deque([409])
    await scene.deliver(*raised(0))
    assert scene.outcomes()[0]["data"]["outcome"] == "duplicate"
    assert scene.unfinished() == []


@pytest.mark.parametrize("status", [None, 401, 403, 404, 405, 408, 425, 429, 500, 503])
async def test_an_engine_that_does_not_answer_costs_lag_and_nothing_else(scene: Scene, status: int | None) -> None:
    scene.engine.judge = lambda _: status
    await scene.deliver(*raised(0, 1))
    for _ in range(10):
        await scene.advance(60)
    assert len(scene.engine.calls) == 22
    assert len({(call.key, call.body) for call in scene.engine.calls}) == 2
    assert scene.unfinished() == [0, 1]
    assert scene.context.quarantined == []
    scene.engine.judge = lambda _: 200
    await scene.advance(61)
    assert scene.unfinished() == []
    assert scene.outcomes()[0]["data"]["attempts"] == 12


async def test_retry_after_is_honoured(scene: Scene) -> None:
    scene.engine.script = deque([503])
    scene.engine.retry_after_s = 20.0
    await scene.deliver(*raised(0))
    await scene.advance(19)
    assert len(scene.engine.calls) == 1
    await scene.advance(1.1)
    assert scene.unfinished() == []


@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_a_report_that_is_rejected_is_put_aside_and_its_outcome_told(scene: Scene, status: int) -> None:
    scene.engine.script = deque([status])
    await scene.deliver(*raised(0))
    (put_aside,) = scene.context.quarantined
    assert (put_aside.record.offset, put_aside.reason) == (0, "rejected_upstream")
    assert scene.outcomes()[0]["data"] == {
        "violation_id": "v-0",
        "outcome": "rejected",
        "status_code": status,
        "attempts": 1,
    }
    assert scene.unfinished() == []


async def test_at_most_32_reports_are_under_way(scene: Scene) -> None:
    scene.engine.gate.clear()
    await scene.deliver(*raised(*range(100)))
    assert scene.engine.under_way == WINDOW == 32
    scene.engine.gate.set()
    await scene.advance(0)
    assert scene.engine.most_under_way == 32
    assert len(scene.engine.calls) == 100
    assert scene.unfinished() == []


async def test_one_report_that_is_not_taken_holds_no_other_back(scene: Scene) -> None:
    def judge(call: Call) -> int:
        return 503 if b'"v-1"' in call.body else 200

    scene.engine.judge = judge
    await scene.deliver(*raised(0, 1, 2))
    assert scene.unfinished() == [1]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"noise", "invalid_envelope"),
        (value(0, "decision.made"), "unknown_type"),
        (value(0).replace(b'"data":{', b'"data":[{').replace(b"}}", b"}]}"), "invalid_data"),
    ],
)
async def test_a_record_that_is_no_violation_is_put_aside(scene: Scene, bad: bytes, reason: str) -> None:
    await scene.deliver(record(bad, topic=TOPICS.violations, offset=0), *raised(1))
    assert [item.reason for item in scene.context.quarantined] == [reason]
    assert scene.unfinished() == []
    assert len(scene.engine.calls) == 1


async def test_a_slice_that_runs_again_reports_nothing_twice(scene: Scene) -> None:
    scene.engine.gate.clear()
    await scene.deliver(*raised(0))
    await scene.deliver(*raised(0))
    scene.engine.gate.set()
    await scene.advance(0)
    assert len(scene.engine.calls) == 1
    assert scene.unfinished() == []


async def test_a_violation_that_cannot_be_read_fails_again_when_its_slice_runs_again(scene: Scene) -> None:
    nested = b'{"violation_id":"v-0","evidence":' + b"[" * 600 + b"0.5" + b"]" * 600 + b"}"
    poison = record(
        derived_event(
            "violation.raised", id_="v-0", source="/vault", subject="ds-1", time="2026-01-01T00:00:00Z", data=nested
        ),
        topic=TOPICS.violations,
        key=b"ds-1",
    )
    for _ in range(2):
        # The engine puts it aside for this; held without a report, it would keep the position for ever.
        with pytest.raises(RecursionError):
            await scene.deliver(poison)


async def test_a_drain_starts_nothing_new(scene: Scene) -> None:
    assert scene.processor is not None
    scene.engine.gate.clear()
    await scene.deliver(*raised(*range(40)))
    scene.processor.begin_drain()
    assert scene.processor.busy()
    scene.engine.gate.set()
    await scene.advance(100)
    assert len(scene.engine.calls) == 32
    assert not scene.processor.busy()
    assert len(scene.unfinished()) == 8
