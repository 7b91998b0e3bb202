"""The scheduler against an index in a dict: whatever happens, order and caps hold, and nothing is forgotten."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.webhooks.backlog import Entry
from app.webhooks.model import Ordering
from app.webhooks.pace import GlobalSlots, PaceRules
from app.webhooks.scheduler import Limits, Now, Refill, Result, Scheduler

WEBHOOKS = {"wh_a": Ordering.BEST_EFFORT, "wh_b": Ordering.STRICT, "wh_c": Ordering.BEST_EFFORT}
CAP = 5
WORKER_CAP = 8
TRIES = 4
RULES = PaceRules(after_failures=3, after_s=1.0, max_gap_s=4.0)


@dataclass
class Flying:
    entry: Entry
    stored: bool


class SchedulerMachine(RuleBasedStateMachine):
    """Plays the agent: `waiting` is the table, which keeps a row while its delivery is in flight."""

    def __init__(self) -> None:
        super().__init__()
        self.now = Now(1_000_000, 0.0)
        self.sequence = 0
        self.waiting: dict[str, Entry] = {}
        self.flying: dict[str, Flying] = {}
        self.ended: dict[str, Entry] = {}
        self.open_scheduler()

    def open_scheduler(self) -> None:
        self.slots = GlobalSlots(WORKER_CAP)
        self.awake = True
        self.scheduler = Scheduler(self.slots, RULES, self.woken, entries_limit=12)
        for webhook, ordering in WEBHOOKS.items():
            self.scheduler.configure(webhook, Limits(CAP, ordering=ordering), self.now)
        for webhook, tries in {(e.webhook_id, e.tries) for e in self.waiting.values()}:
            self.scheduler.expect(webhook, tries, (0, 0))

    def woken(self) -> None:
        self.awake = True

    @property
    def would_pump(self) -> bool:
        timer_s = self.scheduler.next_at_s()
        return self.awake or (timer_s is not None and timer_s <= self.now.monotonic_s)

    # -- the agent's part

    def arrive(self, entry: Entry) -> None:
        if self.scheduler.admit(entry.webhook_id, entry.lane, self.now) is None:
            self.start(entry, stored=False)
            return
        for other in self.flying.values():
            if not other.stored and entry.lane is not None and lane_of(other.entry) == lane_of(entry):
                other.stored = True
                self.waiting[other.entry.delivery_id] = other.entry
        self.waiting[entry.delivery_id] = entry
        self.scheduler.offer(entry)

    def start(self, entry: Entry, *, stored: bool) -> None:
        assert entry.delivery_id not in self.flying
        assert entry.lane is None or all(lane_of(f.entry) != lane_of(entry) for f in self.flying.values())
        strict = WEBHOOKS[entry.webhook_id] is Ordering.STRICT
        if entry.lane is not None and (strict or entry.tries == 0):
            ahead = [
                other
                for other in self.waiting.values()
                if lane_of(other) == lane_of(entry) and other.sequence < entry.sequence and (strict or other.tries == 0)
            ]
            assert not ahead, f"{entry} overtakes {ahead}"
        self.flying[entry.delivery_id] = Flying(entry, stored)

    def pump(self) -> None:
        self.awake = False
        for _ in range(2000):
            refills = list(self.scheduler.refills())
            for asked in refills:
                self.answer(asked)
            entry = self.scheduler.next(self.now)
            if entry is None and refills:
                continue
            if entry is None:
                self.scheduler.pass_on()
                break
            if self.waiting.get(entry.delivery_id) != entry or entry.delivery_id in self.flying:
                self.scheduler.finish(entry.webhook_id, entry.lane, Result.NOTHING, self.now)
                continue
            assert entry.next_at_ms <= self.now.wall_ms
            self.start(entry, stored=True)
        else:
            raise AssertionError("the pump does not come to rest")

    def answer(self, asked: Refill) -> None:
        mine = [e for e in self.waiting.values() if e.webhook_id == asked.webhook_id]
        if asked.lane is None:
            rows = sorted(e for e in mine if e.tries == asked.tries and e[:2] >= asked.horizon)
        else:
            strict = WEBHOOKS[asked.webhook_id] is Ordering.STRICT
            rows = [e for e in mine if e.lane == asked.lane and (strict or e.tries == 0)]
            rows = sorted((e for e in rows if e.sequence >= asked.horizon[1]), key=lambda e: e.sequence)
        page = rows[: asked.limit]
        at_ms = 0 if asked.lane is not None or not page else page[-1].next_at_ms
        horizon = (at_ms, page[-1].sequence + 1) if len(rows) >= asked.limit else None
        self.scheduler.refill(asked, [e for e in page if e.delivery_id not in self.flying], horizon)

    def end(self, delivery_id: str, result: Result, *, delay_ms: int = 2000) -> None:
        entry = self.flying.pop(delivery_id).entry
        self.waiting.pop(delivery_id, None)
        if result is not Result.SUCCESS and entry.tries + 1 < TRIES:
            again = entry._replace(next_at_ms=self.now.wall_ms + delay_ms, tries=entry.tries + 1)
            self.waiting[delivery_id] = again
            self.scheduler.offer(again)
        else:
            self.ended[delivery_id] = entry
        self.scheduler.finish(entry.webhook_id, entry.lane, result, self.now)

    # -- rules

    @rule(
        webhook=st.sampled_from(sorted(WEBHOOKS)),
        lanes=st.lists(st.sampled_from([None, b"1", b"2", b"3"]), min_size=1, max_size=12),
    )
    def intents_arrive(self, webhook: str, lanes: list[bytes | None]) -> None:
        for lane in lanes:
            self.sequence += 1
            self.arrive(Entry(self.now.wall_ms, self.sequence, f"d{self.sequence:05}", webhook, 0, lane))

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.now = Now(self.now.wall_ms + int(seconds * 1000), self.now.monotonic_s + seconds)

    @rule()
    def the_pump_runs(self) -> None:
        self.pump()
        self.nothing_startable_is_left()

    @precondition(lambda self: self.flying)
    @rule(seed=st.integers(0, 2**16), result=st.sampled_from([Result.SUCCESS, Result.FAILURE, Result.TIMEOUT]))
    def attempts_end(self, seed: int, result: Result) -> None:
        rng = random.Random(seed)
        for delivery_id in rng.sample(sorted(self.flying), rng.randint(1, len(self.flying))):
            self.end(delivery_id, result)

    @precondition(lambda self: self.flying)
    @rule(seed=st.integers(0, 2**16), proxy=st.booleans())
    def attempts_are_not_made(self, seed: int, *, proxy: bool) -> None:
        rng = random.Random(seed)
        for delivery_id in rng.sample(sorted(self.flying), rng.randint(1, len(self.flying))):
            entry = self.flying.pop(delivery_id).entry
            if proxy:
                self.scheduler.without_proxy(entry.webhook_id, self.now)
            self.waiting[delivery_id] = entry
            self.scheduler.offer(entry, back=True)
            self.scheduler.finish(entry.webhook_id, entry.lane, Result.NOTHING, self.now)

    @precondition(lambda self: self.waiting)
    @rule(seed=st.integers(0, 2**16))
    def a_waiting_row_ends(self, seed: int) -> None:
        delivery_id = random.Random(seed).choice(sorted(self.waiting))
        if delivery_id not in self.flying:
            entry = self.ended[delivery_id] = self.waiting.pop(delivery_id)
            self.scheduler.forget(entry.webhook_id, delivery_id)

    @precondition(lambda self: self.ended)
    @rule(seed=st.integers(0, 2**16))
    def an_ended_delivery_is_resent(self, seed: int) -> None:
        delivery_id = random.Random(seed).choice(sorted(self.ended))
        entry = self.ended.pop(delivery_id)._replace(next_at_ms=self.now.wall_ms, tries=1)
        self.waiting[delivery_id] = entry
        self.scheduler.offer(entry)

    @rule(webhook=st.sampled_from(sorted(WEBHOOKS)))
    def a_hold_is_set(self, webhook: str) -> None:
        self.scheduler.hold(webhook, self.now.wall_ms + 1500)

    @rule(pumped=st.booleans())
    def the_owner_crashes(self, *, pumped: bool) -> None:
        lost = [f.entry for f in self.flying.values() if not f.stored]
        self.flying.clear()
        self.open_scheduler()
        if pumped:
            self.pump()
        for entry in sorted(lost, key=lambda e: e.sequence):
            if entry.tries == 0:
                self.arrive(entry)

    # -- what holds

    @invariant()
    def what_could_start_wakes_the_pump(self) -> None:
        if not self.would_pump:
            self.nothing_startable_is_left()

    def nothing_startable_is_left(self) -> None:
        for webhook, ordering in WEBHOOKS.items():
            receiver = self.scheduler._receivers[webhook]
            if receiver.block(self.now) is not None or not self.slots.available(webhook):
                continue
            strict = ordering is Ordering.STRICT
            busy = {f.entry.lane for f in self.flying.values() if f.entry.webhook_id == webhook}
            rows = [e for e in self.waiting.values() if e.webhook_id == webhook and e.delivery_id not in self.flying]
            for entry in rows:
                if entry.next_at_ms > self.now.wall_ms:
                    continue
                blocked = entry.lane is not None and (
                    entry.lane in busy
                    or (strict and any(o.lane == entry.lane and o.sequence < entry.sequence for o in rows))
                )
                assert blocked or self.behind_a_busy_lane(entry, busy), f"{entry} could start"

    def behind_a_busy_lane(self, entry: Entry, busy: set[bytes | None]) -> bool:
        """Whether memory is taken by earlier retries of a lane that is busy; that costs time, but nothing else."""
        class_ = self.scheduler._receivers[entry.webhook_id].backlog._classes.get(entry.tries)
        in_memory = class_.entries if class_ is not None else []
        return entry.tries > 0 and entry not in in_memory and any(e.lane in busy for e in in_memory)

    @invariant()
    def caps_hold(self) -> None:
        for webhook in WEBHOOKS:
            count = sum(f.entry.webhook_id == webhook for f in self.flying.values())
            assert count <= CAP
            assert self.scheduler._receivers[webhook].in_flight == count
        assert len(self.flying) <= WORKER_CAP
        assert self.slots.free == WORKER_CAP - len(self.flying)

    @invariant()
    def memory_is_bounded(self) -> None:
        for receiver in self.scheduler._receivers.values():
            # A share for each class and one for followers, and the one row that each strict or freed lane may add.
            assert len(receiver.backlog) <= 6 * (TRIES + 1) + 30

    def teardown(self) -> None:
        """Everything that waits is delivered in the end, without another intent."""
        for _ in range(5000):
            if not self.waiting and not self.flying:
                return
            if self.would_pump:
                self.pump()
            for delivery_id in sorted(self.flying):
                self.end(delivery_id, Result.SUCCESS)
            self.time_passes(0.5)
        raise AssertionError(f"forgotten: {self.waiting}")


def lane_of(entry: Entry) -> tuple[str, bytes | None]:
    return entry.webhook_id, entry.lane


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_first_attempts_go_before_retries_two_to_one_and_webhooks_take_turns() -> None:
    now = Now(1_000_000, 0.0)
    scheduler = Scheduler(GlobalSlots(1), PaceRules(), lambda: None)
    order: list[str] = []
    for webhook in ("wh_a", "wh_b"):
        scheduler.configure(webhook, Limits(32), now)
        for n in range(6):
            scheduler.offer(Entry(now.wall_ms - n, n, f"{webhook[-1]}{n}", webhook, n % 2, None))
    for _ in range(12):
        entry = scheduler.next(now)
        assert entry is not None
        order.append(f"{entry.webhook_id[-1]}{'r' if entry.tries else 'f'}")
        scheduler.finish(entry.webhook_id, None, Result.SUCCESS, now)

    assert order[0::2] == ["af", "af", "ar", "af", "ar", "ar"]
    assert order[1::2] == ["bf", "bf", "br", "bf", "br", "br"]


def test_a_paced_receiver_that_fails_the_first_two_attempts_of_each_delivery_is_not_starved() -> None:
    """With a breaker, none of them got through (architecture 5)."""
    receiver = FailsTwice()
    for turn in range(2 * 36_000):
        # Nine events a second for an hour, and then an hour to come through with them.
        receiver.arrive(int(turn < 36_000 and turn % 10 != 0))
        receiver.turn()

    assert (receiver.arrived, receiver.delivered, receiver.given_up) == (9 * 3600, 9 * 3600, 0)


class FailsTwice:
    """A receiver that fails the first two attempts of each delivery, in virtual time; an attempt takes 0.1 s."""

    steps_s = (0, 5, 300, 1800, 7200, 18_000)

    def __init__(self) -> None:
        self.scheduler = Scheduler(GlobalSlots(256), PaceRules(), lambda: None)
        self.now = Now(1_000_000, 0.0)
        self.scheduler.configure("wh_a", Limits(32), self.now)
        self.rows: dict[str, Entry] = {}
        self.flying: deque[tuple[float, Entry]] = deque()
        self.arrived = self.delivered = self.given_up = 0

    def arrive(self, count: int) -> None:
        for _ in range(count):
            self.arrived += 1
            entry = Entry(self.now.wall_ms, self.arrived, f"d{self.arrived}", "wh_a", 0, None)
            if self.scheduler.admit("wh_a", None, self.now) is None:
                self.fly(entry)
            else:
                self.wait(entry)

    def turn(self) -> None:
        """A tenth of a second."""
        self.now = Now(self.now.wall_ms + 100, self.now.monotonic_s + 0.1)
        while self.flying and self.flying[0][0] <= self.now.monotonic_s:
            self.land(self.flying.popleft()[1])
        for asked in list(self.scheduler.refills()):
            self.answer(asked)
        while (entry := self.scheduler.next(self.now)) is not None:
            self.fly(entry)

    def fly(self, entry: Entry) -> None:
        self.flying.append((self.now.monotonic_s + 0.1, entry))

    def wait(self, entry: Entry) -> None:
        self.rows[entry.delivery_id] = entry
        self.scheduler.offer(entry)

    def land(self, entry: Entry) -> None:
        self.rows.pop(entry.delivery_id, None)
        ok, tries = entry.tries >= 2, entry.tries + 1
        self.delivered += ok
        if not ok and tries < len(self.steps_s):
            self.wait(entry._replace(next_at_ms=self.now.wall_ms + self.steps_s[tries] * 1000, tries=tries))
        elif not ok:
            self.given_up += 1
        self.scheduler.finish("wh_a", None, Result.SUCCESS if ok else Result.FAILURE, self.now)

    def answer(self, asked: Refill) -> None:
        found = sorted(e for e in self.rows.values() if e.tries == asked.tries and e[:2] >= asked.horizon)
        page = found[: asked.limit]
        horizon = (page[-1].next_at_ms, page[-1].sequence + 1) if len(page) == asked.limit else None
        flying = {entry.delivery_id for _, entry in self.flying}
        self.scheduler.refill(asked, [e for e in page if e.delivery_id not in flying], horizon)
