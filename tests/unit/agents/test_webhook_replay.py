"""Replayed events at the owner of their webhook."""

from __future__ import annotations

from typing import Any

from app.engine import Record
from app.events import format_time
from app.observability.metrics import EVENT_TO_POST_SECONDS
from app.webhooks.commands import Op
from app.webhooks.intents import IntentReason
from app.webhooks.model import Status
from tests.support.memory_unit import START_MS
from tests.support.webhooks import Desk


def replayed(desk: Desk, event_id: str, request_id: str = "r1", **more: Any) -> Record:
    return desk.intent(event_id, reason=IntentReason.REPLAY, request_id=request_id, **more)


def status_of(desk: Desk, event_id: str) -> Status | None:
    row = desk.row(event_id)
    return None if row is None else row.status


async def test_an_event_that_the_webhook_never_got_is_delivered_once_however_often_its_replay_is_asked_for(
    desk: Desk,
) -> None:
    await desk.deliver(replayed(desk, "e1"))
    await desk.deliver(replayed(desk, "e1"), desk.intent("e1"))
    assert desk.receiver.events() == ["e1"]
    assert status_of(desk, "e1") is Status.DELIVERED


async def test_an_event_that_comes_twice_in_one_replay_while_it_is_in_flight_is_one_post(desk: Desk) -> None:
    desk.receiver.hold()
    await desk.deliver(replayed(desk, "e1"), replayed(desk, "e1"))
    await desk.deliver(replayed(desk, "e1"))
    desk.receiver.release()
    await desk.settle()
    assert desk.receiver.events() == ["e1"]
    assert desk.context.unfinished == []


async def test_a_delivery_that_ended_is_made_again_by_another_request_only(desk: Desk) -> None:
    await desk.deliver(desk.intent("e1"))
    await desk.deliver(replayed(desk, "e1", "r1"))
    await desk.deliver(replayed(desk, "e1", "r1"))
    assert desk.receiver.events() == ["e1", "e1"]
    await desk.deliver(replayed(desk, "e1", "r2"))
    assert desk.receiver.events() == ["e1", "e1", "e1"]


async def test_what_a_webhook_missed_is_delivered_by_a_replay_once_it_is_enabled(desk: Desk) -> None:
    await desk.deliver(desk.command(Op.DISABLE))
    await desk.deliver(desk.intent("e1"), replayed(desk, "e2"))
    assert [status_of(desk, event) for event in ("e1", "e2")] == [Status.MISSED, Status.MISSED]
    await desk.deliver(desk.command(Op.ENABLE, command_id="c2"))
    await desk.deliver(replayed(desk, "e1"), replayed(desk, "e2"))
    await desk.deliver(replayed(desk, "e1"), replayed(desk, "e2"))
    assert sorted(desk.receiver.events()) == ["e1", "e2"]


async def test_the_age_of_a_replayed_event_is_no_delay_of_ours(desk: Desk) -> None:
    def seen() -> float:
        return next(s.value for m in EVENT_TO_POST_SECONDS.collect() for s in m.samples if s.name.endswith("_count"))

    before, old = seen(), format_time(START_MS - 365 * 86_400_000)
    await desk.deliver(replayed(desk, "e1", time=old))
    assert seen() == before
    await desk.deliver(desk.intent("e2", time=old))
    assert seen() == before + 1
