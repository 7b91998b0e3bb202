"""The agent that owns webhooks: intents and commands in, signed POSTs and rows out."""

from __future__ import annotations

from app.webhooks.commands import Op
from app.webhooks.model import Reason, Status
from tests.support.webhooks import TOPICS, Desk, answer, header


async def test_an_intent_is_posted_at_once_and_its_record_ends_with_the_row(desk: Desk) -> None:
    desk.receiver.hold()
    await desk.deliver(desk.intent("e1"))

    assert desk.row("e1") is None
    assert len(desk.context.unfinished) == 1

    desk.receiver.release()
    await desk.settle()

    row = desk.row("e1")
    assert row is not None
    assert (row.status, row.attempts, row.body) == (Status.DELIVERED, 1, None)
    assert desk.context.unfinished == []


async def test_the_post_carries_the_bytes_of_the_intent_and_our_headers(desk: Desk) -> None:
    intent = desk.intent("e1")
    await desk.deliver(intent)

    (request,) = desk.receiver.requests
    assert request.body == intent.value
    assert header(request, "X-Delivery-Attempt") == "1"
    assert header(request, "X-Webhook-Id") == "wh_a"
    assert header(request, "webhook-signature").startswith("v1,")


async def test_an_attempt_is_published_with_its_row(desk: Desk) -> None:
    await desk.deliver(desk.intent("e1"))

    (event,) = desk.sent(TOPICS.attempts)
    assert event["type"] == "llm.vault-stream.webhook.attempted"
    assert event["data"]["outcome"] == "delivered"
    assert event["data"]["status_code"] == 200
    assert event["subject"] == "wh_a"


async def test_a_repeated_intent_is_known_in_flight_and_afterwards(desk: Desk) -> None:
    desk.receiver.hold()
    await desk.deliver(desk.intent("e1"))
    unit = await desk.deliver(desk.intent("e1"))
    desk.receiver.release()
    await desk.settle()
    await desk.deliver(desk.intent("e1"))

    assert unit.held == []
    assert desk.receiver.events() == ["e1"]


async def test_a_slice_that_is_run_again_holds_its_records_again_and_posts_once(desk: Desk) -> None:
    desk.receiver.hold()
    intent, malformed = desk.intent("e1"), desk.command(Op.HOLD)
    unit = await desk.context.deliver(desk.processor, intent, malformed)
    again = await desk.context.deliver(desk.processor, intent)
    desk.receiver.release()
    await desk.settle()

    assert unit.held == again.held == [intent]


async def test_a_failure_waits_for_its_step_with_the_body_and_is_made_again(desk: Desk) -> None:
    desk.receiver.will_answer(answer(500, body="broken"))
    await desk.deliver(desk.intent("e1"))

    row = desk.row("e1")
    assert row is not None
    assert (row.status, row.reason, row.attempts) == (Status.RETRYING, Reason.RETRY, 1)
    assert row.body is not None
    assert row.response_body == "broken"
    assert desk.context.unfinished == []

    await desk.pass_time(4.9)
    assert len(desk.receiver.requests) == 1
    await desk.pass_time(0.2)

    assert [header(r, "X-Delivery-Attempt") for r in desk.receiver.requests] == ["1", "2"]
    assert len({r.body for r in desk.receiver.requests}) == 1
    delivered = desk.row("e1")
    assert delivered is not None
    assert delivered.status is Status.DELIVERED
    assert delivered.response_body is None


async def test_a_delivery_without_a_step_left_becomes_a_dead_letter_with_its_event(desk: Desk) -> None:
    desk.receiver.always(answer(500))
    intent = desk.intent("e1")
    await desk.deliver(intent)
    await desk.pass_time(5000)

    row = desk.row("e1")
    assert row is not None
    assert (row.status, row.reason, row.attempts, row.body) == (Status.FAILED, Reason.EXHAUSTED, 4, None)
    (letter,) = desk.context.sent_to(TOPICS.dead_letters)
    assert intent.value in (letter.value or b"")
    (event,) = desk.sent(TOPICS.dead_letters)
    assert event["type"] == "llm.vault-stream.webhook.given-up"
    assert event["data"]["reason"] == "exhausted"
    assert event["id"] == f"{row.delivery_id}-0"


async def test_a_restart_takes_up_what_waits(desk: Desk) -> None:
    desk.receiver.will_answer(answer(500))
    await desk.deliver(desk.intent("e1"))
    await desk.context.close(desk.processor)

    second = await Desk(rows=desk.context.rows, clock=desk.clock).open()
    await second.pass_time(6)

    assert second.receiver.events() == ["e1"]
    await second.context.close(second.processor)


async def test_a_call_in_flight_at_a_revoke_is_made_again_by_the_next_owner(desk: Desk) -> None:
    desk.receiver.hold()
    intent = desk.intent("e1")
    await desk.deliver(intent)
    await desk.context.close(desk.processor)

    assert desk.slots.free == 256
    second = await Desk(rows=desk.context.rows, clock=desk.clock).open()
    await second.deliver(intent)

    assert second.receiver.events() == ["e1"]
    await second.context.close(second.processor)


async def test_nothing_starts_without_a_recent_heartbeat(desk: Desk) -> None:
    desk.context.acting = False
    await desk.deliver(desk.intent("e1"))
    assert desk.receiver.requests == []
    assert not desk.processor.busy()

    desk.context.acting = True
    await desk.settle()
    assert desk.receiver.events() == ["e1"]


async def test_a_drain_starts_nothing_and_waits_for_what_is_under_way(desk: Desk) -> None:
    desk.receiver.will_answer(answer(500))
    await desk.deliver(desk.intent("e1"))
    desk.receiver.hold()
    await desk.deliver(desk.intent("e2"))
    desk.processor.begin_drain()

    await desk.pass_time(10)
    assert desk.processor.busy()
    assert desk.receiver.events() == ["e1", "e2"]

    desk.receiver.release()
    await desk.settle()
    assert not desk.processor.busy()


async def test_a_webhook_has_four_slots_at_first_and_the_rest_is_parked(desk: Desk) -> None:
    desk.receiver.hold()
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(6)))

    assert desk.receiver.under_way == 4
    assert len(desk.context.unfinished) == 6
    await desk.pass_time(0.5)
    parked = [desk.row(f"e{n}") for n in range(6)]
    assert [row.reason if row else None for row in parked] == [None] * 4 + [Reason.SLOT] * 2
    assert len(desk.context.unfinished) == 4

    desk.receiver.release()
    await desk.settle()
    assert all(row is not None and row.status is Status.DELIVERED for row in (desk.row(f"e{n}") for n in range(6)))
