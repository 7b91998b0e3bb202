"""The owner of a principal keeps what the policy engine decided about it, until its time is over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from agents.decisions import GATHER_S, SLICE_RECORDS, SWEPT_AT_ONCE, decisions_agent
from app.engine import Processor, Record, Revoked
from app.integrations.policy import Decision, decision_record
from app.topics import Topics
from tables.decisions import DECISIONS, DecisionReaders
from tests.support.memory_unit import START_MS, MemoryContext, record
from tests.support.policy import ALLOW, DENY, decision, question

TOPICS = Topics("vault", "vs")


class Scene:
    """One number of the agent."""

    def __init__(self, number: int = 0) -> None:
        self.readers = DecisionReaders()
        self.context = MemoryContext(number=number)
        self.processor: Processor = decisions_agent(TOPICS, self.readers).processor(self.context)
        self.offset = 0

    async def deliver(self, *decisions: Decision, from_: str = "engine") -> None:
        await self.deliver_values(*(written(made, from_) for made in decisions))

    async def deliver_values(self, *values: bytes | None) -> None:
        await self.context.deliver(self.processor, *(self.next(value) for value in values))

    def next(self, value: bytes | None) -> Record:
        self.offset += 1
        return record(value, topic=TOPICS.decisions, offset=self.offset, key=b"alice")

    async def pass_s(self, seconds: float) -> None:
        self.context.clock.advance(seconds)
        await self.context.settle(self.processor)

    def rows(self) -> list[Decision]:
        return list(self.context.rows.all(DECISIONS).values())

    async def read(self, principal: str = "alice") -> Decision | None:
        reader = self.readers.get(0)
        assert reader is not None
        return await reader.read(principal, question(principal).key)


def written(made: Decision, from_: str = "engine") -> bytes:
    return decision_record(made, id_="d-1", source="/vault-stream/test", from_=from_, at_ms=made.decided_ms)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    await scene.context.open(scene.processor)
    yield scene
    await scene.context.close(scene.processor)


async def test_a_decision_of_the_engine_is_kept_and_read(scene: Scene) -> None:
    await scene.deliver(decision())
    assert await scene.read() == decision()
    assert await scene.read("bob") is None


@pytest.mark.parametrize(
    ("made", "from_"),
    [
        (decision(), "cache"),
        (msgspec.structs.replace(decision(), expires_ms=None), "engine"),
        (decision(began_ms=START_MS - 300_000), "engine"),
    ],
    ids=["given-from-what-was-kept", "not-to-be-kept", "over-already"],
)
async def test_what_is_not_to_be_kept_makes_no_row(scene: Scene, made: Decision, from_: str) -> None:
    await scene.deliver(made, from_=from_)
    assert scene.rows() == []
    assert scene.context.unfinished == []


async def test_the_one_that_began_last_is_kept_in_whatever_order_they_come(scene: Scene) -> None:
    older, newer = decision(), decision(verdict=DENY, began_ms=START_MS + 1)
    await scene.deliver(newer, older)
    assert await scene.read() == newer
    await scene.deliver(older, newer)
    assert await scene.read() == newer


async def test_a_record_seen_twice_changes_nothing(scene: Scene) -> None:
    await scene.deliver(decision(), decision())
    await scene.deliver(decision())
    assert scene.rows() == [decision()]


async def test_a_row_goes_when_its_time_is_over(scene: Scene) -> None:
    await scene.deliver(decision(), decision(question("bob"), DENY))
    await scene.pass_s(29)
    assert len(scene.rows()) == 2
    await scene.pass_s(2)
    assert scene.rows() == [decision()]
    await scene.pass_s(270)
    assert scene.rows() == []


async def test_what_expires_before_what_was_swept_already_goes_too(scene: Scene) -> None:
    await scene.deliver(decision(verdict=DENY))
    await scene.pass_s(100)
    await scene.deliver(decision(question("bob"), msgspec.structs.replace(ALLOW, ttl_s=101.0)))
    await scene.pass_s(2)
    assert scene.rows() == []


async def test_many_go_in_several_steps(scene: Scene) -> None:
    await scene.deliver(*(decision(question(f"p{number}")) for number in range(2 * SWEPT_AT_ONCE + 1)))
    await scene.pass_s(301)
    assert scene.rows() == []


async def test_after_a_restart_rows_are_still_swept(scene: Scene) -> None:
    await scene.deliver(decision())
    again = Scene()
    again.context = MemoryContext(rows=scene.context.rows, clock=scene.context.clock)
    again.processor = decisions_agent(TOPICS, again.readers).processor(again.context)
    await again.context.open(again.processor)
    await again.pass_s(301)
    assert again.rows() == []
    await again.context.close(again.processor)


@pytest.mark.parametrize(
    "value", [None, b"{", b"{}", written(decision()).replace(b'"allowed":true', b'"allowed":"true"')]
)
async def test_what_is_no_decision_is_quarantined_and_the_next_is_kept(scene: Scene, value: Any) -> None:
    await scene.deliver_values(value, written(decision()))
    assert [found.reason for found in scene.context.quarantined] == ["invalid_data"]
    assert scene.rows() == [decision()]


async def test_records_gather_for_a_moment_unless_more_wait_than_a_slice_takes(scene: Scene) -> None:
    assert scene.processor.holds_back_s() == 0
    await scene.deliver(decision())
    wait_s = scene.processor.holds_back_s()
    assert 0 < wait_s <= GATHER_S
    await scene.pass_s(wait_s / 4)
    assert scene.processor.holds_back_s() == pytest.approx(wait_s * 3 / 4)
    await scene.pass_s(wait_s)
    assert scene.processor.holds_back_s() == 0
    await scene.deliver(*(decision(question(f"p{number}")) for number in range(SLICE_RECORDS)))
    assert scene.processor.holds_back_s() == 0


async def test_numbers_that_gather_take_turns() -> None:
    waits_s = []
    for number in range(12):
        scene = Scene(number)
        await scene.context.open(scene.processor)
        await scene.deliver(decision())
        waits_s.append(scene.processor.holds_back_s())
    waits_s.sort()
    assert min(later - earlier for earlier, later in pairwise(waits_s)) > GATHER_S / 24


async def test_a_number_that_is_gone_is_not_read(scene: Scene) -> None:
    reader = scene.readers.get(0)
    assert reader is not None
    await scene.context.close(scene.processor)
    assert scene.readers.get(0) is None
    with pytest.raises(Revoked):
        await reader.read("alice", question().key)
