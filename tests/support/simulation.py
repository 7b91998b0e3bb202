"""Hours of deliveries in seconds: the real scheduler, slots, pace, schedule, state table and health in virtual time.

What is played is the table (a dict and a sorted index), the network (receivers say how long they take, and what they
answer) and the clock. Processor time does not exist in it: what waits here waits for a slot, a token, a pace or a hold.
"""

from __future__ import annotations

import heapq
import itertools
import random
from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from app.webhooks.backlog import Entry
from app.webhooks.delivery import Answered, Arrived, Delivery, Due, Terms, WebhookEnded, transition
from app.webhooks.health import Heart, after_attempt
from app.webhooks.intents import Intent, IntentReason
from app.webhooks.model import DeliveryRow, Health, Status, WebhookState
from app.webhooks.pace import GlobalSlots, PaceRules
from app.webhooks.schedule import RetrySchedule
from app.webhooks.scheduler import STALLED_S, Limits, Now, Refill, Result, Scheduler
from tables.deliveries import entry_of

START_MS = 1_750_000_000_000
DAY_S = 86_400.0
SPARE = 64


@dataclass(frozen=True)
class Reply:
    """What a receiver does with one request.

    Attributes:
        after_s: How long it takes.
        status: None: `error` says what went wrong.
    """

    after_s: float
    status: int | None = 200
    error: str | None = None


Behaviour = Callable[[int, float], Reply]
"""The reply to an attempt, by its number in the delivery (from 1) and the time."""


def well(took_s: float = 0.005) -> Behaviour:
    return lambda attempt, now_s: Reply(took_s)


def refuses(attempt: int, now_s: float) -> Reply:
    return Reply(0.001, None, "connect")


def resets(attempt: int, now_s: float) -> Reply:
    return Reply(0.002, None, "reset")


def breaks(attempt: int, now_s: float) -> Reply:
    return Reply(0.003, 500)


def hangs(seconds: float = 3600.0) -> Behaviour:
    """Answers after so long, if it is waited for."""
    return lambda attempt, now_s: Reply(seconds)


def from_then_on(at_s: float, before: Behaviour, after: Behaviour) -> Behaviour:
    return lambda attempt, now_s: (before if now_s < at_s else after)(attempt, now_s)


@dataclass
class Hook:
    """One webhook, and what became of its deliveries.

    Attributes:
        poison: Deliveries that it always answers with 500, by their sequence.
        healthy: How many of those that arrived are not such ones.
        waited_s: From the intent to the first attempt, of each delivery.
        started: When attempts began.
    """

    id: str
    behaviour: Behaviour
    timeout_s: float = 15.0
    poison: Callable[[int], bool] = lambda number: False
    limits: Limits = field(default_factory=lambda: Limits(max_in_flight=32))
    heart: Heart = field(default_factory=Heart)
    arrived: int = 0
    healthy: int = 0
    ended: Counter[Status] = field(default_factory=Counter)
    attempts: int = 0
    waited_s: list[float] = field(default_factory=list)
    started: list[float] = field(default_factory=list)
    disabled_at_s: float | None = None

    @property
    def state(self) -> WebhookState:
        return WebhookState.ACTIVE if self.disabled_at_s is None else WebhookState.DISABLED

    @property
    def delivered(self) -> int:
        return self.ended[Status.DELIVERED]

    def waited_at_most_s(self, share: float) -> float:
        """How long that share of the deliveries waited at most."""
        return sorted(self.waited_s)[min(len(self.waited_s) - 1, int(share * len(self.waited_s)))]


