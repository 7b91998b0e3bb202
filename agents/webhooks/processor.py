"""Commands and intents in, what is due out.

An intent starts at once, or in a moment, and then its unfinished record is all that is kept of it; or its row is
written with the body and it waits for the scheduler.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from agents.webhooks.appetite import Appetite
from agents.webhooks.attempts import Attempts
from agents.webhooks.brief_waits import LOOK_S
from agents.webhooks.endings import Endings
from agents.webhooks.holdings import Holdings
from agents.webhooks.resting import Resting
from app.engine import Agent, Processor
from app.webhooks.commands import apply_command, decode_command
from app.webhooks.delivery import Arrived, Delivery, Due, transition
from app.webhooks.errors import SerializationFailed, TooLargeToKeep
from app.webhooks.intents import decode_intent
from app.webhooks.model import Ordering, Reason, Status, WebhookState
from app.webhooks.scheduler import Result
from tables.deliveries import DELIVERIES, delivery_key, entry_of, lane_of
from tables.delivery_queries import last_in_lane, read_refill, waiting_classes, waiting_page
from tables.webhooks import WEBHOOKS, webhook_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agents.webhooks.holdings import Flight, WebhooksDeps
    from app.engine import Context, Record, Slice, Unit
    from app.topics import Topics
    from app.webhooks.backlog import Entry
    from app.webhooks.delivery import Step
    from app.webhooks.intents import Intent
    from app.webhooks.model import DeliveryRow
    from app.webhooks.owned import OwnedWebhook
    from app.webhooks.recent import Activity
    from app.webhooks.scheduler import Now
    from tables.delivery_queries import FoundDelivery

__all__ = ["WebhooksProcessor", "webhooks_agent"]

log = logging.getLogger("app.agents.webhooks")

T = TypeVar("T")

ROOM_RECORDS: Final = 2000
# Between two slices outcomes are written, which frees slots: where more comes than can be delivered, most of a long
# slice would have to wait in a row of its own.
SLICE_RECORDS: Final = 64
WEBHOOKS_A_SCAN: Final = 500
YIELD_EVERY: Final = 64
STARTS_A_TICK: Final = 128
REFILLS_A_TICK: Final = 8
DISORDER_MS: Final = 60_000


class WebhooksProcessor(Processor):
    """One number."""

    def __init__(self, context: Context, topics: Topics, deps: WebhooksDeps) -> None:
        super().__init__(context)
        self._commands = topics.commands
        self._deps = deps
        self._holdings = Holdings(context, topics, deps)
        self._scheduler = self._holdings.scheduler
        self._endings = Endings(self._holdings)
        self._attempts = Attempts(self._holdings, self._endings.end)
        self._resting = Resting(self._holdings)
        self._appetite = Appetite(self._scheduler, deps.busy)
        self._draining = False
        # Webhooks of which this slice has parked something, which is counted once its unit is merged.
        self._parked_now: set[str] = set()

    # -- the engine's calls

    async def opened(self, unit: Unit) -> None:
        """Take over the webhooks, and count what waits: a million rows take some seconds and no memory."""
        start: bytes | None = b""
        while start is not None:
            page = unit.scan(WEBHOOKS, start=start, limit=WEBHOOKS_A_SCAN)
            for _, row in page:
                self._holdings.census.webhook(None, row.health)
                if row.state is not WebhookState.ACTIVE:
                    unit.on_done(partial(self._endings.end, row.webhook_id))
            start = page[-1][0] + b"\x00" if len(page) == WEBHOOKS_A_SCAN else None
        at: bytes | None = b""
        waits: set[str] = set()
        while at is not None:
            waiting, at = waiting_page(unit, at)
            for entry, reason in waiting:
                self._expect(entry, reason, unit)
            waits.update(entry.webhook_id for entry, _ in waiting)
            await asyncio.sleep(0)
        self._holdings.ages.read_later(sorted(waits))
        if waits:
            unit.on_done(self._read_ages)
        self._deps.readers.opened(self.context.number, self)
        self.context.tick_now()

    def _read_ages(self) -> None:
        self.context.spawn(self._holdings.ages.read())

    async def process(self, slice_: Slice, unit: Unit) -> None:
        """Apply commands; start or park intents."""
        self._appetite.begins()
        self._parked_now.clear()
        for place, record in enumerate(slice_.records, 1):
            try:
                if record.topic == self._commands:
                    self._command(record, unit)
                else:
                    self._intent(record, unit)
            except TooLargeToKeep as error:
                unit.quarantine(record, "too_large", str(error))
            except SerializationFailed as error:
                unit.quarantine(record, "invalid_envelope", str(error))
            if place % YIELD_EVERY == 0:
                await asyncio.sleep(0)
        self._appetite.ends(self._holdings.now)

    async def tick(self, unit: Unit) -> None:
        """Start what is due and has a slot; look after what expired."""
        if self._draining:
            # Woken in the place of another number.
            self._scheduler.pass_on()
            return
        now = self._holdings.now
        self._pump(unit, now)
        self._holdings.park_briefs(unit, self._holdings.brief.overdue(now))
        self._scheduler.pass_on()
        if now.wall_ms >= self._holdings.sweep_at_ms:
            unit.on_done(self._endings.sweep)
        else:
            self.context.tick_at(now.monotonic_s + (self._holdings.sweep_at_ms - now.wall_ms) / 1000)
        if self._holdings.brief:
            self.context.tick_at(now.monotonic_s + LOOK_S)
        self._resting.look(unit, now)
        next_s = self._scheduler.next_at_s()
        if next_s is not None:
            self.context.tick_at(next_s)

    def holds_back_s(self) -> float:
        """Where more comes than a busy worker starts, all of a slice would need rows at once."""
        now = self._holdings.now
        return self._holdings.brief.crowded_s(now) or self._appetite.holds_back_s(now)

    def takes(self, limit: int) -> int:
        """Where one webhook gets most of it, as much as that one has slots for."""
        return self._appetite.takes(limit, self._holdings.now)

    def begin_drain(self) -> None:
        """Start nothing new."""
        self._draining = True

    def busy(self) -> bool:
        """Whether the outcome of a POST is still on its way."""
        return any(flight.url is not None for flight in self._holdings.flights.values())

    async def closed(self) -> None:
        """Give everything back; the next owner repeats the calls in flight."""
        self._deps.readers.closed(self.context.number, self)
        self._scheduler.close()
        self._holdings.census.close()
        self._holdings.ages.close()

    async def read(self, job: Callable[[Unit, Mapping[str, FoundDelivery]], T]) -> T:
        """See `tables.delivery_queries.Reader`."""
        return await self.context.submit(lambda unit: job(unit, self._holdings.held))

    def activity(self, webhook_id: str, now_ms: int) -> Activity:
        """See `tables.delivery_queries.Reader`."""
        return self._holdings.activity(webhook_id, now_ms)

    # -- commands

    def _command(self, record: Record, unit: Unit) -> None:
        command = decode_command(record.value)
        # As it was, before the unit has the row that it will be.
        self._holdings.webhook(unit, command.webhook_id)
        # What a command changes is told to those that have rows.
        self._park_briefs(command.webhook_id, unit)
        applied = apply_command(unit.get(WEBHOOKS, webhook_key(command.webhook_id)), command, record.timestamp)
        row = applied.row
        if row is None:
            log.info("a command was not applied", extra={"webhook_id": command.webhook_id, "op": command.op.value})
            return
        self._holdings.ledger.write_applied(unit, row, applied, command, record.timestamp)
        if self._holdings.use(row):
            for tries in waiting_classes(unit, row.webhook_id):
                self._scheduler.expect(row.webhook_id, tries, (0, 0))
        if row.state is not WebhookState.ACTIVE:
            unit.on_done(partial(self._endings.end, row.webhook_id))

    # -- intents

    def _intent(self, record: Record, unit: Unit) -> None:
        intent = decode_intent(record.value, record.headers, record.offset)
        webhook = self._holdings.webhook(unit, intent.webhook_id)
        if self._again(record, intent, unit):
            return
        flight = self._holdings.flights.get(intent.delivery_id)
        if webhook is None or webhook.row.state is WebhookState.DELETED:
            return
        self._appetite.meets(intent.webhook_id)
        key = delivery_key(intent.webhook_id, intent.delivery_id)
        known = unit.get(DELIVERIES, key) if flight is None else flight.row
        now = self._holdings.now
        first_wait_s = webhook.terms.schedule.next_wait_s(0, self._deps.uniform) or 0
        next_at_ms = self._due_ms(webhook, intent, now.wall_ms + round(first_wait_s * 1000), unit)
        event = Arrived(intent, webhook.row.state, partial(self._admit, webhook, intent, now), next_at_ms)
        step = transition(Delivery(known, in_flight=flight is not None), event, now.wall_ms, webhook.terms)
        row = step.after.row
        if row is None:
            return
        if flight is not None:
            flight.row = row
        elif step.after.in_flight:
            self._hold(self._attempts.take_off(row, record=record), record, unit)
        elif step.changed and known is None and self._holdings.brief.suit(row, now):
            self._wait_briefly(webhook, row, record, unit)
        elif step.changed:
            self._park(webhook, known, step, unit)

    def _again(self, record: Record, intent: Intent, unit: Unit) -> bool:
        """Whether nothing is to be done but to wait: its slice is run again, or it asks for what waits anyway."""
        flight, wait = self._holdings.flights.get(intent.delivery_id), self._holdings.brief.get(intent.delivery_id)
        if flight is not None and flight.is_of(record):
            self._hold(flight, record, unit)
            return True
        if wait is not None and wait.is_of(record):
            unit.hold(record)
            return True
        if wait is not None and intent.reason.asks_again:
            # It finds the delivery as if it had been parked.
            self._park_briefs(intent.webhook_id, unit)
            return False
        # Of an event that was published again, nothing is left to do: the record of the first one is not done yet.
        return wait is not None

    def _wait_briefly(self, webhook: OwnedWebhook, row: DeliveryRow, record: Record, unit: Unit) -> None:
        now = self._holdings.now
        unit.hold(record)
        if row.reason is Reason.SLOT:
            self._appetite.waits(row.webhook_id)
        self._holdings.brief.add(row, record, now)
        self._scheduler.offer(entry_of(row))
        webhook.parked_at_ms = max(webhook.parked_at_ms, row.next_at_ms or 0)
        self.context.tick_at(now.monotonic_s + LOOK_S)

    def _park(self, webhook: OwnedWebhook, known: DeliveryRow | None, step: Step, unit: Unit) -> None:
        row = step.after.row
        if row is None:
            return
        # Those that came before it in its lane have a row before it has one.
        self._park_briefs(row.webhook_id, unit)
        self._holdings.write(unit, row, known, step)
        if row.status.waits:
            self._holdings.secure_order(unit, row)
            # At once: later records of the slice may have the same subject.
            self._scheduler.offer(entry_of(row))
        if row.status is Status.PENDING:
            self._parked_now.add(row.webhook_id)
            webhook.parked_at_ms = max(webhook.parked_at_ms, row.next_at_ms or 0)

    def _park_briefs(self, webhook_id: str, unit: Unit) -> None:
        self._holdings.park_briefs(unit, self._holdings.brief.all_of(webhook_id))

    def _due_ms(self, webhook: OwnedWebhook, intent: Intent, earliest_ms: int, unit: Unit) -> int:
        """When a delivery is due that must wait: not before those that came before it in its lane.

        Where they wait for much longer (the first step of the schedule was longer then, or the clock of another worker
        was ahead) only those of its own lane count. None does where none is left that it could overtake, now or after a
        crash, so that a clock that was set back delays nothing.
        """
        if self._none_before(webhook):
            webhook.parked_at_ms = 0
        lane = lane_of(intent.subject)
        if lane is not None and (ahead := self._holdings.lane_flights.get((intent.webhook_id, lane))) is not None:
            # It may have no row yet, or be put back.
            earliest_ms = max(earliest_ms, ahead.row.next_at_ms or 0)
        if webhook.parked_at_ms - earliest_ms <= DISORDER_MS:
            return max(earliest_ms, webhook.parked_at_ms)
        last = None if lane is None else last_in_lane(unit, intent.webhook_id, lane)
        return max(earliest_ms, last.next_at_ms or 0) if last is not None else earliest_ms

    def _none_before(self, webhook: OwnedWebhook) -> bool:
        webhook_id = webhook.row.webhook_id
        return not (webhook.flights or webhook_id in self._parked_now or self._holdings.brief.concern(webhook_id))

    def _admit(self, webhook: OwnedWebhook, intent: Intent, now: Now) -> Reason | None:
        if webhook.terms.schedule.steps_s[0] > 0:
            # The schedule itself lets the first attempt wait.
            return Reason.RETRY
        if not self._holdings.has_key(webhook, now):
            return Reason.NO_KEY
        return self._scheduler.admit(intent.webhook_id, lane_of(intent.subject), now)

    def _hold(self, flight: Flight, record: Record, unit: Unit) -> None:
        unit.hold(record)
        unit.on_done(partial(self._attempts.launch, flight))

    # -- what waits

    def _expect(self, entry: Entry, reason: Reason, unit: Unit) -> None:
        """A row that waited when the number was opened."""
        self._holdings.census.waits(reason, 1)
        webhook = self._holdings.webhook(unit, entry.webhook_id)
        if webhook is not None:
            if entry.tries == 0:
                self._holdings.brief.parks(entry.webhook_id, 1)
                webhook.parked_at_ms = max(webhook.parked_at_ms, entry.next_at_ms)
            self._scheduler.expect(entry.webhook_id, entry.tries, (0, 0))

    def _pump(self, unit: Unit, now: Now) -> None:
        """Start what can start, and fill the scheduler from the index as it empties; the rest in the next tick."""
        refills = starts = 0
        while refills < REFILLS_A_TICK and starts < STARTS_A_TICK:
            asked = self._scheduler.refills()
            refills += bool(asked)
            for one in asked:
                strict = self._holdings.webhooks[one.webhook_id].row.ordering is Ordering.STRICT
                self._scheduler.refill(one, *read_refill(unit, one, self._holdings.flights, strict=strict))
            entry = self._scheduler.next(now)
            if entry is not None:
                starts += 1
                self._start_waiting(entry, unit, now)
            elif not asked:
                return
        self.context.tick_now()

    def _start_waiting(self, entry: Entry, unit: Unit, now: Now) -> None:
        webhook = self._holdings.webhooks[entry.webhook_id]
        brief = self._holdings.brief
        wait = brief.get(entry.delivery_id)
        stored = None if wait is not None else unit.get(DELIVERIES, delivery_key(entry.webhook_id, entry.delivery_id))
        row = stored if wait is None else wait.row
        flying = entry.delivery_id in self._holdings.flights
        startable = row is not None and row.status.waits and not flying and webhook.row.state is WebhookState.ACTIVE
        if row is not None and startable:
            step = transition(Delivery(row), Due(), now.wall_ms, webhook.terms)
            if not step.after.in_flight:
                self._holdings.sweep_at_ms = 0
            elif self._holdings.has_key(webhook, now):
                brief.take(entry.delivery_id)
                flight = self._attempts.take_off(row, stored=stored, record=None if wait is None else wait.record)
                unit.on_done(partial(self._attempts.launch, flight))
                return
            else:
                self._scheduler.offer(entry, back=True)
        self._scheduler.finish(entry.webhook_id, entry.lane, Result.NOTHING, now)


def webhooks_agent(topics: Topics, deps: WebhooksDeps) -> Agent:
    """The registration: the webhooks of a number and the deliveries to them are one thing with one owner."""
    return Agent(
        name="webhooks",
        topics=(topics.deliveries, topics.commands),
        processor=lambda context: WebhooksProcessor(context, topics, deps),
        home=DELIVERIES,
        tables=(DELIVERIES, WEBHOOKS),
        room_records=ROOM_RECORDS,
        slice_records=SLICE_RECORDS,
    )
