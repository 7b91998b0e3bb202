"""How much of a worker webhooks get that hang, are slow, or have more waiting than memory holds."""

from __future__ import annotations

from app.webhooks.pace import GlobalSlots
from app.webhooks.sender import AttemptOutcome
from tests.support.webhooks import TIMEOUT, Desk, header, webhook_row


async def test_hanging_webhooks_hold_half_of_the_worker_at_most() -> None:
    desk = await Desk(slots=GlobalSlots(6)).open(webhook_row("wh_a"), webhook_row("wh_b"), webhook_row("wh_c"))
    desk.receiver.will_answer(TIMEOUT, TIMEOUT, event_id="slow")
    await desk.deliver(desk.intent("slow", "wh_a"), desk.intent("slow", "wh_b"))
    desk.receiver.hold()
    await desk.deliver(*(desk.intent(f"a{n}", w) for n in range(4) for w in ("wh_a", "wh_b")))
    await desk.deliver(*(desk.intent(f"c{n}", "wh_c") for n in range(4)))

    posted = [header(r, "X-Webhook-Id") for r in desk.receiver.requests[2:]]
    assert posted.count("wh_c") == 2
    assert len(posted) == 5
    desk.receiver.release()
    await desk.settle()
    assert desk.slots.free == 6
    await desk.context.close(desk.processor)


async def test_a_backlog_beyond_memory_is_delivered_from_the_index() -> None:
    desk = await Desk().open(webhook_row(hold_until_ms=2_000_000_000_000))
    for part in range(7):
        await desk.deliver(*(desk.intent(f"e{part * 100 + n:04}", subject=f"d{n % 7}") for n in range(100)))
    await desk.context.close(desk.processor)
    row = desk.webhook()
    assert row is not None
    second = await Desk(rows=desk.context.rows, clock=desk.clock).open(webhook_row())
    await second.until(lambda: len(second.receiver.requests) >= 700, within_s=60)

    assert sorted(second.receiver.events()) == [f"e{n:04}" for n in range(700)]
    for lane in range(7):
        mine = [e for e in second.receiver.events() if (int(e[1:]) % 100) % 7 == lane]
        assert mine == sorted(mine)
    await second.context.close(second.processor)


async def test_receivers_that_answer_slowly_hold_half_of_the_worker_at_most() -> None:
    slow = [f"wh_{n}" for n in range(6)]
    desk = await Desk(slots=GlobalSlots(16)).open(*map(webhook_row, [*slow, "wh_well"]))
    desk.receiver.always(AttemptOutcome(duration_ms=15_000, error=None, status=200))
    await desk.deliver(*(desk.intent("first", webhook) for webhook in slow))
    desk.receiver.hold()
    await desk.deliver(*(desk.intent(f"e{n}", webhook) for n in range(4) for webhook in slow))
    await desk.deliver(*(desk.intent(f"w{n}", "wh_well") for n in range(4)))

    posted = [header(request, "X-Webhook-Id") for request in desk.receiver.requests[6:]]
    assert posted.count("wh_well") == 4
    assert len(posted) == 12
    await desk.context.close(desk.processor)


async def test_a_receiver_that_begins_to_hang_takes_no_more_than_half_of_the_worker_before_its_first_time_out() -> None:
    desk = await Desk(slots=GlobalSlots(8)).open(webhook_row("wh_a"), webhook_row("wh_b"), webhook_row("wh_well"))
    desk.receiver.hold()
    await desk.deliver(*(desk.intent(f"e{n}", webhook) for n in range(2) for webhook in ("wh_a", "wh_b")))
    await desk.pass_time(1.5)
    await desk.deliver(*(desk.intent(f"f{n}", webhook) for n in range(2) for webhook in ("wh_a", "wh_b")))

    # Whether it hangs is looked at when it asks for more: the first that asks still has half of the half.
    assert desk.receiver.under_way == 5
    await desk.deliver(desk.intent("e0", "wh_well"))
    assert desk.receiver.under_way == 6
    await desk.context.close(desk.processor)
