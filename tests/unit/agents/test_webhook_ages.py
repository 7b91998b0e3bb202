import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.webhooks import waiting_ages
from agents.webhooks.waiting_ages import WaitingAges
from app.engine import Context
from app.observability import metrics
from app.webhooks.model import DeliveryRow, Reason, Status
from app.webhooks.pace import GlobalSlots
from tables.deliveries import DELIVERIES, delivery_key
from tests.support.memory_unit import FakeClock, MemoryUnit
from tests.support.webhooks import Desk, answer, webhook_row

GAUGE = "vault_stream_deliveries_oldest_waiting_seconds"


def shown_s() -> float:
    return metrics.REGISTRY.get_sample_value(GAUGE) or 0.0


@pytest.fixture
async def desk() -> Desk:
    return await Desk().open(webhook_row())


async def test_the_age_is_that_of_the_oldest_delivery_that_waits_and_0_where_none_does(desk: Desk) -> None:
    assert shown_s() == 0
    desk.receiver.fails_first(2)
    await desk.deliver(desk.intent("e1"))
    desk.clock.advance(2)
    assert shown_s() == pytest.approx(2, abs=0.5)
    await desk.until(lambda: desk.row("e1") is not None and not desk.row("e1").status.waits, within_s=86_400)  # type: ignore[union-attr]
    assert shown_s() == 0
    await desk.context.close(desk.processor)


async def test_what_is_in_flight_for_the_first_time_does_not_wait(desk: Desk) -> None:
    desk.receiver.hold()
    await desk.deliver(desk.intent("e1"))
    desk.clock.advance(100)
    assert shown_s() == 0
    await desk.context.close(desk.processor)


async def test_a_number_that_is_opened_knows_the_oldest_that_waited_before(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.receiver.always(answer(500))
    await desk.deliver(desk.intent("first"))
    desk.clock.advance(60)
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(25)))
    await desk.context.close(desk.processor)
    assert shown_s() == 0, "another worker shows it from now on"

    monkeypatch.setattr(waiting_ages, "PAGE_KEYS", 10)
    second = await Desk(rows=desk.context.rows, clock=desk.clock, slots=GlobalSlots(0)).open()
    assert shown_s() == pytest.approx(60, abs=1)
    await second.context.close(second.processor)


class Jobs:
    """A context whose jobs run when the test says so."""

    def __init__(self, rows: Any) -> None:
        self.clock = FakeClock()
        self.rows = rows

    async def submit(self, job: Callable[[Any], Any]) -> Any:
        await asyncio.sleep(0)
        unit = MemoryUnit(self.rows)
        result = job(unit.unit)
        unit.done()
        return result


def row(number: int, webhook_id: str, status: Status, at_ms: int) -> DeliveryRow:
    return DeliveryRow(
        delivery_id=f"dlv_{number:04d}",
        webhook_id=webhook_id,
        event_id=f"e{number}",
        event_source="/vault",
        event_type="t",
        status=status,
        reason=Reason.RETRY if status.waits else None,
        created_at_ms=at_ms,
        waiting_since_ms=at_ms,
        sequence=number,
        next_at_ms=at_ms,
        expires_at_ms=at_ms + 10**9,
        origin="t/0/0",
    )


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_whatever_changes_while_the_index_is_read_the_counts_are_those_of_the_table(random: Random) -> None:
    asyncio.run(_changes_while_it_reads(random))


async def _changes_while_it_reads(random: Random) -> None:
    unit = MemoryUnit()
    table: dict[int, DeliveryRow] = {}
    hooks = ["wh_a", "wh_b", "wh_c"]
    statuses = [Status.PENDING, Status.RETRYING, Status.DELIVERED]

    def put(number: int, webhook_id: str) -> tuple[DeliveryRow | None, DeliveryRow]:
        before = table.get(number)
        at_ms = before.created_at_ms if before is not None else random.randrange(0, 60_000)
        after = row(number, before.webhook_id if before is not None else webhook_id, random.choice(statuses), at_ms)
        table[number] = after
        unit.rows.put(DELIVERIES, delivery_key(after.webhook_id, after.delivery_id), after)
        return before, after

    for number in range(random.randrange(0, 60)):
        put(number, random.choice(hooks[:2]))
    context = Jobs(unit.rows)
    waiting_ages.PAGE_KEYS, kept = 7, waiting_ages.PAGE_KEYS  # type: ignore[misc]
    ages = WaitingAges(cast("Context", context))
    try:
        ages.read_later(sorted({one.webhook_id for one in table.values() if one.status.waits}))
        reading = asyncio.create_task(ages.read())
        while not reading.done():
            ages.row_changed(*put(random.randrange(0, 80), random.choice(hooks)))
            await asyncio.sleep(0)
        await reading
    finally:
        waiting_ages.PAGE_KEYS = kept  # type: ignore[misc]
        ages.close()
    truth: dict[int, int] = {}
    for one in table.values():
        if one.status.waits:
            truth[one.created_at_ms // 5000] = truth.get(one.created_at_ms // 5000, 0) + 1
    assert {at: count for at, (count, _) in ages._counts.items()} == truth
