"""What a backlog costs while it waits, and how it is read."""

from __future__ import annotations

from app.webhooks.model import Ordering
from app.webhooks.scheduler import Refill
from tables.deliveries import DELIVERIES, lane_of
from tables.delivery_queries import read_refill
from tests.support.memory_unit import MemoryUnit
from tests.support.webhooks import Desk, answer, webhook_row

LATER_MS = 2_000_000_000_000


async def held(count: int, subject: str | None = None) -> Desk:
    desk = await Desk().open(webhook_row(hold_until_ms=LATER_MS))
    named = {} if subject is None else {"subject": subject}
    await desk.deliver(*(desk.intent(f"e{n:03}", **named) for n in range(count)))
    return desk


async def test_while_deliveries_wait_nothing_is_written_and_nothing_is_sent() -> None:
    desk = await held(200)
    rows, sent = dict(desk.context.rows.of[DELIVERIES.name]), len(desk.context.sent)
    await desk.pass_time(5 * 3600)

    assert desk.context.rows.of[DELIVERIES.name] == rows
    assert len(desk.context.sent) == sent
    await desk.context.close(desk.processor)


async def test_a_lane_is_read_from_where_it_stands() -> None:
    desk = await held(30, subject="d1")
    lane = lane_of("d1")

    def read(from_sequence: int, *, strict: bool) -> tuple[list[int], int | None]:
        asked = Refill("wh_a", 0, (0, from_sequence), lane, 8)
        entries, rest = read_refill(MemoryUnit(desk.context.rows).unit, asked, (), strict=strict)
        return [entry.sequence for entry in entries], rest and rest[1]

    assert read(0, strict=False) == (list(range(8)), 8)
    assert read(8, strict=True) == (list(range(8, 16)), 16)
    assert read(24, strict=False) == (list(range(24, 30)), None)
    await desk.context.close(desk.processor)


async def test_what_lies_behind_the_end_of_a_page_is_not_taken_before_the_rest_of_it() -> None:
    desk = await Desk().open(webhook_row(ordering=Ordering.STRICT))
    desk.receiver.will_answer(answer(500), event_id="retried")
    await desk.deliver(desk.intent("retried", subject="d1"))
    await desk.deliver(*(desk.intent(f"e{n:03}", subject="d1") for n in range(20)))
    asked = Refill("wh_a", 0, (0, 0), lane_of("d1"), 8)
    entries, rest = read_refill(MemoryUnit(desk.context.rows).unit, asked, (), strict=True)

    assert [entry.sequence for entry in entries] == list(range(9))
    assert [entry.tries for entry in entries] == [1, *[0] * 8]
    assert rest == (0, 9)
    await desk.context.close(desk.processor)
