"""What the owner of a number holds: its webhooks, what is in flight, and the scheduler of what waits."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from random import random
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from agents.webhooks.brief_waits import BriefWaits
from agents.webhooks.waiting_ages import WaitingAges
from app.webhooks.census import Census
from app.webhooks.health import Heart
from app.webhooks.model import Reason, Status
from app.webhooks.owned import DeliveryOptions, OwnedWebhook
from app.webhooks.recent import Activity, Recent
from app.webhooks.scheduler import Now, Result, Scheduler
from tables.deliveries import DELIVERIES, delivery_key, entry_of, lane_of
from tables.delivery_ledger import DeliveryLedger
from tables.delivery_queries import FoundDelivery
from tables.webhooks import WEBHOOKS, webhook_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from agents.webhooks.brief_waits import BriefWait
    from app.engine import Context, Record, Unit
    from app.topics import Topics
    from app.webhooks.delivery import Step
    from app.webhooks.derived import Publisher
    from app.webhooks.model import DeliveryRow, WebhookRow
    from app.webhooks.pace import GlobalSlots
    from app.webhooks.secrets import KeyRing
    from app.webhooks.sender import AttemptOutcome, OutgoingRequest
    from app.webhooks.signing import SigningKey
    from tables.delivery_queries import Readers

__all__ = ["Flight", "Holdings", "Posts", "WebhooksDeps"]

log = logging.getLogger("app.agents.webhooks")

KEY_RETRY_S: Final = 30.0
# So many that a receiver that answers at once is never kept waiting by a commit that takes long.
UNSETTLED_LIMIT: Final = 256
_TAKEN: Final = frozenset({Result.SUCCESS, Result.SLOW})


class Posts(Protocol):
    """Makes one attempt, as `app.webhooks.sender.Sender` does."""

    async def post(self, request: OutgoingRequest) -> AttemptOutcome:
        """The outcome, whatever the receiver did."""


@dataclass(frozen=True, slots=True)
class WebhooksDeps:
    """What the agent works with.

    Attributes:
        sender: Makes the POSTs.
        keys: Open the secrets.
        slots: The worker's, one for all numbers.
        publisher: Writes the derived events.
        readers: Where the API finds the open numbers.
        options: From the settings.
        signing_key: For webhooks that ask for `v1a`.
        uniform: A number from [0, 1), for jitter.
        busy: Whether the worker has more to do than time.
    """

    sender: Posts
    keys: KeyRing
    slots: GlobalSlots
    publisher: Publisher
    readers: Readers
    options: DeliveryOptions = field(default_factory=DeliveryOptions)
    signing_key: SigningKey | None = None
    uniform: Callable[[], float] = random
    busy: Callable[[], bool] = lambda: False


@dataclass(eq=False, slots=True)
class Flight:
    """A delivery that has its slot.

    Attributes:
        row: As it was when it started; never written if it came straight from its intent.
        stored: What lies in the table.
        record: The unfinished intent.
        url: Where the POST went that is under way; None before it.
        answered: It has given its slot back.
        failed: Its receiver has not taken it, and that is not written yet.
        stops: Nor may anything else start for its webhook until it is.
    """

    row: DeliveryRow
    stored: DeliveryRow | None = None
    record: Record | None = None
    url: str | None = None
    answered: bool = False
    failed: bool = False
    stops: bool = False

    def is_of(self, record: Record) -> bool:
        """Whether it came from this very record, whose slice is being run again."""
        mine = self.record
        return mine is not None and (mine.topic, mine.partition, mine.offset) == (
            record.topic,
            record.partition,
            record.offset,
        )


class Holdings:
    """One number's.

    Attributes:
        brief: What waits without a row.
        webhooks: By id, those that were needed lately. Most of ten thousand have nothing to do for long, and a row in
            the table is all that they cost until then; `resting.Resting` puts them away again.
        flights: By delivery id.
        since_ms: Since when this is the owner.
        lane_flights: Those whose event has a subject, by webhook and lane.
        sweep_at_ms: When rows should be looked through for those that expired.
        swept_to_ms: Before this time the expiry index holds nothing but tombstones.
        unsettled: How many deliveries have given their slot back before their outcome was written.
    """

    def __init__(self, context: Context, topics: Topics, deps: WebhooksDeps) -> None:
        self.context = context
        self.deps = deps
        self.since_ms = context.clock.now_ms()
        self.scheduler = Scheduler(deps.slots, deps.options.pace, context.tick_now)
        self.census = Census(without_key=deps.keys.active_key_id is None)
        self.brief = BriefWaits(self.scheduler, self.census, deps.busy)
        self.ages = WaitingAges(context)
        self.ledger = DeliveryLedger(deps.publisher, topics.attempts, topics.dead_letters, topics.events)
        self.webhooks: dict[str, OwnedWebhook] = {}
        self.flights: dict[str, Flight] = {}
        self.lane_flights: dict[tuple[str, bytes], Flight] = {}
        self.sweep_at_ms = 0
        self.swept_to_ms = 0
        self.unsettled = 0

    @property
    def now(self) -> Now:
        """This moment."""
        clock = self.context.clock
        return Now(clock.now_ms(), clock.monotonic_s())

    @property
    def held(self) -> Mapping[str, FoundDelivery]:
        """The deliveries in memory, by id: those in flight, and those that wait without a row."""
        waiting = {row.delivery_id: FoundDelivery(row, in_flight=False) for row in self.brief.rows()}
        return waiting | {id_: FoundDelivery(flight.row, in_flight=True) for id_, flight in self.flights.items()}

    def webhook(self, unit: Unit, webhook_id: str) -> OwnedWebhook | None:
        """A webhook, read from the table when it is needed first; None: there is none."""
        found = self.webhooks.get(webhook_id)
        if found is not None:
            found.needed = True
        elif (row := unit.get(WEBHOOKS, webhook_key(webhook_id))) is not None:
            found = self._take_in(row)
        return found

    def has_key(self, webhook: OwnedWebhook, now: Now) -> bool:
        """Whether the next attempt of a webhook can be signed; if not, none of it starts for a while."""
        has = self._can_sign(webhook, now)
        self.census.key(webhook.row.webhook_id, None if has else webhook.missing_key)
        return has

    def _can_sign(self, webhook: OwnedWebhook, now: Now) -> bool:
        if webhook.can_sign(now.wall_ms):
            return True
        if self.scheduler.lacks_key(webhook.row.webhook_id, now.monotonic_s):
            return False
        webhook.open_secrets()
        if webhook.can_sign(now.wall_ms):
            return True
        log.error(
            "the events of a webhook wait: a key of %s is missing",
            webhook.missing_key,
            extra={"webhook_id": webhook.row.webhook_id},
        )
        self.scheduler.without_key(webhook.row.webhook_id, now.monotonic_s + KEY_RETRY_S)
        return False

    def put_away(self, webhook_id: str) -> None:
        """Hold a webhook no longer, until it is needed again."""
        del self.webhooks[webhook_id]
        self.scheduler.put_away(webhook_id)

    def activity(self, webhook_id: str, now_ms: int) -> Activity:
        """What is known of a webhook; of one that was not needed yet, that it does nothing."""
        webhook = self.webhooks.get(webhook_id)
        if webhook is None:
            return Activity(self.since_ms, Recent().last_hour(now_ms))
        blocked, paced = self.scheduler.blocked(webhook_id, self.now)
        buckets = (webhook.recent or Recent()).last_hour(now_ms)
        return Activity(self.since_ms, buckets, webhook.flights, webhook.heart.failures, blocked, paced)

    def _take_in(self, row: WebhookRow) -> OwnedWebhook:
        deps = self.deps
        webhook = self.webhooks[row.webhook_id] = OwnedWebhook(row, deps.options, deps.keys, deps.signing_key)
        self.scheduler.configure(row.webhook_id, webhook.limits, self.now)
        # From the next tick on it is looked at whether it is needed any longer; there may be no other reason for one.
        self.context.tick_now()
        return webhook

    def use(self, row: WebhookRow) -> bool:
        """Serve a webhook by this row from now on; whether its backlog must be read from the index again.

        One that the table had before must have been asked for by `webhook`.
        """
        webhook = self.webhooks.get(row.webhook_id)
        if webhook is None:
            self.census.webhook(None, row.health)
            self._take_in(row)
            return False
        before = webhook.row
        webhook.use(row)
        self.census.key(row.webhook_id, None)  # its secrets may be others; the next attempt tells
        self.census.webhook(before.health, row.health)
        self.scheduler.configure(row.webhook_id, webhook.limits, self.now)
        enabled = row.enabled and not before.enabled
        if row.enabled != before.enabled:
            webhook.heart = Heart.of(row)
        if row.url != before.url:
            self.scheduler.trust(row.webhook_id)
        if enabled:
            self.scheduler.reset(row.webhook_id)
        if row.ordering is before.ordering and not enabled:
            return False
        for flight in self.flights.values():
            if flight.row.webhook_id == row.webhook_id:
                self.scheduler.occupy(row.webhook_id, lane_of(flight.row.subject))
        return True

    def drop(self, webhook_id: str) -> None:
        """The last of a webhook is gone."""
        self.census.webhook(self.webhooks.pop(webhook_id).row.health, None)
        self.census.key(webhook_id, None)
        self.scheduler.remove(webhook_id)
        self.brief.drop(webhook_id)

    def lift(self, flight: Flight) -> None:
        """A delivery takes its slot; from now on a repeated intent of it is known."""
        row, lane = flight.row, lane_of(flight.row.subject)
        self.flights[row.delivery_id] = flight
        self.brief.starts(flight.stored)
        if lane is not None:
            self.lane_flights[row.webhook_id, lane] = flight
        self.webhooks[row.webhook_id].flights += 1

    def answered(self, flight: Flight, result: Result, *, stops: bool) -> None:
        """The receiver has answered. If it took it, another one may have its slot while the outcome is being written.

        Not without end: after a crash, what is not written is sent again. And not while a failure of the webhook waits
        to be judged, as it says something of those that come next.
        """
        webhook, webhook_id = self.webhooks[flight.row.webhook_id], flight.row.webhook_id
        if result not in _TAKEN:
            flight.failed, flight.stops = True, stops
            webhook.unjudged += 1
            self.scheduler.stop(webhook_id, stops)
        elif not webhook.unjudged and self.unsettled < UNSETTLED_LIMIT:
            flight.answered = True
            self.unsettled += 1
            self.scheduler.answered(webhook_id, result, self.now)

    def land(self, flight: Flight, result: Result) -> OwnedWebhook:
        """What it became is written, so that it gives back its lane, and its slot. Returns its webhook."""
        row, lane = flight.row, lane_of(flight.row.subject)
        del self.flights[row.delivery_id]
        self.brief.lands(flight.stored)
        if lane is not None:
            del self.lane_flights[row.webhook_id, lane]
        webhook = self.webhooks[row.webhook_id]
        webhook.flights -= 1
        webhook.unjudged -= flight.failed
        self.scheduler.stop(row.webhook_id, -flight.stops)
        if flight.answered:
            self.unsettled -= 1
            self.scheduler.settled(row.webhook_id, lane)
        else:
            self.scheduler.finish(row.webhook_id, lane, result, self.now)
        return webhook

    def secure_order(self, unit: Unit, follower: DeliveryRow) -> None:
        """Before a delivery waits behind one that has no row: write that row, too.

        Else the follower would be the first of its subject after a crash, as the intent before it is read again only
        once the number has been opened.
        """
        lane = lane_of(follower.subject)
        ahead = None if lane is None else self.lane_flights.get((follower.webhook_id, lane))
        if ahead is None or ahead.stored is not None:
            return
        row = msgspec.structs.replace(ahead.row, reason=Reason.SLOT)
        key = delivery_key(row.webhook_id, row.delivery_id)
        # In this unit it may have ended already.
        if unit.get(DELIVERIES, key) is None:
            unit.put(DELIVERIES, key, row)
            unit.on_done(partial(self._stored, ahead, row))

    def _stored(self, flight: Flight, row: DeliveryRow) -> None:
        # Several followers in one slice write it once each.
        self.census.row_changed(flight.stored, row)
        self.ages.row_changed(flight.stored, row)
        flight.stored = row

    def park_briefs(self, unit: Unit, waits: Iterable[BriefWait], *, ends: bool = False) -> None:
        """Give what waits without a row one, in order, so that its record is done.

        Args:
            unit: What it becomes part of.
            waits: What waits.
            ends: None of it will be tried, so that its order does not matter any more.
        """
        for wait in waits:
            row, key = wait.row, delivery_key(wait.row.webhook_id, wait.row.delivery_id)
            if unit.get(DELIVERIES, key) is not None:
                # An earlier record of the slice asked for it, and may have changed it since.
                continue
            if not ends:
                self.secure_order(unit, row)
            unit.put(DELIVERIES, key, row)
            unit.finish(wait.record)
            unit.on_done(partial(self._parked, row))

    def _parked(self, row: DeliveryRow) -> None:
        # Only now: a unit that fails is run again. And once, though two commands of a slice both ask for it.
        if self.brief.take(row.delivery_id) is not None:
            self.written(row, None, row)

    def write(self, unit: Unit, known: DeliveryRow, stored: DeliveryRow | None, step: Step) -> None:
        """Make a step of a delivery part of a unit.

        Args:
            unit: The unit.
            known: The delivery before the step.
            stored: What lies in the table; None: nothing yet.
            step: What became of it.
        """
        self.ledger.write(unit, known, step, self.context.clock.now_ms())
        unit.on_done(partial(self.written, known, stored, step.after.row))

    def written(
        self, known: DeliveryRow, stored: DeliveryRow | None, after: DeliveryRow | None, *, back: bool = False
    ) -> None:
        """A step that `ledger` wrote is merged.

        Args:
            known: As of `write`.
            stored: As of `write`.
            after: The row after the step.
            back: It waits again though no attempt was made, in its place.
        """
        self._counted(stored, after)
        if after is not None and after.status.waits:
            self.scheduler.offer(entry_of(after), back=back)
        else:
            self.scheduler.forget(known.webhook_id, known.delivery_id)
        if after is None:
            return
        if back and after.status is Status.PENDING:
            # Those that come next are not due before it.
            webhook = self.webhooks[after.webhook_id]
            webhook.parked_at_ms = max(webhook.parked_at_ms, after.next_at_ms or 0)
        # Also while a sweep is asked for already: it begins there.
        self.swept_to_ms = min(self.swept_to_ms, after.expires_at_ms)
        if after.expires_at_ms < self.sweep_at_ms:
            self.sweep_at_ms = after.expires_at_ms
            self.context.tick_now()

    def _counted(self, before: DeliveryRow | None, after: DeliveryRow | None) -> None:
        self.census.row_changed(before, after)
        if before is not None or (after is not None and after.status.waits):
            # They count what waits in the table alone.
            self.ages.row_changed(before, after)
            self.brief.row_changed(before, after)
