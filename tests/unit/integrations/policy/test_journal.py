"""The log of decisions: from a queue, never dropped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest

from app.integrations.policy import DecisionJournal, PolicyUnavailable
from app.integrations.policy import journal as module
from tests.support.memory_unit import START_MS
from tests.support.policy import decision, question

LONG_S = 30.0


class Broker:
    """Takes records once its gate is open; each failure comes first."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, dict[str, Any]]] = []
        self.failures: list[Exception] = []
        self.tries = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def take(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        self.tries += 1
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.taken += [(key, json.loads(value)) for key, value in records]


@asynccontextmanager
async def journal(broker: Broker, **options: Any) -> AsyncIterator[DecisionJournal]:
    ids = count(1)
    made = DecisionJournal(
        broker.take,
        source="/vault-stream/test",
        new_id=lambda: f"id-{next(ids)}",
        now_ms=lambda: START_MS + 60_000,
        **{"wait_s": LONG_S, "linger_s": 0.0, **options},
    )
    running = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_MIN_S", 0.0)


async def test_all_are_written_in_order_under_the_principal() -> None:
    broker = Broker()
    async with journal(broker) as log:
        ids = [await log.made(decision(question(name)), "engine") for name in ("alice", "bob")]
        await log.failed(question("eve"), "no answer", START_MS)
        await log.close()
    assert [(key, event["id"]) for key, event in broker.taken] == [
        (b"alice", "id-1"),
        (b"bob", "id-2"),
        (b"eve", "id-3"),
    ]
    assert ids == ["id-1", "id-2"]


async def test_a_record_of_the_engine_has_the_time_of_its_decision_and_any_other_that_of_its_answer() -> None:
    broker = Broker()
    async with journal(broker) as log:
        await log.made(decision(), "engine")
        await log.made(decision(), "cache")
        await log.close()
    assert [event["time"][14:] for _, event in broker.taken] == ["06:40.005Z", "07:40.000Z"]


async def test_what_kafka_does_not_take_is_sent_again_with_the_same_ids() -> None:
    broker = Broker()
    broker.failures = [OSError("away"), TimeoutError(), ValueError("a bug")]
    async with journal(broker) as log:
        await log.made(decision(), "engine")
        await log.close()
    assert [event["id"] for _, event in broker.taken] == ["id-1"]
    assert broker.tries == 4


async def test_a_full_queue_makes_the_caller_wait_and_drops_nothing() -> None:
    broker = Broker()
    broker.gate.clear()
    async with journal(broker, capacity=3) as log:
        asking = [asyncio.create_task(log.made(decision(question(f"p{n}")), "engine")) for n in range(10)]
        for _ in range(50):
            await asyncio.sleep(0)
        assert (sum(task.done() for task in asking), len(log)) == (3, 3)
        broker.gate.set()
        await asyncio.gather(*asking)
        await log.close()
    assert sorted(event["id"] for _, event in broker.taken) == sorted(f"id-{n}" for n in range(1, 11))


async def test_long_records_fill_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CAPACITY_BYTES", 1000)
    broker = Broker()
    broker.gate.clear()
    async with journal(broker, wait_s=0.01) as log:
        outcomes = await asyncio.gather(*(log.made(decision(), "engine") for _ in range(5)), return_exceptions=True)
        broker.gate.set()
        await log.close()
    refused = [outcome for outcome in outcomes if isinstance(outcome, PolicyUnavailable)]
    assert 1 <= len(broker.taken) == 5 - len(refused) < 5


async def test_who_has_waited_too_long_gets_no_decision() -> None:
    broker = Broker()
    broker.gate.clear()
    async with journal(broker, capacity=1, wait_s=0.01) as log:
        await log.made(decision(), "engine")
        with pytest.raises(PolicyUnavailable, match="written down"):
            await log.made(decision(), "engine")
        with pytest.raises(PolicyUnavailable, match="written down"):
            await log.failed(question(), "no answer", START_MS)


async def test_records_that_come_one_after_another_are_written_together() -> None:
    broker = Broker()
    async with journal(broker, linger_s=0.01) as log:
        for _ in range(20):
            await log.made(decision(), "engine")
            await asyncio.sleep(0)
        await log.close()
    assert len(broker.taken) == 20
    assert broker.tries < 20


async def test_as_many_as_a_batch_takes_wait_for_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    broker = Broker()
    async with journal(broker, linger_s=10 * LONG_S) as log, asyncio.timeout(LONG_S):
        for _ in range(3):
            await log.made(decision(), "engine")
        while len(broker.taken) < 3:
            await asyncio.sleep(0)


async def test_with_sync_the_caller_waits_for_the_broker() -> None:
    broker = Broker()
    broker.gate.clear()
    async with journal(broker, sync=True) as log:
        asking = asyncio.create_task(log.made(decision(), "cache"))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not asking.done()
        broker.gate.set()
        await asking
        assert len(broker.taken) == 1


async def test_with_sync_a_broker_that_does_not_answer_is_no_decision() -> None:
    broker = Broker()
    broker.gate.clear()
    async with journal(broker, sync=True, wait_s=0.01) as log:
        with pytest.raises(PolicyUnavailable, match="written down"):
            await log.made(decision(), "engine")


async def test_closed_it_takes_nothing_more() -> None:
    async with journal(Broker()) as log:
        await log.close()
        with pytest.raises(PolicyUnavailable, match="stops"):
            await log.made(decision(), "engine")


async def test_closed_it_waits_for_what_came_after_a_quiet_time() -> None:
    broker = Broker()
    async with journal(broker) as log:
        await log.made(decision(), "engine")
        await log.close()
        log._closing = False
        await log.made(decision(), "engine")
        async with asyncio.timeout(LONG_S):
            await log.close()
        assert len(broker.taken) == 2