class Index:
    """The waiting rows of one webhook and class, in due order; what is gone is left out when it is met."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._gone = 0

    def add(self, entry: Entry) -> None:
        if not self._entries or self._entries[-1] <= entry:
            self._entries.append(entry)
        else:
            insort(self._entries, entry)

    def leave(self, waiting: dict[str, Entry]) -> None:
        self._gone += 1
        if self._gone > SPARE + len(self._entries) // 2:
            self._entries = [entry for entry in self._entries if waiting.get(entry.delivery_id) == entry]
            self._gone = 0

    def since(self, horizon: tuple[int, int], waiting: dict[str, Entry]) -> Iterator[Entry]:
        for at in range(bisect_left(self._entries, horizon), len(self._entries)):
            entry = self._entries[at]
            if waiting.get(entry.delivery_id) == entry:
                yield entry


class Number:
    """One number: the agent's part, over dicts."""

    def __init__(self, world: World, rules: PaceRules) -> None:
        self._world = world
        self.scheduler = Scheduler(world.slots, rules, self._woken)
        self.rows: dict[str, DeliveryRow] = {}
        self.waiting: dict[str, Entry] = {}
        self.awake = False
        self._flying: set[str] = set()
        self._index: defaultdict[tuple[str, int], Index] = defaultdict(Index)

    def _woken(self) -> None:
        self.awake = True

    def arrive(self, hook: Hook, name: str, sequence: int, subject: str | None) -> None:
        world = self._world
        hook.arrived += 1
        hook.healthy += not hook.poison(sequence)
        intent = Intent(
            delivery_id=name,
            webhook_id=hook.id,
            reason=IntentReason.EVENT,
            sequence=sequence,
            event_id=name,
            event_source="/vault",
            event_type="llm.data-vault.dataset.created",
            subject=subject,
            body=b"{}",
        )
        now = world.now
        lane = None if subject is None else subject.encode()
        event = Arrived(intent, hook.state, lambda: self.scheduler.admit(hook.id, lane, now), now.wall_ms)
        after = transition(Delivery(), event, now.wall_ms, world.terms).after
        assert after.row is not None
        if after.in_flight:
            self._fly(hook, after.row)
        else:
            self._keep(hook, after.row)

    def pump(self) -> None:
        self.awake = False
        now = self._world.now
        while True:
            asked = list(self.scheduler.refills())
            for refill in asked:
                self._answer(refill)
            entry = self.scheduler.next(now)
            if entry is not None:
                self._start(entry)
            elif not asked:
                break
        self.scheduler.pass_on()

    def land(self, hook: Hook, row: DeliveryRow, reply: Reply, began_s: float) -> None:
        world = self._world
        now = world.now
        event = Answered(
            started_ms=START_MS + round(began_s * 1000),
            duration_ms=round(reply.after_s * 1000),
            status_code=reply.status,
            error=reply.error or (None if reply.status == 200 else f"status_{reply.status}"),
            response_body="",
            retry_after_s=None,
            webhook=hook.state,
            uniform=world.random.random,
        )
        step = transition(Delivery(row, in_flight=True), event, now.wall_ms, world.terms)
        assert step.after.row is not None
        hook.attempts += 1
        self._flying.discard(row.delivery_id)
        hook.heart, change = after_attempt(
            hook.heart,
            ok=event.error is None,
            gone=step.disable_webhook,
            attempt=step.after.row.attempts,
            now_ms=now.wall_ms,
            disable_after_ms=round(5 * DAY_S * 1000),
        )
        self._forget(row.delivery_id)
        self._keep(hook, step.after.row)
        if change is not None and change.health is Health.DISABLED:
            hook.disabled_at_s = now.monotonic_s
            self._end(hook)
        if event.error is None:
            result = Result.SLOW if reply.after_s >= STALLED_S else Result.SUCCESS
        else:
            result = Result.TIMEOUT if event.error == "timeout" else Result.FAILURE
        self.scheduler.finish(hook.id, entry_of(row).lane and row.subject and row.subject.encode(), result, now)

    def _start(self, entry: Entry) -> None:
        hook = self._world.hooks[entry.webhook_id]
        row = self.rows.get(entry.delivery_id)
        if row is not None and self.waiting.get(entry.delivery_id) == entry:
            step = transition(Delivery(row), Due(), self._world.now.wall_ms, self._world.terms)
            if step.after.in_flight:
                self._fly(hook, row)
                return
            assert step.after.row is not None
            self._forget(entry.delivery_id)
            self._keep(hook, step.after.row)
        self.scheduler.finish(entry.webhook_id, entry.lane, Result.NOTHING, self._world.now)

    def _fly(self, hook: Hook, row: DeliveryRow) -> None:
        world = self._world
        now_s = world.now.monotonic_s
        if row.attempts == 0:
            hook.waited_s.append((world.now.wall_ms - row.created_at_ms) / 1000)
        hook.started.append(now_s)
        self._flying.add(row.delivery_id)
        reply = hook.behaviour(row.attempts + 1, now_s)
        if hook.poison(row.sequence):
            reply = Reply(reply.after_s, 500)
        if reply.after_s > hook.timeout_s:
            reply = Reply(hook.timeout_s, None, "timeout")
        world.later(now_s + reply.after_s, lambda: self.land(hook, row, reply, now_s))

    def _keep(self, hook: Hook, row: DeliveryRow) -> None:
        if not row.status.waits:
            hook.ended[row.status] += 1
            return
        entry = entry_of(row)._replace(lane=None if row.subject is None else row.subject.encode())
        self.rows[row.delivery_id] = row
        self.waiting[row.delivery_id] = entry
        self._index[hook.id, entry.tries].add(entry)
        self.scheduler.offer(entry)

    def _forget(self, delivery_id: str) -> None:
        self.rows.pop(delivery_id, None)
        if (entry := self.waiting.pop(delivery_id, None)) is not None:
            self._index[entry.webhook_id, entry.tries].leave(self.waiting)

    def _end(self, hook: Hook) -> None:
        for delivery_id in [e.delivery_id for e in self.waiting.values() if e.webhook_id == hook.id]:
            if delivery_id not in self._flying:
                ended = WebhookEnded(hook.state)
                row = transition(Delivery(self.rows[delivery_id]), ended, self._world.now.wall_ms, self._world.terms)
                assert row.after.row is not None
                self._forget(delivery_id)
                self._keep(hook, row.after.row)
                self.scheduler.forget(hook.id, delivery_id)

    def _answer(self, asked: Refill) -> None:
        if asked.lane is None:
            found = self._index[asked.webhook_id, asked.tries].since(asked.horizon, self.waiting)
        else:
            firsts = self._index[asked.webhook_id, 0].since((0, 0), self.waiting)
            found = (e for e in firsts if e.lane == asked.lane and e.sequence >= asked.horizon[1])
        page = list(itertools.islice(found, asked.limit))
        at_ms = page[-1].next_at_ms if page else 0
        horizon = (at_ms, page[-1].sequence + 1) if len(page) == asked.limit else None
        self.scheduler.refill(asked, [e for e in page if e.delivery_id not in self._flying], horizon)


