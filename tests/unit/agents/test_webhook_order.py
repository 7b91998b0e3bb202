"""The order of one subject: kept in flight, over a retry where it is strict, and over a crash."""

from __future__ import annotations

import pytest

from app.webhooks.commands import Op, WebhookPatch
from app.webhooks.model import Ordering, Reason
from app.webhooks.owned import DeliveryOptions
from app.webhooks.pace import GlobalSlots
from app.webhooks.schedule import RetrySchedule
from tests.support.webhooks import Desk, answer, webhook_row


async def test_one_subject_has_one_post_in_flight_in_order(desk: Desk) -> None:
    desk.receiver.hold()
    await desk.deliver(*(desk.intent(f"e{n}", subject="d1") for n in range(3)), desk.intent("other", subject="d2"))
    await desk.pass_time(0.5)
    assert desk.receiver.events() == ["e0", "other"]
    follower = desk.row("e1")
    assert follower is not None
    assert follower.reason is Reason.ORDER

    desk.receiver.release()
    await desk.settle()
    assert desk.receiver.events() == ["e0", "other", "e1", "e2"]


@pytest.mark.parametrize("back_s", [5.0, 100.0])
async def test_a_clock_set_back_while_the_first_of_a_subject_is_in_flight_lets_none_overtake_it_after_a_restart(
    back_s: float,
) -> None:
    """More wait than one look into the index shows, so that a follower with an earlier due time would be its head."""
    desk = await Desk(slots=GlobalSlots(64)).open(webhook_row(max_in_flight=1))
    desk.receiver.hold()
    await desk.deliver(desk.intent("first", subject="d1"))
    desk.clock.advance_wall(-back_s)
    await desk.deliver(desk.intent("second", subject="d1"))
    for n in range(600):
        await desk.deliver(desk.intent(f"x{n}", subject=f"other-{n}"))
    desk.clock.advance_wall(back_s + 1)
    await desk.context.close(desk.processor)

    heir = await Desk(rows=desk.context.rows, clock=desk.clock, slots=GlobalSlots(64)).open()
    await heir.pass_time(30)
    events = heir.receiver.events()
    assert events.index("first") < events.index("second")
    await heir.context.close(heir.processor)


async def test_a_retried_event_may_be_overtaken(desk: Desk) -> None:
    desk.receiver.will_answer(answer(500), event_id="e0")
    await desk.deliver(desk.intent("e0", subject="d1"), desk.intent("e1", subject="d1"))
    await desk.pass_time(6)

    assert desk.receiver.events() == ["e0", "e1", "e0"]


async def test_with_strict_ordering_a_retried_event_is_not_overtaken_until_it_is_given_up() -> None:
    desk = await Desk().open(webhook_row(ordering=Ordering.STRICT))
    desk.receiver.will_answer(*[answer(500)] * 4, event_id="e0")
    await desk.deliver(*(desk.intent(f"e{n}", subject="d1") for n in range(2)), desk.intent("x", subject="d2"))
    assert desk.receiver.events() == ["e0", "x"]
    await desk.deliver(desk.intent("e2", subject="d1"))
    await desk.pass_time(5000)

    assert desk.receiver.events() == ["e0", "x", "e0", "e0", "e0", "e1", "e2"]
    await desk.context.close(desk.processor)


async def test_strict_order_holds_over_a_restart() -> None:
    desk = await Desk().open(webhook_row(ordering=Ordering.STRICT))
    desk.receiver.will_answer(answer(500))
    await desk.deliver(*(desk.intent(f"e{n}", subject="d1") for n in range(3)))
    await desk.context.close(desk.processor)
    second = await Desk(rows=desk.context.rows, clock=desk.clock).open()
    assert second.receiver.events() == []
    await second.pass_time(6)

    assert second.receiver.events() == ["e0", "e1", "e2"]
    await second.context.close(second.processor)


async def test_order_that_is_made_strict_holds_from_the_next_record_on(desk: Desk) -> None:
    desk.receiver.will_answer(answer(500))
    await desk.deliver(desk.intent("e0", subject="d1"))
    stricter = desk.command(Op.UPDATE, patch=WebhookPatch(ordering=Ordering.STRICT))
    await desk.deliver(stricter, desk.intent("e1", subject="d1"))
    await desk.pass_time(10)

    assert desk.receiver.events() == ["e0", "e0", "e1"]


@pytest.mark.parametrize("after_s", [pytest.param(0.0, id="no row yet"), pytest.param(0.5, id="with a row")])
async def test_order_holds_over_a_crash_with_the_first_call_in_flight(desk: Desk, after_s: float) -> None:
    desk.receiver.hold()
    first, follower = desk.intent("e0", subject="d1"), desk.intent("e1", subject="d1")
    await desk.deliver(first)
    await desk.deliver(follower)
    await desk.pass_time(after_s)
    again = list(desk.context.unfinished)
    assert again == ([first] if after_s else [first, follower])
    await desk.context.close(desk.processor)
    second = await Desk(rows=desk.context.rows, clock=desk.clock).open()
    await second.deliver(*again)

    assert second.receiver.events() == ["e0", "e1"]
    await second.context.close(second.processor)


def due_ms(desk: Desk, event: str) -> int:
    row = desk.row(event)
    assert row is not None
    assert row.next_at_ms is not None
    return row.next_at_ms


@pytest.mark.parametrize("slices", [1, 2])
async def test_a_first_wait_of_chance_makes_none_due_before_those_that_came_before_it(slices: int) -> None:
    chances = iter([0.9, 0.1, 0.5])
    options = DeliveryOptions(schedule=RetrySchedule((20, 5)))
    desk = await Desk(options=options, uniform=lambda: next(chances)).open(webhook_row())
    first, *others = (desk.intent(f"e{n}", subject="d1") for n in range(3))
    for records in ([first, *others],) if slices == 1 else ([first], others):
        await desk.deliver(*records)

    assert due_ms(desk, "e0") <= due_ms(desk, "e1") <= due_ms(desk, "e2")
    await desk.context.close(desk.processor)


async def test_none_is_due_before_one_that_is_in_flight_from_its_row_though_the_time_of_day_is_set_back() -> None:
    desk = await Desk().open(webhook_row(rate_limit_per_s=0.1))
    await desk.deliver(desk.intent("before", subject="d1"), desk.intent("first", subject="d1"))
    desk.receiver.hold()
    await desk.pass_time(11)
    assert desk.receiver.events() == ["before", "first"]
    desk.clock.advance_wall(-20.0)
    await desk.deliver(desk.intent("second", subject="d1"))
    await desk.pass_time(2)

    assert due_ms(desk, "first") <= due_ms(desk, "second")
    await desk.context.close(desk.processor)
    again = await Desk(rows=desk.context.rows, clock=desk.clock).open()
    await again.pass_time(60)
    assert again.receiver.events() == ["first", "second"]
    await again.context.close(again.processor)


async def test_what_waited_once_delays_nothing_after_the_time_of_day_was_set_back() -> None:
    desk = await Desk().open(webhook_row(rate_limit_per_s=0.1))
    await desk.deliver(desk.intent("e0"), desk.intent("e1"))
    await desk.pass_time(60)
    desk.clock.advance_wall(-90.0)
    now_ms = desk.clock.now_ms()
    await desk.deliver(desk.intent("e2"), desk.intent("e3"))
    await desk.pass_time(2)

    assert due_ms(desk, "e3") == now_ms
    await desk.context.close(desk.processor)
