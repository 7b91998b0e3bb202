"""The rows that a replay asks about, read where they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

from app.engine import Owner, Ownership, Revoked, Unit
from app.replays import MISSED_A_JOB, OwnedRows
from app.webhooks.model import DeliveryRow, Status
from app.webhooks.replay_run import ReplayFailed, Unavailable
from tables.deliveries import DELIVERIES, delivery_key
from tables.delivery_queries import FoundDelivery, Readers
from tests.support.memory_unit import START_MS, MemoryRows, MemoryUnit

T = TypeVar("T")
WEBHOOK = "wh_a"


def row(name: str, status: Status, *, origin: str = "", at_ms: int = START_MS) -> DeliveryRow:
    return DeliveryRow(
        delivery_id=f"dlv_{name}",
        webhook_id=WEBHOOK,
        event_id=name,
        event_source="/vault",
        event_type="llm.data-vault.dataset.created",
        origin=origin,
        status=status,
        created_at_ms=at_ms,
        waiting_since_ms=at_ms,
        expires_at_ms=at_ms + 1,
    )


@dataclass
class Number:
    """The one number that there is; `jobs` counts what ran in it."""

    rows: MemoryRows = field(default_factory=MemoryRows)
    held: dict[str, FoundDelivery] = field(default_factory=dict)
    closing: bool = False
    mine: bool = True
    jobs: int = 0

    def put(self, *rows: DeliveryRow) -> None:
        for one in rows:
            self.rows.put(DELIVERIES, delivery_key(WEBHOOK, one.delivery_id), one)

    async def read(self, job: Callable[[Unit, Mapping[str, FoundDelivery]], T]) -> T:
        if self.closing:
            raise Revoked("the number is closed")
        self.jobs += 1
        return job(MemoryUnit(self.rows).unit, self.held)

    def rows_of(self, *, opened: bool = True, owner: str = "w1") -> OwnedRows:
        readers, ownership = Readers(), Ownership(1, lambda _: self.mine)
        ownership.update({0: Owner(owner, "http://127.0.0.1:1")})
        if opened:
            readers.opened(0, self)
        return OwnedRows(WEBHOOK, "w1", readers, ownership)


async def test_rows_are_read_in_the_order_asked_for_and_in_flight_is_newer_than_the_table() -> None:
    number = Number()
    number.put(row("a", Status.MISSED), row("b", Status.FAILED))
    number.held["dlv_b"] = FoundDelivery(row("b", Status.RETRYING), in_flight=True)
    found = await number.rows_of().read(["dlv_b", "dlv_none", "dlv_a"])
    assert [one and one.status for one in found] == [Status.RETRYING, None, Status.MISSED]


async def test_the_first_missed_event_of_each_partition_is_found_however_many_there_are() -> None:
    number = Number()
    count = 2 * MISSED_A_JOB + 5
    for place in range(count):
        topic = "vault.events" if place % 2 else "vault.other"
        # The newest delivery is the oldest event of its partition.
        origin = f"{topic}/{place % 3}/{1000 - place}"
        number.put(row(f"{place:04}", Status.MISSED, origin=origin, at_ms=START_MS + place))
    number.put(row("delivered", Status.DELIVERED, origin="vault.events/0/1"))
    number.put(row("elsewhere", Status.MISSED, origin=""))

    found = await number.rows_of().origins_of_missed(lambda one: one.event_id != f"{count - 1:04}")

    expected: dict[tuple[str, int], int] = {}
    for place in range(count - 1):
        expected["vault.events" if place % 2 else "vault.other", place % 3] = 1000 - place
    assert found == expected
    assert number.jobs == 3


async def test_a_number_that_is_not_open_is_waited_for() -> None:
    number = Number(closing=True)
    for rows in (number.rows_of(), number.rows_of(opened=False)):
        with pytest.raises(Unavailable):
            await rows.read(["dlv_a"])
    number.mine = False
    with pytest.raises(Unavailable):
        await number.rows_of().origins_of_missed(lambda _: True)


async def test_a_webhook_that_moved_to_another_worker_ends_the_replay_and_says_what_to_do() -> None:
    with pytest.raises(ReplayFailed, match="moved to the worker w2; ask again with the same request_id"):
        await Number(mine=False).rows_of(owner="w2").read(["dlv_a"])
