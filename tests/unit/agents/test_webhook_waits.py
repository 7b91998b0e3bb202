"""Deliveries that wait do not wait for ever: found by reading with the worst in mind, each once red."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.webhooks.backlog import Entry
from app.webhooks.commands import Op, WebhookPatch
from app.webhooks.intents import IntentReason
from app.webhooks.model import Reason, Status
from app.webhooks.pace import GlobalSlots, PaceRules
from app.webhooks.scheduler import Limits, Now, Result, Scheduler
from tests.support.webhooks import TOPICS, Desk, answer, webhook_row

DAY_S = 86_400.0
HOUR_MS = 3_600_000


def rfc3339(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat().replace("+00:00", "Z")


def test_a_webhook_behind_one_on_hold_is_woken_when_another_number_gives_the_last_slots_back() -> None:
    slots, woken = GlobalSlots(2), []
    mine = Scheduler(slots, PaceRules(), lambda: woken.append("mine"))
    others = Scheduler(slots, PaceRules(), lambda: woken.append("others"))
    now = Now(1_000_000, 100.0)
    for webhook_id in ("c", "d"):
        others.configure(webhook_id, Limits(4), now)
        assert others.admit(webhook_id, None, now) is None
    mine.configure("held", Limits(4, hold_until_ms=now.wall_ms + HOUR_MS), now)
    mine.configure("well", Limits(4), now)
    for webhook_id in ("held", "well"):
        assert mine.admit(webhook_id, None, now) is not None
        mine.offer(Entry(now.wall_ms, 1, f"dlv_{webhook_id}", webhook_id, 0, None))
    assert mine.next(now) is None
    woken.clear()

    for webhook_id in ("c", "d"):
        others.finish(webhook_id, None, Result.SUCCESS, now)

    assert "mine" in woken
    started = mine.next(now)
    assert started is not None
    assert started.webhook_id == "well"


async def test_what_waits_after_a_shorter_schedule_does_not_wait_as_long_as_before_it() -> None:
    desk = await Desk().open(webhook_row(retry_schedule_s=(DAY_S, 5.0), rate_limit_per_s=1.0))
    await desk.deliver(desk.intent("old"))
    await desk.deliver(desk.command(Op.UPDATE, base_version=1, patch=WebhookPatch(retry_schedule_s=(0.0, 5.0))))

    await desk.deliver(*(desk.intent(f"new{n}") for n in range(4)))
    await desk.pass_time(60)

    assert sorted(desk.receiver.events()) == ["new0", "new1", "new2", "new3"]
    await desk.context.close(desk.processor)


async def test_a_lane_keeps_its_order_over_a_shorter_schedule() -> None:
    desk = await Desk().open(webhook_row(retry_schedule_s=(100.0, 5.0)))
    await desk.deliver(desk.intent("first", subject="d1"))
    await desk.deliver(desk.command(Op.UPDATE, base_version=1, patch=WebhookPatch(retry_schedule_s=(0.0, 5.0))))

    await desk.deliver(desk.intent("second", subject="d1"), desk.intent("other", subject="d2"))
    await desk.pass_time(1)
    assert desk.receiver.events() == ["other"]
    await desk.pass_time(200)

    assert desk.receiver.events() == ["other", "first", "second"]
    await desk.context.close(desk.processor)


async def test_a_row_that_expires_before_the_last_sweep_is_given_up_all_the_same() -> None:
    desk = await Desk().open(webhook_row())
    start_ms = desk.clock.now_ms()
    sooner, later = rfc3339(start_ms + 10_000), rfc3339(start_ms + 20_000)
    await desk.deliver(desk.intent("X1", expirytime=sooner), desk.intent("X2", expirytime=later))
    await desk.pass_time(100)
    # As after any later row that expired.
    desk.processor._holdings.swept_to_ms = start_ms + 50_000

    again = {"reason": IntentReason.RESEND}
    await desk.context.deliver(desk.processor, desk.intent("X2", expirytime=later, request_id="q2", **again))
    # The runner goes on with its next slice before the sweep, which is a job.
    await desk.context.tick(desk.processor)
    await desk.context.deliver(desk.processor, desk.intent("X1", expirytime=sooner, request_id="q1", **again))
    await desk.settle()
    await desk.pass_time(2 * 3600)

    assert {letter["data"]["reason"] for letter in desk.sent(TOPICS.dead_letters)} == {"expired"}
    assert len(desk.sent(TOPICS.dead_letters)) == 2
    await desk.context.close(desk.processor)


@pytest.mark.parametrize("status", [410, 429])
async def test_what_a_receiver_answers_that_the_webhook_has_left_says_nothing_of_the_new_one(status: int) -> None:
    desk = await Desk().open(webhook_row())
    desk.receiver.hold()
    desk.receiver.will_answer(answer(status))
    await desk.deliver(desk.intent("A"))
    await desk.deliver(desk.command(Op.UPDATE, base_version=1, patch=WebhookPatch(url="https://new.example.com/x")))
    desk.receiver.release()
    await desk.settle()

    row = desk.row("A")
    assert row is not None
    assert (row.status, row.reason) == (Status.RETRYING, Reason.RETRY)
    webhook = desk.webhook()
    assert (webhook.enabled, webhook.hold_until_ms) == (True, None)
    await desk.pass_time(60)
    assert desk.receiver.requests[-1].url == "https://new.example.com/x"
    await desk.context.close(desk.processor)
