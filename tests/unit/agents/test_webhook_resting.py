"""Webhooks that have had nothing to do for long are in the table only, as before their first event."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.webhooks.resting import LOOK_S, LOOKED_AT, UNNEEDED_S
from app.engine import Slice
from app.webhooks.commands import Op, WebhookPatch
from app.webhooks.model import Status
from app.webhooks.recent import BUCKET_S, BUCKETS, Recent
from tests.support.memory_unit import START_MS, MemoryUnit
from tests.support.webhooks import Desk, answer, webhook_row

# The last hour, as five minutes begin; and two rounds of all.
LONG_S = (BUCKETS + 1) * BUCKET_S + 2 * UNNEEDED_S + 60


def held(desk: Desk) -> set[str]:
    return set(desk.processor._holdings.webhooks)


def kept_of(desk: Desk) -> int:
    return len(desk.processor._scheduler._receivers)


async def test_a_webhook_that_was_needed_once_is_held_no_longer_and_the_next_event_finds_it(desk: Desk) -> None:
    await desk.deliver(desk.intent("e1"))
    assert held(desk) == {"wh_a"}
    await desk.pass_time(LONG_S)
    assert (held(desk), kept_of(desk)) == (set(), 0)
    await desk.deliver(desk.intent("e2"))
    assert desk.receiver.events() == ["e1", "e2"]
    assert held(desk) == {"wh_a"}


async def test_one_that_is_read_for_an_event_that_was_delivered_before_is_held_no_longer_either(desk: Desk) -> None:
    await desk.deliver(desk.intent("e1"))
    await desk.pass_time(LONG_S)
    await desk.deliver(desk.intent("e1"))
    assert held(desk) == {"wh_a"}

    # Sooner than the next sweep, which is a tick, too.
    await desk.pass_time(2 * UNNEEDED_S)
    assert held(desk) == set()


async def test_many_that_matched_once_each_are_held_no_longer_a_few_at_a_time() -> None:
    hooks = [f"wh_{place}" for place in range(5 * LOOKED_AT)]
    desk = await Desk().open(*map(webhook_row, hooks))
    for hook in hooks:
        await desk.deliver(desk.intent("e1", hook))
    assert held(desk) == set(hooks)
    desk.clock.advance(LONG_S)
    left = [len(held(desk))]
    for _ in range(2 * 5):
        await desk.pass_time(LOOK_S)
        left.append(len(held(desk)))
    assert set(left) == {len(hooks)}
    desk.clock.advance(UNNEEDED_S)
    left = []
    for _ in range(5):
        await desk.context.tick(desk.processor)
        left.append(len(held(desk)))
        desk.clock.advance(LOOK_S)
    assert left == [4 * LOOKED_AT, 3 * LOOKED_AT, 2 * LOOKED_AT, LOOKED_AT, 0]
    assert desk.receiver.events() == ["e1"] * len(hooks)
    await desk.context.close(desk.processor)


async def test_one_that_is_needed_all_the_time_is_held(desk: Desk) -> None:
    for place in range(12):
        await desk.deliver(desk.intent(f"e{place}"))
        await desk.pass_time(UNNEEDED_S - 1)
        assert held(desk) == {"wh_a"}


async def test_one_that_is_disabled_or_on_hold_no_more_is_held_no_longer() -> None:
    desk = await Desk().open(webhook_row("wh_off"), webhook_row("wh_held"))
    until_ms = desk.clock.now_ms() + 1000 * round(3 * LONG_S)
    patch = WebhookPatch(hold_until_ms=until_ms)
    await desk.deliver(desk.command(Op.DISABLE, "wh_off"), desk.command(Op.HOLD, "wh_held", patch=patch))
    await desk.deliver(desk.intent("e1", "wh_off"))
    await desk.pass_time(LONG_S)
    assert held(desk) == {"wh_held"}
    await desk.pass_time(3 * LONG_S)
    assert held(desk) == set()
    await desk.deliver(desk.intent("e2", "wh_off"), desk.intent("e3", "wh_held"))
    rows = desk.row("e2", "wh_off"), desk.row("e3", "wh_held")
    assert [row and row.status for row in rows] == [Status.MISSED, Status.DELIVERED]
    await desk.context.close(desk.processor)


@pytest.mark.parametrize("status", [500, 400])
async def test_one_whose_last_attempts_failed_is_held_as_no_row_tells_of_them(desk: Desk, status: int) -> None:
    desk.receiver.always(answer(status))
    await desk.deliver(desk.intent("e1"))
    await desk.pass_time(3 * LONG_S)
    assert held(desk) == {"wh_a"}


async def test_one_with_an_attempt_under_way_is_held_however_long_it_takes(desk: Desk) -> None:
    desk.receiver.hold()
    await desk.deliver(desk.intent("e1"))
    await desk.pass_time(LONG_S)
    assert held(desk) == {"wh_a"}
    desk.receiver.release()
    await desk.settle()
    assert desk.context.unfinished == []


async def test_one_that_memory_knows_to_be_changed_before_the_table_does_is_held(desk: Desk) -> None:
    await desk.pass_time(LONG_S)
    command = desk.command(Op.DISABLE)
    failed = MemoryUnit(desk.context.rows)
    await desk.processor.process(Slice(0, [command]), failed.unit)
    await desk.pass_time(LONG_S)
    assert held(desk) == {"wh_a"}
    await desk.deliver(command)
    await desk.pass_time(LONG_S)
    assert held(desk) == set()


async def test_a_command_for_one_that_was_put_away_is_applied_and_counted_once(desk: Desk) -> None:
    await desk.deliver(desk.intent("e1"))
    await desk.pass_time(LONG_S)
    await desk.deliver(desk.command(Op.DELETE))
    assert desk.webhook() is None
    assert (held(desk), kept_of(desk)) == (set(), 0)
    assert +desk.processor._holdings.census._health == {}


@given(st.lists(st.integers(-7200, 7200), max_size=20), st.integers(0, 10_000), st.integers(0, 20_000))
def test_an_hour_that_is_over_is_empty_for_ever(notes: list[int], now_s: int, later_s: int) -> None:
    recent = Recent()
    for at_s in notes:
        recent.note(START_MS + at_s * 1000, ok=True)
    now_ms = START_MS + now_s * 1000

    def shown(at_ms: int) -> Any:
        return sum(bucket.delivered for bucket in recent.last_hour(at_ms))

    if recent.over(now_ms):
        assert shown(now_ms) == shown(now_ms + later_s * 1000) == 0
    else:
        assert any(shown(now_ms + step * BUCKET_S * 1000) for step in range(40))
