"""Which webhooks the owner of a number has in memory, and how they are counted."""

from __future__ import annotations

from app.observability import metrics
from app.webhooks.commands import Op
from tests.support.webhooks import Desk, webhook_row


async def test_a_webhook_with_nothing_to_do_is_in_the_table_only() -> None:
    before = metrics.WEBHOOKS.labels(health="ok")._value.get()
    desk = await Desk().open(*(webhook_row(f"wh_{name}") for name in "abc"))
    assert desk.processor._holdings.webhooks == {}
    assert metrics.WEBHOOKS.labels(health="ok")._value.get() == before + 3

    await desk.deliver(desk.intent("e1", "wh_b"))
    assert list(desk.processor._holdings.webhooks) == ["wh_b"]
    assert desk.receiver.events() == ["e1"]

    await desk.deliver(desk.command(Op.DISABLE, "wh_c"), desk.command(Op.DELETE, "wh_a", command_id="c-2"))
    await desk.context.close(desk.processor)
    assert metrics.WEBHOOKS.labels(health="ok")._value.get() == before


async def test_what_happens_to_a_webhook_that_was_not_needed_before_is_counted_once() -> None:
    ok, disabled = (metrics.WEBHOOKS.labels(health=health)._value for health in ("ok", "disabled"))
    before = ok.get(), disabled.get()
    desk = await Desk().open(webhook_row("wh_a"), webhook_row("wh_b"))
    await desk.deliver(desk.command(Op.DISABLE, "wh_a"))
    assert (ok.get() - before[0], disabled.get() - before[1]) == (1, 1)

    await desk.deliver(desk.command(Op.DELETE, "wh_a", command_id="c-2"))
    assert (ok.get() - before[0], disabled.get() - before[1]) == (1, 0)
    assert desk.webhook("wh_a") is None
    await desk.context.close(desk.processor)
    assert (ok.get(), disabled.get()) == before