class World:
    """A worker with some numbers, and the receivers around it.

    Attributes:
        now: Virtual time; both clocks.
    """

    def __init__(
        self,
        hooks: Iterable[Hook],
        *,
        numbers: int = 1,
        max_concurrent: int = 256,
        schedule: RetrySchedule | None = None,
        rules: PaceRules | None = None,
        seed: int = 1,
    ) -> None:
        self.now = Now(START_MS, 0.0)
        self.random = random.Random(seed)
        self.slots = GlobalSlots(max_concurrent)
        self.terms = Terms(
            schedule or RetrySchedule(), round(DAY_S * 1000), round(7 * DAY_S * 1000), round(7 * DAY_S * 1000)
        )
        self.numbers = [Number(self, rules or PaceRules()) for _ in range(numbers)]
        self.hooks = {hook.id: hook for hook in hooks}
        self._number_of = {hook_id: self.numbers[at % numbers] for at, hook_id in enumerate(self.hooks)}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._deliveries = itertools.count()
        for hook in self.hooks.values():
            self._number_of[hook.id].scheduler.configure(hook.id, hook.limits, self.now)

    def later(self, at_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), call))

    def feed(
        self, hook: Hook, per_s: float, for_s: float, *, since_s: float = 0.0, subjects: Iterator[str] | None = None
    ) -> None:
        """Events for one webhook in even steps, from a random moment of the first step on."""
        first_s = since_s + self.random.random() / per_s
        number = self._number_of[hook.id]

        def arrive(count: int) -> None:
            sequence = next(self._deliveries)
            number.arrive(hook, f"d{sequence}", sequence, None if subjects is None else next(subjects))
            at_s = first_s + (count + 1) / per_s
            if at_s < since_s + for_s:
                self.later(at_s, lambda: arrive(count + 1))

        self.later(first_s, lambda: arrive(0))

    def run_until(self, end_s: float) -> None:
        while (at_s := self._next_s()) is not None and at_s <= end_s:
            self._move_to(at_s)
            while self._events and self._events[0][0] <= self.now.monotonic_s:
                heapq.heappop(self._events)[2]()
            for number in self.numbers:
                timer_s = number.scheduler.next_at_s()
                number.awake = number.awake or (timer_s is not None and timer_s <= self.now.monotonic_s)
            while any(number.awake for number in self.numbers):
                for number in self.numbers:
                    if number.awake:
                        number.pump()
        self._move_to(end_s)

    def waiting(self, hook: Hook) -> int:
        return sum(entry.webhook_id == hook.id for entry in self._number_of[hook.id].waiting.values())

    def _next_s(self) -> float | None:
        timers = [at_s for number in self.numbers if (at_s := number.scheduler.next_at_s()) is not None]
        return min([*timers, *(event[0] for event in self._events[:1])], default=None)

    def _move_to(self, at_s: float) -> None:
        at_s = max(at_s, self.now.monotonic_s)
        self.now = Now(START_MS + round(at_s * 1000), at_s)
