"""What cannot start at once but will in a moment waits without a row, and loses neither its place nor itself by it."""

from __future__ import annotations

from functools import partial

from msgspec import structs

from agents.webhooks.brief_waits import BRIEF_LIMIT, CROWDED, CROWDED_S
from app.engine import Slice
from app.observability import metrics
from app.webhooks.commands import Op, WebhookPatch
from app.webhooks.intents import IntentReason
from app.webhooks.model import Ordering, Reason, Status, WebhookRow
from app.webhooks.owned import DeliveryOptions
from tests.support.memory_unit import MemoryUnit
from tests.support.webhooks import OK, SCHEDULE, TOPICS, Desk, answer, webhook_row

SLOTS = 4


def replace_state(desk: Desk, webhook_id: str) -> WebhookRow:
    """The row of a webhook that is disabled, as memory has it once that is written."""
    return structs.replace(desk.processor._holdings.webhooks[webhook_id].row, enabled=False)


def waiting() -> float:
    return metrics.QUEUE_DEPTH.labels(queue_name="webhooks_waiting")._value.get()


async def test_what_gets_a_slot_in_a_moment_is_never_written_as_waiting(desk: Desk) -> None:
    before = waiting()
    desk.receiver.hold()
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(6)))
    assert [desk.row(f"e{n}") for n in range(6)] == [None] * 6
    assert len(desk.context.unfinished) == 6
    assert waiting() == before + 2

    desk.receiver.release()
    await desk.settle()
    assert desk.receiver.events() == [f"e{n}" for n in range(6)]
    assert [row.status for row in map(desk.row, desk.receiver.events()) if row] == [Status.DELIVERED] * 6
    assert desk.context.unfinished == []
    assert waiting() == before


async def test_what_comes_meanwhile_is_posted_after_it(desk: Desk) -> None:
    desk.receiver.hold()
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(5)))
    await desk.deliver(desk.intent("later"))
    desk.receiver.release()
    await desk.settle()

    assert desk.receiver.events() == ["e0", "e1", "e2", "e3", "e4", "later"]


async def test_it_gets_its_row_when_the_receiver_answers_nobody(desk: Desk) -> None:
    desk.receiver.hold()
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(SLOTS + 2)))
    await desk.pass_time(0.5)

    rows = [desk.row(f"e{n}") for n in (4, 5)]
    assert [(row.status, row.reason) for row in rows if row] == [(Status.PENDING, Reason.SLOT)] * 2
    assert len(desk.context.unfinished) == SLOTS
    await desk.deliver(desk.intent("e6"))
    assert desk.row("e6") is not None, "behind rows, and with no answer in sight, it does not wait in memory"


async def test_it_gets_its_row_after_a_second_though_the_receiver_answers_others() -> None:
    desk = await Desk(options=DeliveryOptions(schedule=SCHEDULE, max_in_flight=1)).open(webhook_row())
    desk.receiver.hold()
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(12)))
    for _ in range(6):
        desk.receiver.release()
        desk.receiver.hold()
        await desk.pass_time(0.2)

    left = [f"e{n}" for n in range(12) if f"e{n}" not in desk.receiver.events()]
    assert len(left) > 1
    assert all(row is not None and row.status is Status.PENDING for row in map(desk.row, left))
    desk.receiver.release()
    await desk.settle()
    assert desk.receiver.events() == [f"e{n}" for n in range(12)]
    await desk.context.close(desk.processor)


async def test_with_strict_ordering_it_gets_its_row_at_once() -> None:
    desk = await Desk().open(webhook_row(ordering=Ordering.STRICT))
    desk.receiver.hold()
    await desk.deliver(*(desk.intent(f"e{n}", subject="d1") for n in range(2)))

    assert desk.row("e1") is not None
    await desk.context.close(desk.processor)


async def test_nothing_gets_a_row_before_what_came_before_it(desk: Desk) -> None:
    """Else a crash would turn their order round: rows go first, unfinished records are read again."""
    desk.receiver.hold()
    await desk.deliver(desk.intent("e0", subject="d1"), desk.intent("e1", subject="d1"))
    desk.clock.advance(0.3)
    await desk.context.deliver(desk.processor, late := desk.intent("e2", subject="d1"))

    assert late not in desk.context.unfinished
    assert all(desk.row(f"e{n}") is not None for n in range(3))


async def test_a_slice_that_is_run_again_adds_nothing_twice(desk: Desk) -> None:
    desk.receiver.hold()
    records = [desk.intent(f"e{n}") for n in range(SLOTS + 1)]
    thrown_away = MemoryUnit(desk.context.rows)
    await desk.processor.process(Slice(0, records), thrown_away.unit)
    await desk.deliver(*records)
    desk.receiver.release()
    await desk.settle()

    assert desk.receiver.events() == [f"e{n}" for n in range(SLOTS + 1)]
    assert desk.context.unfinished == []


