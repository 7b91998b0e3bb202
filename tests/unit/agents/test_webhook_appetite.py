"""A busy worker takes of a webhook's events as many as that has slots for: what starts at once costs least."""

from __future__ import annotations

import pytest

from agents.webhooks.appetite import FEWEST, HOLD_S, LEAST, WORK_OFF_S
from app.webhooks.owned import DeliveryOptions
from tests.support.webhooks import SCHEDULE, Desk, webhook_row

LIMIT = 64
SLOTS = 40


async def busy_desk(slots: int = SLOTS) -> Desk:
    """Two webhooks with 40 slots each, whose receivers hang from now on."""
    options = DeliveryOptions(schedule=SCHEDULE, max_in_flight=slots)
    desk = await Desk(options=options).open(webhook_row("wh_a"), webhook_row("wh_b"))
    # Slots grow with each success.
    for id_ in ("wh_a", "wh_b"):
        await desk.deliver(*(desk.intent(f"warm-{n}", id_) for n in range(SLOTS)))
    # The last slice is short of nothing.
    await desk.deliver(desk.intent("warm"))
    desk.busy = True
    desk.receiver.hold()
    return desk


async def test_whose_slots_were_too_few_gets_as_many_as_it_has_slots() -> None:
    desk = await busy_desk()
    assert desk.processor.takes(LIMIT) == LIMIT

    await desk.deliver(*(desk.intent(f"e{n}") for n in range(SLOTS + 1)))
    assert desk.processor.takes(LIMIT) == LIMIT, "there are none, and to take less would help nobody"
    desk.receiver.release()
    await desk.settle()
    assert desk.processor.takes(LIMIT) == SLOTS
    assert desk.processor.takes(30) == 30
    await desk.context.close(desk.processor)


async def test_the_next_slice_waits_for_what_waits_already_and_then_for_slots_but_not_for_long() -> None:
    desk = await busy_desk()
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(SLOTS + 1)))
    assert desk.processor.holds_back_s() == pytest.approx(WORK_OFF_S)
    desk.clock.advance(WORK_OFF_S)
    assert desk.processor.holds_back_s() == 0

    desk.receiver.release()
    await desk.settle()
    assert desk.processor.holds_back_s() == 0
    await desk.context.close(desk.processor)


async def test_slots_that_nobody_uses_are_waited_for_a_moment() -> None:
    desk = await busy_desk()
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(SLOTS + 1)))
    desk.receiver.release()
    await desk.settle()
    desk.receiver.hold()
    least = min(LEAST, SLOTS // 4)
    await desk.deliver(*(desk.intent(f"f{n}") for n in range(SLOTS - least + 1)))
    assert not desk.processor._holdings.brief
    assert desk.processor.takes(LIMIT) == LIMIT, "too few are free"
    assert desk.processor.holds_back_s() == pytest.approx(HOLD_S)

    desk.clock.advance(HOLD_S)
    assert desk.processor.holds_back_s() == 0
    await desk.context.close(desk.processor)


async def test_only_of_one_that_gets_most_of_it_a_slice_takes_less() -> None:
    desk = await busy_desk()
    smaller = [desk.intent(f"a{n}") for n in range(SLOTS // 2 + 1)]
    larger = [desk.intent(f"b{n}", "wh_b") for n in range(SLOTS)]
    await desk.deliver(*(desk.intent(f"first-{n}") for n in range(SLOTS // 2)))
    await desk.deliver(*smaller, *larger)
    assert len(desk.processor._holdings.brief) == 1
    assert desk.processor.holds_back_s() == 0, "the larger part of it has slots"

    await desk.deliver(*(desk.intent(f"c{n}") for n in range(3)), desk.intent("d", "wh_b"))
    assert desk.processor.holds_back_s() > 0
    await desk.deliver(desk.intent("e"), *(desk.intent(f"f{n}", "wh_gone") for n in range(3)))
    assert desk.processor.holds_back_s() > 0, "of those that nobody has, none needs a slot"
    desk.receiver.release()
    await desk.settle()
    assert desk.processor.takes(LIMIT) == SLOTS
    await desk.deliver(desk.intent("g"), *(desk.intent(f"h{n}", "wh_b") for n in range(3)))
    assert desk.processor.takes(LIMIT) == LIMIT
    await desk.context.close(desk.processor)


async def test_a_worker_with_time_to_spare_takes_all() -> None:
    desk = await busy_desk()
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(SLOTS + 1)))
    desk.busy = False

    assert desk.processor.takes(LIMIT) == LIMIT
    assert desk.processor.holds_back_s() == 0
    await desk.context.close(desk.processor)


async def test_nobody_waits_for_a_receiver_that_answers_nobody() -> None:
    desk = await busy_desk()
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(SLOTS + 1)))
    desk.clock.advance(0.5)

    assert desk.processor.takes(LIMIT) == LIMIT
    assert desk.processor.holds_back_s() == 0
    await desk.context.close(desk.processor)


@pytest.mark.parametrize("slots", [4, 4 * FEWEST - 1])
async def test_of_one_with_few_slots_a_slice_waits_for_none(slots: int) -> None:
    desk = await busy_desk(slots)
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(SLOTS + 1)))

    assert desk.processor.takes(LIMIT) == LIMIT
    assert desk.processor.holds_back_s() == 0
    await desk.context.close(desk.processor)


async def test_what_waits_for_those_of_its_subject_is_not_short_of_slots() -> None:
    desk = await busy_desk()
    await desk.deliver(*(desk.intent(f"e{n}", subject="one") for n in range(SLOTS // 2)))

    assert desk.processor.takes(LIMIT) == LIMIT
    assert desk.processor.holds_back_s() == 0
    await desk.context.close(desk.processor)
