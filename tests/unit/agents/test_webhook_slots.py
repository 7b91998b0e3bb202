"""A slot is the receiver's: it is free once the receiver has answered, and the lane once the answer is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from agents.webhooks import holdings
from app.webhooks.commands import Op, WebhookPatch
from app.webhooks.pace import GlobalSlots
from tests.support.webhooks import TIMEOUT, Desk, answer, webhook_row


class Commits:
    """Lets jobs wait, as they do for the outputs of those before them."""

    def __init__(self, desk: Desk) -> None:
        self.go = asyncio.Event()
        submit = desk.context.submit

        async def waiting(job: Any) -> Any:
            await self.go.wait()
            return await submit(job)

        desk.context.submit = waiting


@pytest.fixture
async def narrow() -> AsyncIterator[Desk]:
    """A webhook with one slot."""
    desk = await Desk().open(webhook_row(max_in_flight=1))
    yield desk
    await desk.context.close(desk.processor)


async def test_another_delivery_starts_while_the_outcome_of_one_is_being_written(narrow: Desk) -> None:
    commits = Commits(narrow)
    await narrow.deliver(narrow.intent("e0"), narrow.intent("e1"))

    assert narrow.receiver.events() == ["e0", "e1"]
    assert narrow.receiver.most_at_once == 1
    commits.go.set()
    await narrow.settle()
    assert [row.status for row in (narrow.row("e0"), narrow.row("e1")) if row] == ["delivered", "delivered"]


async def test_the_next_of_the_same_subject_waits_until_the_outcome_is_written(narrow: Desk) -> None:
    commits = Commits(narrow)
    await narrow.deliver(narrow.intent("e0", subject="d1"), narrow.intent("e1", subject="d1"))
    assert narrow.receiver.events() == ["e0"]

    commits.go.set()
    await narrow.settle()
    assert narrow.receiver.events() == ["e0", "e1"]


@pytest.mark.parametrize("outcome", [answer(500), answer(429), answer(410), TIMEOUT], ids=["500", "429", "410", "none"])
async def test_after_a_failure_nothing_starts_before_it_was_judged(narrow: Desk, outcome: Any) -> None:
    narrow.receiver.will_answer(outcome)
    Commits(narrow)
    await narrow.deliver(narrow.intent("e0"), narrow.intent("e1"))

    assert narrow.receiver.events() == ["e0"]


async def test_outcomes_that_are_not_written_are_limited(narrow: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings, "UNSETTLED_LIMIT", 2)
    commits = Commits(narrow)
    await narrow.deliver(*(narrow.intent(f"e{n}") for n in range(6)))
    assert narrow.receiver.events() == ["e0", "e1", "e2"]

    commits.go.set()
    await narrow.settle()
    assert len(narrow.receiver.requests) == 6


async def test_every_slot_is_given_back_once() -> None:
    slots = GlobalSlots(8)
    desk = await Desk(slots=slots).open(webhook_row())
    desk.receiver.will_answer(answer(500), event_id="e1")
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(6)))
    assert slots.free == 8

    Commits(desk)
    await desk.deliver(desk.intent("late"))
    await desk.context.close(desk.processor)
    assert slots.free == 8


@pytest.mark.parametrize("status", [429, 410])
@pytest.mark.parametrize("place", ["e0", "e31"], ids=["the first to answer", "the last"])
async def test_of_many_in_flight_one_that_says_stop_stops_all_others(status: int, place: str) -> None:
    desk = await Desk().open(webhook_row(max_in_flight=32))
    await desk.deliver(*(desk.intent(f"w{n}") for n in range(64)))
    desk.receiver.will_answer(answer(status, retry_after_s=60), event_id=place)
    desk.receiver.hold()
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(200)))
    before = len(desk.receiver.requests)
    commits = Commits(desk)
    desk.receiver.release()
    await desk.settle()
    assert len(desk.receiver.requests) == before

    commits.go.set()
    await desk.settle()
    assert len(desk.receiver.requests) == before
    await desk.context.close(desk.processor)


async def test_a_failure_counts_before_the_successes_that_came_after_it() -> None:
    desk = await Desk().open(webhook_row(max_in_flight=32))
    desk.receiver.will_answer(TIMEOUT, event_id="e0")
    commits = Commits(desk)
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(4)))
    commits.go.set()
    await desk.settle()

    found = desk.processor._scheduler._receivers["wh_a"]
    assert not found.pace.troubled
    await desk.context.close(desk.processor)


async def test_an_intent_that_started_in_a_slice_which_failed_is_launched_though_its_webhook_is_deleted() -> None:
    slots = GlobalSlots(8)
    desk = await Desk(slots=slots).open(webhook_row())
    records = [desk.intent("e1"), desk.command(Op.DELETE)]
    commit = desk.context._commit

    def fail(_: Any) -> None:
        raise RuntimeError("the slice fails at its end")

    desk.context._commit = fail
    with pytest.raises(RuntimeError):
        await desk.context.deliver(desk.processor, *records)
    desk.context._commit = commit
    for record in records:
        await desk.deliver(record)
    await desk.settle()

    assert slots.free == 8
    assert desk.processor._holdings.flights == {}
    assert desk.webhook() is None
    await desk.context.close(desk.processor)


@pytest.mark.parametrize("patch", [WebhookPatch(url="https://other.example/in"), WebhookPatch(description="the same")])
async def test_a_webhook_that_leads_to_another_receiver_is_not_slowed_down_by_the_one_before(
    narrow: Desk, patch: WebhookPatch
) -> None:
    narrow.receiver.always(answer(500))
    for n in range(12):
        await narrow.deliver(narrow.intent(f"e{n}"))
        await narrow.pass_time(1.0)
    assert narrow.processor.activity("wh_a", narrow.clock.now_ms()).paced
    narrow.receiver.always(answer(200))
    await narrow.deliver(narrow.command(Op.UPDATE, patch=patch))
    before = len(narrow.receiver.requests)
    await narrow.deliver(narrow.intent("fresh"))

    assert (len(narrow.receiver.requests) > before) is (patch.url is not msgspec.UNSET)
