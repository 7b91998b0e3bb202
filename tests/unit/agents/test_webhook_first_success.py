"""Whether a webhook has ever taken anything: from its first attempt on its row says so, and no later one writes it."""

from __future__ import annotations

from typing import Any

import pytest

from app.webhooks.commands import Op, WebhookPatch
from app.webhooks.health import Heart
from app.webhooks.model import Health
from app.webhooks.registration import show_webhook
from tables.webhooks import WEBHOOKS, webhook_key
from tests.support.webhooks import OK, Desk, answer, webhook_row


@pytest.fixture
async def desk() -> Desk:
    return await Desk().open(webhook_row())


def told(desk: Desk) -> dict[str, Any]:
    """What the API says of it."""
    row = desk.webhook()
    assert row is not None
    shown = show_webhook(row)
    return {name: shown[name] for name in ("health", "failing_since", "first_success_at") if name in shown}


async def test_of_one_that_was_sent_nothing_neither_a_success_nor_a_failure_is_told(desk: Desk) -> None:
    assert told(desk) == {"health": "ok"}
    await desk.context.close(desk.processor)


async def test_the_first_success_is_told_and_is_the_last_that_writes_its_row(desk: Desk) -> None:
    await desk.deliver(desk.intent("e1"))
    assert set(told(desk)) == {"health", "first_success_at"}

    row = desk.webhook()
    await desk.pass_time(60)
    await desk.deliver(desk.intent("e2"))
    assert desk.webhook() == row
    await desk.context.close(desk.processor)


async def test_one_whose_first_attempts_fail_is_told_to_fail_though_its_health_has_not_changed(desk: Desk) -> None:
    desk.receiver.will_answer(answer(500), answer(500), OK, event_id="e1")
    await desk.deliver(desk.intent("e1"))
    first = told(desk)
    assert set(first) == {"health", "failing_since"}
    assert first["health"] == "ok"

    await desk.pass_time(20)
    assert told(desk) == first

    await desk.pass_time(600)
    assert set(told(desk)) == {"health", "first_success_at"}
    await desk.context.close(desk.processor)


async def test_one_that_was_failing_before_it_succeeded_for_the_first_time(desk: Desk) -> None:
    for number in range(10):
        desk.receiver.will_answer(answer(500), event_id=f"e{number}")
        await desk.deliver(desk.intent(f"e{number}"))
    assert told(desk)["health"] == "failing"

    desk.receiver.always(OK)
    await desk.pass_time(3600)
    assert set(told(desk)) == {"health", "first_success_at"}
    assert told(desk)["health"] == "ok"
    await desk.context.close(desk.processor)


async def test_a_first_failure_says_nothing_of_health_after_a_restart(desk: Desk) -> None:
    """It may be days old when the next one comes, and was answered by another receiver meanwhile."""
    desk.receiver.will_answer(answer(500), event_id="e1")
    await desk.deliver(desk.intent("e1"))
    row = desk.webhook()
    assert row is not None
    assert "failing_since" in told(desk)
    assert Heart.of(row) == Heart()

    await desk.deliver(desk.command(Op.UPDATE, patch=WebhookPatch(url="https://other.example/x")))
    assert told(desk) == {"health": "ok"}
    await desk.context.close(desk.processor)


async def test_what_another_url_has_taken_says_nothing_of_the_new_one(desk: Desk) -> None:
    await desk.deliver(desk.intent("e1"))
    same = WebhookPatch(url=webhook_row().url, description="the same")
    await desk.deliver(desk.command(Op.UPDATE, patch=same, command_id="c-1"))
    assert "first_success_at" in told(desk)

    await desk.deliver(desk.command(Op.UPDATE, patch=WebhookPatch(url="https://other.example/x"), command_id="c-2"))
    assert told(desk) == {"health": "ok"}
    await desk.context.close(desk.processor)


async def test_an_answer_of_the_old_url_after_the_change_proves_nothing(desk: Desk) -> None:
    desk.receiver.hold()
    await desk.deliver(desk.intent("e1"))
    await desk.deliver(desk.command(Op.UPDATE, patch=WebhookPatch(url="https://other.example/x")))
    desk.receiver.release()
    await desk.settle()

    assert told(desk) == {"health": "ok"}
    await desk.context.close(desk.processor)


async def test_a_row_from_before_this_was_noted_is_read_and_is_proven_by_its_next_success() -> None:
    old = WEBHOOKS.encode(webhook_row())
    assert b"first_success" not in old
    desk = await Desk().open(WEBHOOKS.decode(old))
    await desk.deliver(desk.intent("e1"))
    row = desk.context.rows.get(WEBHOOKS, webhook_key("wh_a"))
    assert row is not None
    assert (row.health, row.first_success_ms) == (Health.OK, desk.clock.now_ms())
    await desk.context.close(desk.processor)
