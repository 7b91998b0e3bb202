"""An event that comes again, by its source and id: with other bytes, too late to be known, from another source."""

from __future__ import annotations

import pytest

from app.webhooks.model import Status
from app.webhooks.owned import DeliveryOptions
from app.webhooks.schedule import RetrySchedule
from tests.support.webhooks import Desk, answer, header, webhook_row

HISTORY_S, FAILED_HISTORY_S = 3600.0, 7200.0
FIRST, OTHER = {"data": {"n": 1}}, {"data": {"n": 2}}


def bodies(desk: Desk) -> list[bytes]:
    return [request.body for request in desk.receiver.requests]


async def test_b10_the_first_bytes_of_an_event_are_sent_at_every_attempt_whatever_comes_under_its_id(
    desk: Desk,
) -> None:
    first, other = desk.intent("e1", **FIRST), desk.intent("e1", **OTHER)
    desk.receiver.will_answer(answer(500))
    desk.receiver.hold()
    await desk.deliver(first, other)
    await desk.deliver(other)
    desk.receiver.release()
    await desk.settle()
    # It waits for its second attempt.
    await desk.deliver(other)
    await desk.pass_time(6)
    # It was delivered.
    await desk.deliver(other)

    assert bodies(desk) == [first.value, first.value]
    row = desk.row("e1")
    assert row is not None
    assert row.status is Status.DELIVERED
    assert desk.context.unfinished == []


@pytest.mark.parametrize("waits_s", [pytest.param(0.1, id="in memory"), pytest.param(30.0, id="in a row")])
async def test_b10_the_first_bytes_are_sent_of_an_event_that_waits_for_a_slot(waits_s: float) -> None:
    desk = await Desk().open(webhook_row(max_in_flight=1))
    busy, first, other = desk.intent("busy"), desk.intent("e1", **FIRST), desk.intent("e1", **OTHER)
    desk.receiver.hold()
    await desk.deliver(busy, first, other)
    await desk.pass_time(waits_s)
    assert (desk.row("e1") is None) == (waits_s < 1)
    await desk.deliver(other)
    desk.receiver.release()
    await desk.pass_time(1)

    assert bodies(desk) == [busy.value, first.value]
    await desk.context.close(desk.processor)


@pytest.mark.parametrize(
    ("status", "remembered_s"),
    [pytest.param(200, HISTORY_S, id="delivered"), pytest.param(500, FAILED_HISTORY_S, id="failed")],
)
async def test_b10_an_event_is_delivered_again_under_its_id_once_its_delivery_is_not_remembered_any_more(
    status: int, remembered_s: float
) -> None:
    options = DeliveryOptions(schedule=RetrySchedule((0,)), history_s=HISTORY_S, failed_history_s=FAILED_HISTORY_S)
    desk = await Desk(options=options).open(webhook_row())
    desk.receiver.will_answer(answer(status))
    first = desk.intent("e1", **FIRST)
    await desk.deliver(first)
    await desk.pass_time(remembered_s - 1)
    await desk.deliver(desk.intent("e1", **OTHER))
    assert bodies(desk) == [first.value]
    await desk.pass_time(2)
    other = desk.intent("e1", **OTHER)
    await desk.deliver(other)

    assert bodies(desk) == [first.value, other.value]
    assert len({header(request, "webhook-id") for request in desk.receiver.requests}) == 1
    await desk.context.close(desk.processor)


async def test_b10_the_same_id_from_another_source_is_another_delivery(desk: Desk) -> None:
    ours, theirs = (desk.intent("e1", source=source) for source in ("/vault", "/other-vault"))
    await desk.deliver(ours, theirs)
    await desk.deliver(theirs)

    assert sorted(bodies(desk)) == sorted([ours.value, theirs.value])
    assert len({header(request, "webhook-id") for request in desk.receiver.requests}) == 2
    assert {header(request, "X-Event-Id") for request in desk.receiver.requests} == {"e1"}