async def test_after_a_crash_it_is_delivered_from_its_record(desk: Desk) -> None:
    desk.receiver.hold()
    await desk.deliver(*(desk.intent(f"e{n}", subject=f"d{n % 3}") for n in range(6)))
    again = list(desk.context.unfinished)
    await desk.context.close(desk.processor)
    second = await Desk(rows=desk.context.rows, clock=desk.clock).open()
    await second.deliver(*again)

    assert second.receiver.events() == [f"e{n}" for n in range(6)]
    await second.context.close(second.processor)


async def test_when_its_webhook_is_disabled_it_is_missed(desk: Desk) -> None:
    desk.receiver.hold()
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(SLOTS + 1)))
    await desk.deliver(desk.command(Op.DISABLE))

    row = desk.row("e4")
    assert row is not None
    assert row.status is Status.MISSED
    assert len(desk.context.unfinished) == SLOTS


async def test_when_its_webhook_is_disabled_by_an_answer_it_is_missed(desk: Desk) -> None:
    desk.receiver.hold()
    desk.receiver.will_answer(answer(410))
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(SLOTS + 1)))
    desk.receiver.release()
    await desk.settle()

    row = desk.row("e4")
    assert row is not None
    assert row.status is Status.MISSED
    assert desk.context.unfinished == []


async def test_two_commands_in_one_slice_park_it_once(desk: Desk) -> None:
    before = waiting()
    desk.receiver.hold()
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(SLOTS + 1)))
    slower = desk.command(Op.UPDATE, patch=WebhookPatch(description="a"), command_id="c-1")
    again = desk.command(Op.UPDATE, patch=WebhookPatch(ordering=Ordering.STRICT), command_id="c-2")
    await desk.deliver(slower, again)
    assert waiting() == before + 1

    desk.receiver.release()
    await desk.settle()
    assert desk.receiver.events() == [f"e{n}" for n in range(SLOTS + 1)]
    assert waiting() == before


async def test_an_event_that_is_published_again_meanwhile_gives_nothing_a_row(desk: Desk) -> None:
    desk.receiver.hold()
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(SLOTS + 2)))
    repeated = [desk.intent(f"e{n}") for n in range(SLOTS + 2)]
    await desk.deliver(*repeated)
    assert [desk.row(f"e{n}") for n in range(SLOTS + 2)] == [None] * (SLOTS + 2)
    assert len(desk.context.unfinished) == SLOTS + 2
    assert not set(map(id, repeated)) & set(map(id, desk.context.unfinished))
    desk.receiver.release()
    await desk.settle()

    assert desk.receiver.events() == [f"e{n}" for n in range(SLOTS + 2)]
    assert desk.context.unfinished == []


async def test_after_a_crash_one_that_was_published_twice_is_delivered_from_the_first_record(desk: Desk) -> None:
    desk.receiver.hold()
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(SLOTS + 1)))
    await desk.deliver(desk.intent(f"e{SLOTS}"))
    again = list(desk.context.unfinished)
    await desk.context.close(desk.processor)
    second = await Desk(rows=desk.context.rows, clock=desk.clock).open()
    await second.deliver(*again)

    assert second.receiver.events() == [f"e{n}" for n in range(SLOTS + 1)]
    await second.context.close(second.processor)


async def test_a_resend_of_it_is_one_delivery_more_and_not_two(desk: Desk) -> None:
    desk.receiver.hold()
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(SLOTS + 1)))
    await desk.deliver(desk.intent("e4", reason=IntentReason.RESEND, request_id="r1"))
    desk.receiver.release()
    await desk.settle()

    assert desk.receiver.events() == [f"e{n}" for n in range(SLOTS + 1)]
    assert desk.context.unfinished == []


async def test_a_failure_of_what_waited_so_is_retried_on_the_schedule(desk: Desk) -> None:
    desk.receiver.hold()
    desk.receiver.will_answer(answer(500), event_id="e4")
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(SLOTS + 1)))
    desk.receiver.release()
    await desk.pass_time(6)

    assert desk.receiver.events() == ["e0", "e1", "e2", "e3", "e4", "e4"]
    (retry,) = [sent for sent in desk.sent(TOPICS.attempts) if sent["data"]["outcome"] == "retry"]
    assert retry["data"]["attempt"] == 1


async def test_a_busy_worker_holds_the_next_slice_back_for_a_moment_and_no_longer(desk: Desk) -> None:
    desk.receiver.hold()
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(SLOTS + CROWDED)))
    assert desk.processor.holds_back_s() == 0
    desk.busy = True
    assert desk.processor.holds_back_s() == CROWDED_S

    desk.clock.advance(CROWDED_S)
    assert desk.processor.holds_back_s() == 0
    desk.receiver.release()
    await desk.settle()
    assert desk.processor.holds_back_s() == 0


