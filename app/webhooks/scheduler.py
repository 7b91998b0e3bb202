"""Which delivery of one number starts next (architecture 5, Scheduler, Slots, Pace).

Nothing is pushed ahead of capacity: when a slot is free, the next due delivery is *pulled*, round robin over webhooks,
two first attempts for each retry, one at a time in a lane. Rows lie in the table; memory holds the beginning of what
waits (`Backlog`), at most about 10,000 entries a number.

Pure: the clock comes in as `Now`. Whoever calls `next` or `admit` and gets a delivery owes a `finish`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from app.webhooks.backlog import DEFAULT_SHARE, Backlog, Entry, Horizon
from app.webhooks.model import Ordering, Reason
from app.webhooks.pace import GlobalSlots, PaceRules, Result, TokenBucket
from app.webhooks.receiver_state import Learnt, Limits, Now, Receiver, learnt_of
from app.webhooks.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["ENTRIES_LIMIT", "Limits", "Now", "Refill", "Result", "Room", "Scheduler"]

ENTRIES_LIMIT: Final = 10_000
# A webhook with attempts in flight of which none has ended for so long may be one that hangs.
STALLED_S: Final = 1.0
# One that answers is not far from its next answer.
GETS_ON_S: Final = 0.25
_LANE_REFILL: Final = 8


class Refill(NamedTuple):
    """A part of the index that should be read next: a class from `horizon` on, or a lane from its sequence on."""

    webhook_id: str
    tries: int
    horizon: Horizon
    lane: bytes | None
    limit: int


class Room(NamedTuple):
    """The slots of a webhook: those that something new would get, and all that it may have now.

    With what waits already, nothing new gets any.
    """

    free: int
    slots: int
    waits: bool


class Scheduler:
    """One number's.

    Args:
        slots: The worker's, shared by all numbers.
        rules: When a webhook is paced.
        wake: Called when `next` may have something that it did not have before.
        entries_limit: About how many entries may be in memory.
    """

    def __init__(
        self, slots: GlobalSlots, rules: PaceRules, wake: Callable[[], None], *, entries_limit: int = ENTRIES_LIMIT
    ) -> None:
        self._slots = slots
        self._rules = rules
        self._wake = wake
        self._receivers: dict[str, Receiver] = {}
        self._put_away: dict[str, Learnt] = {}
        self._turns = Turns()
        self._parked: dict[str, None] = {}
        self._touched: set[str] = set()
        self._entries_limit = entries_limit
        self._classes = 0
        self._share = max(1, min(DEFAULT_SHARE, entries_limit // 2))

    def configure(self, webhook_id: str, limits: Limits, now: Now) -> None:
        """A webhook is there, or its configuration changed; what was learnt of it stays.

        With another ordering its backlog is forgotten: tell it again by `expect` and `occupy`.
        """
        found = self._receivers.get(webhook_id)
        if found is None:
            found = self._receivers[webhook_id] = Receiver(webhook_id, limits, self._rules, now)
            if (learnt := self._put_away.pop(webhook_id, None)) is not None:
                found.slots.cap = learnt.cap
                self._slots.mark(webhook_id, troubled=learnt.troubled)
            return
        if limits.rate_per_s != found.limits.rate_per_s:
            found.bucket = None if limits.rate_per_s is None else TokenBucket(limits.rate_per_s, now.monotonic_s)
        if limits.ordering is not found.limits.ordering:
            found.backlog = Backlog(strict=limits.ordering is Ordering.STRICT)
        found.limits = limits
        found.slots.resize(limits.max_in_flight)
        found.hold_until_ms = limits.hold_until_ms or 0
        self._enqueue(webhook_id)

    def remove(self, webhook_id: str) -> None:
        """A webhook is gone, or is not served here any more: give its slots back."""
        if (found := self._receivers.pop(webhook_id, None)) is not None:
            self._classes -= found.classes
            self._slots.forgive(webhook_id)
            for _ in range(found.in_flight):
                self._slots.give_back(webhook_id)

    def spare(self, webhook_id: str, now: Now) -> bool:
        """Whether a webhook may be put away: nothing but what is kept then would be lost."""
        found = self._receivers[webhook_id]
        return now.monotonic_s - found.progress_s > GETS_ON_S and found.spare(now)

    def put_away(self, webhook_id: str) -> None:
        """Forget one that is `spare` until it is configured again; what was learnt of its capacity is kept."""
        learnt = learnt_of(self._receivers[webhook_id].slots.cap, self._slots.troubled(webhook_id))
        self.remove(webhook_id)
        self._put_away[webhook_id] = learnt

    def close(self) -> None:
        """The number is gone."""
        self._slots.forget(self._unpark)
        for webhook_id in list(self._receivers):
            self.remove(webhook_id)

    def reset(self, webhook_id: str) -> None:
        """An admin enabled it: what was learnt of its failures is forgotten, and its backlog as in `configure`."""
        found = self._receivers[webhook_id]
        found.backlog = Backlog(strict=found.backlog.strict)
        self.trust(webhook_id)

    def trust(self, webhook_id: str) -> None:
        """It leads to another receiver: the failures of the one before are forgotten."""
        self._receivers[webhook_id].pace.succeeded()
        self._slots.forgive(webhook_id)
        self._enqueue(webhook_id)

    def blocked(self, webhook_id: str, now: Now) -> tuple[Reason | None, bool]:
        """What stands in the way of a start now, and whether the webhook is paced."""
        block, pace = self._receivers[webhook_id].block(now), self._receivers[webhook_id].pace
        return (block.reason if block is not None else None), pace.paced

    # -- starting

    def admit(self, webhook_id: str, lane: bytes | None, now: Now) -> Reason | None:
        """May a delivery that is new start at once? None: it has started."""
        found = self._receivers[webhook_id]
        if (block := found.block(now)) is not None:
            return block.reason
        if not found.backlog.lane_free(lane):
            return Reason.ORDER
        if found.pace.paced and found.backlog.pick(now.wall_ms, most_tries=True) is not None:
            return Reason.PACE
        if found.backlog.first_waits(now.wall_ms) or not self._available(found, now):
            return Reason.SLOT
        self._take(found, now)
        found.backlog.occupy(lane)
        return None

    def gets_on(self, webhook_id: str, now: Now) -> bool:
        """Whether a delivery that must wait for a slot or its lane will soon start, as attempts end all the time."""
        if (found := self._receivers.get(webhook_id)) is None:
            return False
        block, idle_s = found.block(now), now.monotonic_s - found.progress_s
        return idle_s <= GETS_ON_S and (block is None or (block.reason is Reason.SLOT and block.until_s is None))

    def room(self, webhook_id: str, now: Now) -> Room | None:
        """How many that are new could about start now; None: not slots are what it lacks, or no attempt ends."""
        if not self.gets_on(webhook_id, now):
            return None
        found = self._receivers[webhook_id]
        cap = found.cap
        waits = found.backlog.first_waits(now.wall_ms)
        return Room(0 if waits else max(0, min(cap - found.in_flight, self._slots.free)), cap, waits)

    def keeps(self, webhook_id: str, lane: bytes | None) -> bool:
        """Whether a delivery that is offered stays in memory until it starts, be it in the index or not."""
        return self._receivers[webhook_id].backlog.keeps(lane)

    def next(self, now: Now) -> Entry | None:
        """Pull the next delivery; it has started. None: nothing can start now."""
        turns = self._turns
        turns.wake_up(now.monotonic_s)
        for _ in range(len(turns)):
            found = self._receivers.get(turns.leave())
            if found is not None and (entry := self._pull(found, now)) is not None:
                return entry
            if self._slots.free <= 0:
                if len(turns):
                    # Nobody has looked whether these could start, so nobody stands in the queue for them.
                    self._slots.wait(self._unpark)
                break
        return None

    def next_at_s(self) -> float | None:
        """When `next` should be asked again, by the monotonic clock; None: not before `wake`."""
        return self._turns.next_at_s()

    def pass_on(self) -> None:
        """What this number does not use, another one may."""
        self._slots.wake()

    def finish(self, webhook_id: str, lane: bytes | None, result: Result, now: Now) -> None:
        """An attempt ended, and what became of it is known; if its delivery waits again, `offer` it first."""
        self.answered(webhook_id, result, now)
        self.settled(webhook_id, lane)

    def answered(self, webhook_id: str, result: Result, now: Now) -> None:
        """An attempt ended, so its slot is free; its lane stays busy until `settled`."""
        found = self._receivers.get(webhook_id)
        if found is None:
            return
        found.in_flight -= 1
        found.progress_s = now.monotonic_s
        match result:
            case Result.SUCCESS | Result.SLOW:
                found.slots.grow()
                found.pace.succeeded()
            case Result.FAILURE | Result.TIMEOUT:
                found.pace.failed(now.monotonic_s, last=not found.in_flight)
            case Result.NOTHING if found.bucket is not None:
                found.bucket.give_back()
        if result is Result.TIMEOUT:
            found.slots.shrink()
        if result is not Result.NOTHING:
            found.no_proxy_s = 0.0
            self._slots.mark(webhook_id, troubled=found.pace.troubled or result is Result.SLOW)
            self._slots.mark_steady(webhook_id, now.monotonic_s, steady=found.pace.steady)
        self._slots.give_back(webhook_id)
        self._enqueue_if_any(found)

    def settled(self, webhook_id: str, lane: bytes | None) -> None:
        """What became of an attempt is written, so that the next of its lane may start."""
        if (found := self._receivers.get(webhook_id)) is not None:
            found.backlog.release(lane)
            self._enqueue_if_any(found)

    def stop(self, webhook_id: str, change: int) -> None:
        """A receiver said that nothing more may start (1), or what it said is written, so that all know (-1)."""
        if change and (found := self._receivers.get(webhook_id)) is not None:
            found.stops += change
            self._enqueue(webhook_id)

    # -- waiting

    def offer(self, entry: Entry, *, back: bool = False) -> None:
        """A row waits; `back`: it had started, and waits as before, as no attempt was made."""
        if (found := self._receivers.get(entry.webhook_id)) is not None:
            found.backlog.share = self._share
            (found.backlog.put_back if back else found.backlog.offer)(entry)
            self._count(found)
            if self._looked_at_later(found):
                self._touched.add(entry.webhook_id)
            else:
                self._enqueue(entry.webhook_id)

    def forget(self, webhook_id: str, delivery_id: str) -> None:
        """A row ended without an attempt."""
        if (found := self._receivers.get(webhook_id)) is not None:
            found.backlog.forget(delivery_id)
            self._enqueue_if_any(found)

    def hold(self, webhook_id: str, until_ms: int) -> None:
        """No attempt before this time (a 429)."""
        found = self._receivers[webhook_id]
        found.hold_until_ms = max(found.hold_until_ms, until_ms)

    def without_key(self, webhook_id: str, until_s: float) -> None:
        """A key that it needs is not here; 0: it is."""
        self._receivers[webhook_id].no_key_until_s = until_s
        self._enqueue(webhook_id)

    def without_proxy(self, webhook_id: str, now: Now) -> None:
        """One of its attempts did not get past our own proxy."""
        if (found := self._receivers.get(webhook_id)) is not None:
            found.without_proxy(now.monotonic_s)

    def lacks_key(self, webhook_id: str, now_s: float) -> bool:
        """Whether it was said so by `without_key`, for a time that is not over."""
        return now_s < self._receivers[webhook_id].no_key_until_s

    def expect(self, webhook_id: str, tries: int, horizon: Horizon) -> None:
        """The index has rows of this class from here on."""
        self._receivers[webhook_id].backlog.fill_class(tries, [], horizon)
        self._enqueue(webhook_id)

    def occupy(self, webhook_id: str, lane: bytes | None) -> None:
        """A delivery of this lane is in flight."""
        self._receivers[webhook_id].backlog.occupy(lane)

    def refills(self) -> list[Refill]:
        """What should be read from the index."""
        touched, self._touched = self._touched, set()
        receivers = [found for found in map(self._receivers.get, touched) if found is not None]
        # Counted where something changed: there may be thousands of webhooks, and this is asked for each start.
        for found in receivers:
            self._count(found)
        asked: list[Refill] = []
        for found in receivers:
            found.backlog.share = self._share
            if not found.backlog.all_here:
                asked += self._hunger(found)
        return asked

    def _count(self, found: Receiver) -> None:
        if found.backlog.classes != found.classes:
            self._classes += found.backlog.classes - found.classes
            found.classes = found.backlog.classes
        # Half of it for what may be offered, half for what follows in its lanes.
        self._share = max(1, min(DEFAULT_SHARE, self._entries_limit // (2 * max(1, self._classes))))

    def _hunger(self, found: Receiver) -> Iterator[Refill]:
        for lane, sequence in found.backlog.hungry_lanes():
            yield Refill(found.webhook_id, 0, (0, sequence), lane, _LANE_REFILL)
        for tries, horizon in found.backlog.hungry_classes():
            yield Refill(found.webhook_id, tries, horizon, None, self._share)

    def refill(self, asked: Refill, entries: list[Entry], horizon: Horizon | None) -> None:
        """The answer to a `Refill`: entries, and where the rest begins (None: there is none)."""
        found = self._receivers.get(asked.webhook_id)
        if found is None:
            return
        if asked.lane is None:
            found.backlog.fill_class(asked.tries, entries, horizon)
        else:
            found.backlog.fill_lane(asked.lane, entries, None if horizon is None else horizon[1])
        self._enqueue(asked.webhook_id, wake=False)

    # -- inside

    def _available(self, found: Receiver, now: Now) -> bool:
        """Whether the worker has a slot for it; one that hangs is known by then, before its first time-out."""
        if found.in_flight and now.monotonic_s - found.progress_s > STALLED_S:
            self._slots.mark(found.webhook_id, troubled=True)
        return self._slots.available(found.webhook_id)

    def _take(self, found: Receiver, now: Now) -> None:
        if not found.in_flight:
            found.progress_s = now.monotonic_s
        found.in_flight += 1
        found.spaced_until_s = now.monotonic_s + self._slots.failing_gap_s(now.monotonic_s)
        self._slots.take(found.webhook_id)
        if found.bucket is not None:
            found.bucket.take(now.monotonic_s)

    def _pull(self, found: Receiver, now: Now) -> Entry | None:
        if (block := found.block(now)) is not None:
            if block.until_s is not None and len(found.backlog):
                self._turns.sleep(found.webhook_id, block.until_s)
            return None
        entry = found.backlog.pick(now.wall_ms, most_tries=found.pace.prefers_retries)
        if entry is None:
            # What cannot start may have made room for more of the index.
            self._touched.add(found.webhook_id)
            if (due_ms := found.backlog.next_due_ms()) is not None:
                self._turns.sleep(found.webhook_id, now.monotonic_s + (due_ms - now.wall_ms) / 1000)
            return None
        if not self._available(found, now):
            if self._slots.fair(found.webhook_id):
                # Not looked at again before there is a slot for it: many may wait, and each start looks at the ring.
                self._parked.setdefault(found.webhook_id)
                self._slots.wait(self._unpark)
            else:
                self._enqueue(found.webhook_id, wake=False)
            return None
        self._enqueue(found.webhook_id, wake=False)
        found.backlog.take(entry)
        self._take(found, now)
        return entry

    def _unpark(self) -> None:
        # In the order in which they came, so that they take turns.
        parked, self._parked = self._parked, {}
        for webhook_id in parked:
            self._enqueue(webhook_id, wake=False)
        self._wake()

    def _enqueue_if_any(self, found: Receiver) -> None:
        # After most attempts nothing waits, and to wake the pump costs as much as to route an event.
        self._touched.add(found.webhook_id)
        if not found.backlog.idle:
            self._enqueue(found.webhook_id)
        elif len(self._turns):
            # Those in the ring hold as many slots as were free; more are now.
            self._wake()

    def _looked_at_later(self, found: Receiver) -> bool:
        """Whether it can start nothing before an attempt of it ends, or a timer fires, and either enqueues it."""
        if found.in_flight >= found.cap or found.stops:
            return True
        timer_s = self._turns.sleeps_until_s(found.webhook_id)
        one_by_one = found.pace.paced and found.in_flight > 0
        return one_by_one or (timer_s is not None and timer_s <= found.pause_s)

    def _enqueue(self, webhook_id: str, *, wake: bool = True) -> None:
        self._touched.add(webhook_id)
        self._turns.join(webhook_id)
        if wake:
            self._wake()
