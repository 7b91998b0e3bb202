"""The webhooks agent over random histories of slices, answers, commands, time and crashes.

Whatever happens no delivery is lost, the events of a subject are posted in order while nothing fails, and nothing is
left counted as waiting at the end. After a crash the log is read again from the first record that was not done, with
those after it that were.
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant

from agents.webhooks.brief_waits import BriefWaits, never_tried
from agents.webhooks.holdings import Holdings
from app.engine import Record, Slice
from app.observability import metrics
from app.webhooks.backlog import Entry
from app.webhooks.commands import Op, WebhookPatch
from app.webhooks.model import SealedSecret, Status
from app.webhooks.owned import DeliveryOptions
from app.webhooks.pace import GlobalSlots
from app.webhooks.scheduler import Scheduler
from app.webhooks.secrets import KeyRing, Secret
from tables.deliveries import DELIVERIES
from tests.support.machines import Machine, action, caught, play
from tests.support.memory_unit import MemoryUnit
from tests.support.webhooks import KEYS, PROXY_DOWN, SCHEDULE, SECRET, Desk, answer, webhook_row

WEBHOOKS = ("wh_calm", "wh_sick")
KEYS_GONE = KeyRing(["k2:" + base64.b64encode(b"2" * 32).decode()], bytes)
SUBJECTS = ("a", "b", None)


def waiting() -> float:
    return metrics.QUEUE_DEPTH.labels(queue_name="webhooks_waiting")._value.get()


class AgentMachine(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.waited_before = waiting()
        self.log: list[tuple[str, str, str | None, Record]] = []
        self.posted: list[str] = []
        self.failing: set[str] = set()
        self.desk = self.run(self.opened(Desk(options=self.options, slots=GlobalSlots(8)), *map(webhook_row, WEBHOOKS)))

    options = DeliveryOptions(schedule=SCHEDULE, max_in_flight=3)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run(work)

    async def opened(self, desk: Desk, *rows: Any) -> Desk:
        await desk.open(*rows)
        return desk

    def _records(self, data: st.DataObject) -> list[Record]:
        made = []
        for webhook, subject in data.draw(
            st.lists(st.tuples(st.sampled_from(WEBHOOKS), st.sampled_from(SUBJECTS)), min_size=1, max_size=8)
        ):
            event = f"e{len(self.log)}"
            record = self.desk.intent(event, webhook, **({} if subject is None else {"subject": subject}))
            self.log.append((event, webhook, subject, record))
            made.append(record)
        return made

    # -- what the world does

    @action(6)
    def a_slice_comes(self, data: st.DataObject) -> None:
        self.run(self.desk.deliver(*self._records(data)))

    @action()
    def a_slice_is_run_twice_before_it_is_done(self, data: st.DataObject) -> None:
        records = self._records(data)
        self.run(self.desk.processor.process(Slice(0, records), MemoryUnit(self.desk.context.rows).unit))
        self.run(self.desk.deliver(*records))

    @action(2, when=lambda self: self.log)
    def events_are_published_again(self, data: st.DataObject) -> None:
        repeated = []
        for event, webhook, subject, _ in data.draw(st.lists(st.sampled_from(self.log[-6:]), min_size=1, max_size=3)):
            record = self.desk.intent(event, webhook, **({} if subject is None else {"subject": subject}))
            self.log.append((event, webhook, subject, record))
            repeated.append(record)
        self.run(self.desk.deliver(*repeated))

    @action(3)
    def the_receivers_hang(self, data: st.DataObject) -> None:
        self.desk.receiver.hold()

    @action(3)
    def the_receivers_answer(self, data: st.DataObject) -> None:
        self.desk.receiver.release()
        self.run(self.desk.settle())

    @action(2)
    def time_passes(self, data: st.DataObject) -> None:
        self.run(self.desk.pass_time(data.draw(st.sampled_from([0.05, 0.2, 0.3, 1.1, 6.0]))))

    @action(when=lambda self: self.log)
    def an_event_of_the_sick_one_fails_once(self, data: st.DataObject) -> None:
        ours = [event for event, webhook, *_ in self.log if webhook == "wh_sick" and event not in self.failing]
        if ours:
            event = data.draw(st.sampled_from(ours[-4:]))
            self.failing.add(event)
            self.desk.receiver.will_answer(answer(500), event_id=event)

    @action()
    def a_webhook_is_changed(self, data: st.DataObject) -> None:
        name = f"n{len(self.log)}-{data.draw(st.integers(0, 1 << 30))}"
        webhook = data.draw(st.sampled_from(WEBHOOKS))
        patch = WebhookPatch(description=name)
        self.run(self.desk.deliver(self.desk.command(Op.UPDATE, webhook, patch=patch, command_id=name)))

    @action()
    def the_process_dies(self, data: st.DataObject) -> None:
        self._crash()

    @action(2)
    def the_process_dies_right_after_a_slice(self, data: st.DataObject) -> None:
        self.desk.clock.advance(data.draw(st.sampled_from([0.0, 0.3])))
        self.run(self.desk.context.deliver(self.desk.processor, *self._records(data)))
        self._crash()

    def _crash(self) -> None:
        desk, self.posted = self.desk, self.all_posted()
        undone = {record.offset for record in desk.context.unfinished}
        at = next((i for i, (*_, record) in enumerate(self.log) if record.offset in undone), len(self.log))
        self.run(desk.context.close(desk.processor))
        again = Desk(rows=desk.context.rows, clock=desk.clock, options=self.options, slots=GlobalSlots(8))
        # The log goes on where it was.
        again._offsets = desk._offsets
        self.desk = self.run(self.opened(again))
        for begin in range(at, len(self.log), 4):
            self.run(self.desk.deliver(*[record for *_, record in self.log[begin : begin + 4]]))

    # -- what must hold

    def all_posted(self) -> list[str]:
        return self.posted + self.desk.receiver.events()

    @invariant()
    def the_calm_one_hears_of_each_subject_in_order(self) -> None:
        first = list(dict.fromkeys(self.all_posted()))
        for subject in ("a", "b"):
            mine = [event for event, webhook, its, _ in self.log if (webhook, its) == ("wh_calm", subject)]
            of_it = list(dict.fromkeys(mine))
            heard = [event for event in first if event in of_it]
            assert heard == of_it[: len(heard)]

    @invariant()
    def each_delivery_is_in_the_log_or_in_the_table(self) -> None:
        undone = {record.offset for record in self.desk.context.unfinished}
        in_the_log = {event for event, *_, record in self.log if record.offset in undone}
        for event, webhook, *_ in self.log:
            assert event in in_the_log or self.desk.row(event, webhook) is not None

    @invariant()
    def what_is_counted_is_what_waits(self) -> None:
        holdings = self.desk.processor._holdings
        rows = self.desk.context.rows.all(DELIVERIES).values()
        flying = sum(flight.record is not None for flight in holdings.flights.values())
        assert waiting() - self.waited_before == sum(row.status.waits for row in rows) + len(holdings.brief)
        parked = [row for row in rows if never_tried(row) and row.delivery_id not in holdings.flights]
        assert holdings.brief.parked == Counter(row.webhook_id for row in parked)
        assert len(self.desk.context.unfinished) == len(holdings.brief) + flying

    def teardown(self) -> None:
        try:
            self._all_is_delivered_at_last()
        finally:
            self.run(self.desk.context.close(self.desk.processor))
            self.loop.close()
        assert waiting() == self.waited_before

    def _all_is_delivered_at_last(self) -> None:
        self.desk.receiver.release()
        self.run(self.desk.pass_time(4000))
        posted = set(self.all_posted())
        for event, webhook, _, _ in self.log:
            row = self.desk.row(event, webhook)
            assert event in posted
            assert row is not None
            assert row.status is Status.DELIVERED
        assert self.desk.context.unfinished == []


class PutBackMachine(AgentMachine):
    """Attempts that have their slot are not made: the proxy fails, and keys vanish."""

    def __init__(self) -> None:
        super().__init__()
        self.rotations = 0

    @action(when=lambda self: self.log)
    def the_proxy_keeps_an_event_back(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(self.log[-4:]))[0]
        self.desk.receiver.will_answer(PROXY_DOWN, event_id=event)

    @action()
    def a_key_goes_with_a_slice(self, data: st.DataObject) -> None:
        webhook = data.draw(st.sampled_from(WEBHOOKS))
        self.run(self.desk.deliver(*self._records(data), self._rotation(webhook, KEYS_GONE)))

    @action(3)
    def the_keys_are_back(self, data: st.DataObject) -> None:
        self._give_keys_back()

    def _rotation(self, webhook: str, keys: KeyRing) -> Record:
        self.rotations += 1
        secret = SealedSecret(sealed=keys.seal(webhook, Secret(SECRET)))
        return self.desk.command(Op.ROTATE, webhook, secrets=(secret,), command_id=f"r{self.rotations}")

    def _give_keys_back(self) -> None:
        self.run(self.desk.deliver(*(self._rotation(webhook, KEYS) for webhook in WEBHOOKS)))

    def _all_is_delivered_at_last(self) -> None:
        self._give_keys_back()
        super()._all_is_delivered_at_last()
        for event, webhook, _, _ in self.log:
            row = self.desk.row(event, webhook)
            assert row is not None
            assert webhook == "wh_sick" or row.attempts == 1


@pytest.mark.parametrize(
    "histories", [pytest.param(30, id="short"), pytest.param(2_000, id="full", marks=pytest.mark.prove)]
)
def test_the_agent_loses_nothing_and_keeps_the_order_of_a_subject(histories: int) -> None:
    play(AgentMachine, histories, 30, "Model: the webhooks agent")


def test_giving_a_row_to_the_later_one_first_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counterproof: what waits in memory is left there when one behind it gets its row."""
    monkeypatch.setattr(BriefWaits, "all_of", lambda *_: [])

    assert caught(AgentMachine, 60, 30) is not None


@pytest.mark.parametrize(
    "histories", [pytest.param(30, id="short"), pytest.param(2_000, id="full", marks=pytest.mark.prove)]
)
def test_what_is_not_tried_for_a_reason_of_ours_is_not_lost_nor_overtaken_nor_counted(histories: int) -> None:
    play(PutBackMachine, histories, 30, "Model: attempts that are not made")


def test_forgetting_what_was_put_back_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counterproof: it has its row, and nobody looks at that before the number is opened again."""
    offer = Scheduler.offer

    def offered(scheduler: Scheduler, entry: Entry, *, back: bool = False) -> None:
        if not back:
            offer(scheduler, entry)

    monkeypatch.setattr(Scheduler, "offer", offered)

    assert caught(PutBackMachine, 60, 30) is not None


def test_forgetting_what_waits_in_memory_when_it_is_overdue_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counterproof: it is taken out without a row."""
    monkeypatch.setattr(
        Holdings, "park_briefs", lambda self, unit, waits: [self.brief.take(w.row.delivery_id) for w in waits]
    )

    assert caught(AgentMachine, 60, 30) is not None