async def test_a_busy_worker_works_off_rows_of_a_webhook_that_gets_on_before_it_makes_more(desk: Desk) -> None:
    desk.receiver.hold()
    await desk.context.deliver(desk.processor, *(desk.intent(f"e{n}") for n in range(SLOTS + BRIEF_LIMIT + 1)))
    desk.busy = True
    assert desk.processor.holds_back_s() == CROWDED_S

    desk.clock.advance(0.5)
    assert desk.processor.holds_back_s() == 0, "nothing ends, so to wait for it would be for nothing"


async def test_there_are_never_more_of_them_than_the_limit(desk: Desk) -> None:
    desk.receiver.hold()
    await desk.context.deliver(desk.processor, *(desk.intent(f"e{n}") for n in range(SLOTS + BRIEF_LIMIT + 1)))

    assert len(desk.context.unfinished) == SLOTS
    assert sum(desk.row(f"e{n}") is not None for n in range(SLOTS + BRIEF_LIMIT + 1)) == BRIEF_LIMIT + 1
    desk.receiver.always(structs.replace(OK, duration_ms=4))
    desk.receiver.release()
    await desk.settle()
    assert desk.receiver.events() == [f"e{n}" for n in range(SLOTS + BRIEF_LIMIT + 1)]


async def test_a_resend_of_what_was_missed_counts_as_a_retry_also_after_the_number_was_opened_again(
    desk: Desk,
) -> None:
    """Counted one way and taken out another, it would keep its webhook from ever waiting briefly."""
    await desk.deliver(desk.command(Op.DISABLE))
    await desk.deliver(desk.intent("e1"))
    await desk.deliver(desk.command(Op.ENABLE, command_id="c-on"))
    desk.receiver.hold()
    await desk.context.deliver(desk.processor, desk.intent("e1", reason=IntentReason.RESEND, request_id="r1"))
    await desk.context.close(desk.processor)
    second = await Desk(rows=desk.context.rows, clock=desk.clock).open()
    await second.pass_time(5)
    row = second.row("e1")
    assert row is not None
    assert row.status is Status.DELIVERED
    assert not second.processor._holdings.brief.parked

    await second.deliver(second.command(Op.DELETE, command_id="c-gone"))
    await second.pass_time(5)
    second.busy = True
    assert second.processor.holds_back_s() == 0
    await second.context.close(second.processor)


async def test_of_a_webhook_that_is_gone_nothing_holds_a_slice_back(desk: Desk) -> None:
    desk.processor._holdings.brief.parks("wh_gone", 1)
    desk.busy = True

    assert desk.processor.holds_back_s() == 0


async def test_what_was_delivered_in_the_unit_in_which_its_webhook_ends_stays_delivered(desk: Desk) -> None:
    """One answers 410 while the one ahead of what waits answers 200: both outcomes and the ending are one unit."""
    desk.receiver.hold()
    desk.receiver.will_answer(answer(410), event_id="gone")
    await desk.deliver(desk.intent("gone"), desk.intent("e0", subject="d1"), desk.intent("e1", subject="d1"))
    webhook_id = "wh_a"
    holdings, endings = desk.processor._holdings, desk.processor._endings
    flight = next(f for f in holdings.flights.values() if f.row.event_id == "e0")
    disabled = replace_state(desk, webhook_id)
    unit = MemoryUnit(desk.context.rows)
    step_first = partial(desk.processor._attempts._settle, flight, OK, desk.clock.now_ms())
    step_first(unit.unit)
    holdings.webhooks[webhook_id].row = disabled
    endings._end_some(webhook_id, unit.unit)
    unit.done()

    delivered, missed = desk.row("e0"), desk.row("e1")
    assert delivered is not None
    assert missed is not None
    assert (delivered.status, delivered.attempts) == (Status.DELIVERED, 1)
    assert missed.status is Status.MISSED
    assert not holdings.brief.parked


async def test_two_that_wait_and_are_asked_for_again_in_one_slice_are_both_asked_for(desk: Desk) -> None:
    again = [
        desk.intent(event, reason=IntentReason.RESEND, request_id=request)
        for event, request in (("e4", "r4"), ("e5", "r5"))
    ]
    before = waiting()
    desk.receiver.hold()
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(SLOTS + 2)))

    await desk.deliver(*again)

    rows = [desk.row("e4"), desk.row("e5")]
    assert [(row.reason, row.request_id) for row in rows if row] == [(Reason.RESEND, "r4"), (Reason.RESEND, "r5")]
    desk.receiver.release()
    await desk.settle()
    await desk.pass_time(5)
    posted = len(desk.receiver.events())
    assert waiting() == before
    # Published again by whoever asked, it is the same request.
    await desk.deliver(*again)
    await desk.settle()
    assert len(desk.receiver.events()) == posted
