"""What happens to webhooks and rows beside their attempts: health, holds, ends, commands, what is put aside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from app.engine import Unit
from app.observability import metrics
from app.webhooks.commands import Op, WebhookPatch
from app.webhooks.intents import IntentReason
from app.webhooks.model import Health, Reason, Status
from app.webhooks.owned import DeliveryOptions
from app.webhooks.schedule import RetrySchedule
from app.webhooks.secrets import KeyRing
from tables.delivery_queries import DeliveryQuery, find_delivery, find_page
from tests.support.memory_unit import record
from tests.support.webhooks import OK, SCHEDULE, TOPICS, Desk, answer, webhook_row


async def test_410_fails_the_delivery_and_disables_the_webhook(desk: Desk) -> None:
    desk.receiver.will_answer(answer(410))
    await desk.deliver(desk.intent("e1"))
    await desk.deliver(desk.intent("e2"))

    row, webhook, missed = desk.row("e1"), desk.webhook(), desk.row("e2")
    assert row is not None
    assert webhook is not None
    assert missed is not None
    assert (row.status, row.reason) == (Status.FAILED, Reason.GONE)
    assert (webhook.health, webhook.enabled, webhook.disabled_reason) == (Health.DISABLED, False, "gone")
    assert webhook.version == 1
    assert (missed.status, missed.body) == (Status.MISSED, None)
    (event,) = desk.sent(TOPICS.events)
    assert event["type"] == "llm.data-vault.webhook.disabled"
    assert event["data"] | {"since": ""} == {"webhook_id": "wh_a", "reason": "gone", "since": "", "last_code": 410}
    assert desk.sent(TOPICS.dead_letters) == []


async def test_429_holds_the_whole_webhook(desk: Desk) -> None:
    desk.receiver.will_answer(answer(429, retry_after_s=60))
    await desk.deliver(desk.intent("e1"))
    await desk.deliver(desk.intent("e2"))

    held = desk.row("e2")
    webhook = desk.webhook()
    assert held is not None
    assert webhook is not None
    assert held.reason is Reason.HOLD
    assert webhook.hold_until_ms == desk.clock.now_ms() + 60_000
    await desk.pass_time(59)
    assert desk.receiver.events() == ["e1"]
    await desk.pass_time(2)
    assert sorted(desk.receiver.events()) == ["e1", "e1", "e2"]


async def test_health_is_written_and_announced_when_it_changes_only(desk: Desk) -> None:
    desk.receiver.always(answer(500))
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(4)))
    await desk.deliver(*(desk.intent(f"f{n}") for n in range(4)))
    webhook = desk.webhook()
    assert webhook is not None
    assert webhook.health is Health.OK
    await desk.deliver(*(desk.intent(f"g{n}") for n in range(2)))
    webhook = desk.webhook()
    assert webhook is not None
    assert (webhook.health, webhook.failures) == (Health.FAILING, 10)

    desk.receiver.always(OK)
    await desk.pass_time(10)
    webhook = desk.webhook()
    assert webhook is not None
    assert (webhook.health, webhook.failing_since_ms) == (Health.OK, None)
    assert [e["type"].rpartition(".")[2] for e in desk.sent(TOPICS.events)] == ["failing", "recovered"]


async def test_a_row_that_waits_too_long_expires_without_an_attempt() -> None:
    desk = await Desk(options=DeliveryOptions(schedule=SCHEDULE, max_age_s=60)).open(
        webhook_row(hold_until_ms=2_000_000_000_000)
    )
    await desk.deliver(desk.intent("e1"))
    await desk.pass_time(62)

    row = desk.row("e1")
    assert row is not None
    assert (row.status, row.reason, row.attempts) == (Status.FAILED, Reason.EXPIRED, 0)
    assert len(desk.sent(TOPICS.dead_letters)) == 1
    assert desk.receiver.requests == []
    await desk.context.close(desk.processor)


async def test_an_ended_row_is_forgotten_after_its_time() -> None:
    desk = await Desk(options=DeliveryOptions(schedule=SCHEDULE, history_s=100)).open(webhook_row())
    await desk.deliver(desk.intent("e1"))
    assert desk.row("e1") is not None
    await desk.pass_time(102)

    assert desk.row("e1") is None
    await desk.context.close(desk.processor)


async def test_a_resend_makes_an_ended_delivery_again_once(desk: Desk) -> None:
    await desk.deliver(desk.intent("e1"))
    resend = {"reason": IntentReason.RESEND, "request_id": "r1"}
    await desk.deliver(desk.intent("e1", **resend))
    await desk.deliver(desk.intent("e1", **resend))

    assert desk.receiver.events() == ["e1", "e1"]
    row = desk.row("e1")
    assert row is not None
    assert (row.status, row.attempts, row.resends, row.request_id) == (Status.DELIVERED, 2, 1, "r1")


async def test_a_deleted_webhook_cancels_what_waits_and_goes_last(desk: Desk) -> None:
    desk.receiver.will_answer(answer(500), answer(500))
    await desk.deliver(desk.intent("e1"), desk.intent("e2"))
    desk.receiver.hold()
    await desk.deliver(desk.intent("e3"))
    await desk.deliver(desk.command(Op.DELETE, base_version=1))

    webhook = desk.webhook()
    assert webhook is not None
    assert webhook.deleting
    assert [r.status if r else None for r in map(desk.row, ("e1", "e2", "e3"))] == [
        Status.CANCELLED,
        Status.CANCELLED,
        None,
    ]
    desk.receiver.release()
    await desk.settle()
    assert desk.webhook() is None
    row = desk.row("e3")
    assert row is not None
    assert row.status is Status.DELIVERED
    assert desk.context.unfinished == []


async def test_a_deleted_webhook_goes_though_its_last_call_ends_while_its_rows_are_looked_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.receiver.hold()
    await desk.deliver(desk.intent("e1"))
    merged, resumed = desk.context.submit, asyncio.Event()

    async def submit(job: Callable[[Unit], Any]) -> Any:
        """Jobs are merged together; whoever awaits one goes on some time later."""
        result = await merged(job)
        await resumed.wait()
        return result

    monkeypatch.setattr(desk.context, "submit", submit)
    await desk.deliver(desk.command(Op.DELETE, base_version=1))
    desk.receiver.release()
    await desk.settle()
    resumed.set()
    await desk.settle()

    assert desk.webhook() is None


async def test_a_disabled_webhook_misses_what_waits_and_an_enabled_one_goes_on(desk: Desk) -> None:
    desk.receiver.will_answer(answer(500))
    await desk.deliver(desk.intent("e1"))
    await desk.deliver(desk.command(Op.DISABLE))
    await desk.deliver(desk.intent("e2"))
    await desk.deliver(desk.command(Op.ENABLE, command_id="c2"))
    await desk.deliver(desk.intent("e3"))

    assert [r.status if r else None for r in map(desk.row, ("e1", "e2", "e3"))] == [
        Status.MISSED,
        Status.MISSED,
        Status.DELIVERED,
    ]
    webhook = desk.webhook()
    assert webhook is not None
    assert (webhook.health, webhook.enabled, webhook.version) == (Health.OK, True, 3)


async def test_a_created_webhook_is_audited_and_served(desk: Desk) -> None:
    row = webhook_row("wh_b")
    patch = WebhookPatch(url=row.url, events=row.events)
    await desk.deliver(desk.command(Op.CREATE, "wh_b", patch=patch, secrets=row.secrets))
    await desk.deliver(desk.intent("e1", "wh_b"))

    assert desk.receiver.events() == ["e1"]
    (event,) = desk.sent(TOPICS.events)
    assert event["type"] == "llm.data-vault.webhook.created"
    assert event["data"]["actor"]["id"] == "ops"


async def test_a_command_for_another_version_or_too_late_changes_nothing(desk: Desk) -> None:
    await desk.deliver(desk.command(Op.DISABLE, base_version=7))
    await desk.deliver(desk.command(Op.DISABLE, expires_at=desk.clock.now_ms() - 1))

    webhook = desk.webhook()
    assert webhook is not None
    assert webhook.enabled


async def test_a_hold_command_is_honoured(desk: Desk) -> None:
    until_ms = desk.clock.now_ms() + 30_000
    await desk.deliver(desk.command(Op.HOLD, patch=WebhookPatch(hold_until_ms=until_ms)))
    await desk.deliver(desk.intent("e1"))
    assert desk.receiver.requests == []
    await desk.pass_time(31)

    assert desk.receiver.events() == ["e1"]


async def test_a_hold_that_is_lifted_ends_at_once(desk: Desk) -> None:
    until_ms = desk.clock.now_ms() + 3_600_000
    await desk.deliver(desk.command(Op.HOLD, patch=WebhookPatch(hold_until_ms=until_ms)))
    await desk.deliver(desk.intent("e1"))
    await desk.deliver(desk.command(Op.HOLD, command_id="c2", patch=WebhookPatch(hold_until_ms=None)))

    assert desk.receiver.events() == ["e1"]


async def test_a_429_does_not_shorten_the_hold_of_an_admin(desk: Desk) -> None:
    desk.receiver.hold()
    desk.receiver.will_answer(answer(429, retry_after_s=30))
    await desk.deliver(desk.intent("e1"))
    until_ms = desk.clock.now_ms() + 3_600_000
    await desk.deliver(desk.command(Op.HOLD, patch=WebhookPatch(hold_until_ms=until_ms)))
    desk.receiver.release()
    await desk.pass_time(3_590)
    assert desk.receiver.events() == ["e1"]
    await desk.pass_time(20)

    assert desk.receiver.events() == ["e1", "e1"]


async def test_a_rate_limit_is_met_over_time_and_never_passed() -> None:
    desk = await Desk().open(webhook_row(rate_limit_per_s=2))
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(30)))
    counts = []
    for _ in range(15):
        await desk.pass_time(1.0)
        counts.append(len(desk.receiver.requests))

    assert all(abs(count - (1 + 2 * second)) <= 1 for second, count in enumerate(counts, 1))
    assert counts[-1] == 30
    await desk.context.close(desk.processor)


async def test_a_webhook_has_its_own_schedule_timeout_and_cap() -> None:
    desk = await Desk().open(webhook_row(retry_schedule_s=(0, 60), timeout_s=7.0, max_in_flight=2))
    desk.receiver.hold()
    desk.receiver.always(answer(500))
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(3)))
    assert desk.receiver.under_way == 2
    assert {request.timeout_s for request in desk.receiver.requests} == {7.0}
    desk.receiver.release()
    await desk.pass_time(59)
    assert len(desk.receiver.requests) == 3
    await desk.pass_time(10)

    rows = [desk.row(f"e{n}") for n in range(3)]
    assert [row.reason if row else None for row in rows] == [Reason.EXHAUSTED] * 3
    await desk.context.close(desk.processor)


async def test_an_ended_row_outlives_twice_the_webhooks_own_timeout() -> None:
    desk = await Desk(options=DeliveryOptions(schedule=SCHEDULE, history_s=30)).open(webhook_row(timeout_s=60.0))
    await desk.deliver(desk.intent("e1"))
    await desk.pass_time(119)
    assert desk.row("e1") is not None
    await desk.pass_time(3)

    assert desk.row("e1") is None
    await desk.context.close(desk.processor)


async def test_a_webhook_whose_key_is_missing_waits_without_attempts() -> None:
    desk = await Desk(keys=KeyRing([], bytes)).open(webhook_row())
    await desk.deliver(desk.intent("e1"))
    await desk.pass_time(120)

    row = desk.row("e1")
    assert row is not None
    assert (row.status, row.reason, row.attempts) == (Status.PENDING, Reason.NO_KEY, 0)
    await desk.context.close(desk.processor)


async def test_a_missing_key_is_told_once_and_not_for_each_intent(caplog: pytest.LogCaptureFixture) -> None:
    desk = await Desk(keys=KeyRing([], bytes)).open(webhook_row())
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(5)))

    assert len(caplog.records) == 1
    await desk.context.close(desk.processor)


async def test_an_event_that_no_row_could_keep_is_put_aside_before_it_is_posted(desk: Desk) -> None:
    desk.receiver.always(answer(500))
    await desk.deliver(desk.intent("e1", subject="s" * 255_000), desk.intent("e2"))

    assert [put.reason for put in desk.context.quarantined] == ["too_large"]
    assert desk.receiver.events() == ["e2"]


async def test_a_row_that_is_written_for_order_alone_is_counted_once_as_waiting(desk: Desk) -> None:
    waiting = metrics.DELIVERIES_WAITING.labels(reason="slot")
    pending = metrics.DELIVERIES.labels(status="pending")
    waited_before, pending_before = waiting._value.get(), pending._value.get()
    desk.receiver.hold()
    first = desk.intent("e0", subject="d1")
    await desk.deliver(first, *(desk.intent(f"e{n}", subject="d1") for n in (1, 2)))
    await desk.pass_time(0.5)
    assert pending._value.get() - pending_before == 3
    await desk.context.close(desk.processor)

    second = await Desk(rows=desk.context.rows, clock=desk.clock).open()
    await second.deliver(first)
    assert second.receiver.events() == ["e0", "e1", "e2"]
    assert waiting._value.get() == waited_before
    await second.context.close(second.processor)


async def test_an_intent_that_is_none_is_put_aside_and_the_next_one_is_posted(desk: Desk) -> None:
    await desk.deliver(record(b"{", topic=TOPICS.deliveries, offset=99), desk.intent("e1"))

    assert [q.reason for q in desk.context.quarantined] == ["invalid_envelope"]
    assert desk.receiver.events() == ["e1"]


async def test_an_intent_of_an_unknown_webhook_is_done(desk: Desk) -> None:
    await desk.deliver(desk.intent("e1", "wh_gone"))

    assert desk.context.unfinished == []
    assert desk.receiver.requests == []


async def test_the_api_reads_rows_and_what_is_in_flight(desk: Desk) -> None:
    await desk.deliver(desk.intent("e1"))
    desk.clock.advance(1)
    desk.receiver.hold()
    await desk.deliver(desk.intent("e2"))
    reader = desk.readers.get(0)
    assert reader is not None

    page = await reader.read(lambda unit, flights: find_page(unit, flights, DeliveryQuery(webhook_id="wh_a"), 10))
    assert [(f.row.event_id, f.row.status, f.in_flight) for f in page.items] == [
        ("e2", Status.PENDING, True),
        ("e1", Status.DELIVERED, False),
    ]
    id_ = page.items[1].row.delivery_id
    found = await reader.read(lambda unit, flights: find_delivery(unit, flights, id_))
    assert found is not None
    assert found.row.event_id == "e1"


async def test_a_schedule_that_begins_with_a_wait_lets_the_first_attempt_wait() -> None:
    desk = await Desk(options=DeliveryOptions(schedule=RetrySchedule((3, 5)))).open(webhook_row())
    await desk.deliver(desk.intent("e1"))
    await desk.pass_time(2)
    assert desk.receiver.requests == []
    await desk.pass_time(2)

    assert desk.receiver.events() == ["e1"]
    await desk.context.close(desk.processor)


async def test_the_wait_for_a_first_attempt_has_jitter_too() -> None:
    desk = await Desk(options=DeliveryOptions(schedule=RetrySchedule((3, 5))), uniform=lambda: 0.5).open(webhook_row())
    await desk.deliver(desk.intent("e1"))
    await desk.pass_time(3.9)
    assert desk.receiver.requests == []
    await desk.pass_time(0.2)

    assert desk.receiver.events() == ["e1"]
    await desk.context.close(desk.processor)


async def test_two_changes_of_health_in_one_millisecond_are_two_events(desk: Desk) -> None:
    for streak in ("a", "b"):
        desk.receiver.always(answer(500))
        for burst in range(3):
            await desk.deliver(*(desk.intent(f"{streak}{burst}-{n}") for n in range(4)))
        desk.receiver.always(OK)
        await desk.deliver(desk.intent(f"{streak}-well"))

    announced = desk.sent(TOPICS.events)

    assert [e["type"].rpartition(".")[2] for e in announced] == ["failing", "recovered"] * 2
    assert len({e["id"] for e in announced}) == len(announced)
