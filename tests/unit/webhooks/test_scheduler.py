"""What the state machine in tests/model does not show: timers, and numbers that share the worker's slots."""

from __future__ import annotations

from app.webhooks.backlog import Entry
from app.webhooks.model import Reason
from app.webhooks.pace import GlobalSlots, PaceRules
from app.webhooks.scheduler import Limits, Now, Result, Scheduler

DAY_MS = 24 * 60 * 60 * 1000


def at(seconds: float) -> Now:
    return Now(1_000_000 + round(seconds * 1000), seconds)


def entry(name: str, due: Now, *, tries: int = 0) -> Entry:
    return Entry(due.wall_ms, 0, name, "wh", tries, None)


def test_a_retry_that_is_far_off_leaves_one_timer_however_much_happens_before_it() -> None:
    scheduler = Scheduler(GlobalSlots(4), PaceRules(), lambda: None)
    scheduler.configure("wh", Limits(max_in_flight=4), at(0))
    scheduler.offer(entry("far", Now(at(0).wall_ms + DAY_MS, 0.0), tries=9))
    for second in range(1000):
        scheduler.offer(entry(f"near-{second}", at(second + 1)))
        assert scheduler.next(at(second)) is None
        started = scheduler.next(at(second + 1))
        assert started is not None
        scheduler.finish("wh", started.lane, Result.SUCCESS, at(second + 1))
        assert scheduler.next(at(second + 1)) is None

    assert len(scheduler._turns._timers) < 50


def test_a_number_that_is_gone_is_not_woken_in_the_place_of_another() -> None:
    slots = GlobalSlots(1)
    woken: list[str] = []
    holder, gone, waiting = (
        Scheduler(slots, PaceRules(), lambda name=name: woken.append(name)) for name in ("holder", "gone", "waiting")
    )
    for webhook, scheduler in (("wh_1", holder), ("wh_2", gone), ("wh_3", waiting)):
        scheduler.configure(webhook, Limits(max_in_flight=4), at(0))
        scheduler.offer(entry("d", at(0))._replace(webhook_id=webhook))
        scheduler.next(at(0))
    gone.close()
    woken.clear()
    holder.close()

    assert woken == ["waiting"]


def test_what_waits_without_a_row_stays_in_memory_when_a_retry_of_its_subject_starts_before_it() -> None:
    """Where many classes make the share small: left to the index, the next of its subject would start before it."""
    now = Now(10_000_000, 100.0)
    scheduler = Scheduler(GlobalSlots(512), PaceRules(), lambda: None)
    for other in range(1000):
        scheduler.configure(f"x{other}", Limits(4), now)
        scheduler.offer(Entry(now.wall_ms + 60_000, 1, f"dx{other}", f"x{other}", 1, None))
    scheduler.configure("a", Limits(32), now)
    list(scheduler.refills())
    scheduler._receivers["a"].slots.cap = 7
    assert scheduler.admit("a", b"R", now) is None
    scheduler.offer(Entry(now.wall_ms + 100, 1, "retry", "a", 1, b"R"))
    scheduler.finish("a", b"R", Result.SUCCESS, now)
    for lane in range(5):
        assert scheduler.admit("a", b"u%d" % lane, now) is None
    while scheduler.admit("a", None, now) is None:
        pass
    assert scheduler.keeps("a", b"R")
    scheduler.offer(Entry(now.wall_ms, 10, "waits", "a", 0, b"R"))
    for lane in range(5):
        scheduler.offer(Entry(now.wall_ms, 20 + lane, f"v{lane}", "a", 0, b"u%d" % lane))

    now = Now(now.wall_ms + 150, 100.15)
    scheduler._receivers["a"].backlog._firsts_in_row = 2
    scheduler.answered("a", Result.SUCCESS, now)
    started = scheduler.next(now)
    assert started is not None
    assert started.delivery_id == "retry"
    scheduler.finish("a", b"R", Result.SUCCESS, now)
    for asked in list(scheduler.refills()):
        scheduler.refill(asked, [], None)

    assert scheduler.admit("a", b"R", now) is not None


class Wakes:
    """A scheduler with one webhook that failed long enough to be paced, and how often it woke its pump."""

    def __init__(self) -> None:
        self.count = 0
        self.scheduler = Scheduler(GlobalSlots(8), PaceRules(after_failures=1, after_s=0), self.wake)
        self.scheduler.configure("wh", Limits(max_in_flight=4), at(0))
        self.fail_once(at(0))
        assert self.scheduler.next(at(0)) is None
        self.count = 0

    def wake(self) -> None:
        self.count += 1

    def fail_once(self, now: Now) -> None:
        assert self.scheduler.admit("wh", None, now) is None
        self.scheduler.finish("wh", None, Result.FAILURE, now)

    def starts(self, now: Now) -> str | None:
        found = self.scheduler.next(now)
        return None if found is None else found.delivery_id


def test_what_comes_for_a_paced_webhook_wakes_nobody_before_its_gap_is_over() -> None:
    wakes = Wakes()
    wakes.scheduler.offer(entry("first", at(0.1)))
    assert wakes.count == 1
    assert wakes.starts(at(0.1)) is None
    for n in range(50):
        wakes.scheduler.offer(entry(f"d{n}", at(0.2)))

    assert wakes.count == 1
    assert wakes.scheduler.next_at_s() == 1
    assert wakes.starts(at(1)) == "first"


def test_what_comes_for_a_paced_webhook_without_a_timer_wakes_the_pump() -> None:
    wakes = Wakes()
    wakes.scheduler.offer(entry("resent", at(5), tries=1))

    assert wakes.count == 1
    assert wakes.starts(at(5)) == "resent"


def test_a_timer_for_what_is_due_later_than_the_gap_does_not_keep_the_next_one_waiting() -> None:
    wakes = Wakes()
    wakes.scheduler.offer(entry("retry", at(300), tries=1))
    assert wakes.starts(at(2)) is None
    assert wakes.scheduler.next_at_s() == 300
    wakes.scheduler.offer(entry("resent", at(3), tries=2))

    assert wakes.count == 2
    assert wakes.starts(at(3)) == "resent"


def test_what_comes_for_a_webhook_without_a_slot_is_looked_at_when_an_attempt_ends() -> None:
    wakes = Wakes()
    wakes.scheduler.reset("wh")
    for _ in range(4):
        assert wakes.scheduler.admit("wh", None, at(0)) is None
    wakes.count = 0
    wakes.scheduler.offer(entry("waits", at(0)))
    assert wakes.count == 0

    wakes.scheduler.finish("wh", None, Result.SUCCESS, at(1))
    assert wakes.count
    assert wakes.starts(at(1)) == "waits"


def test_an_attempt_that_ends_with_nothing_waiting_wakes_nobody() -> None:
    wakes = Wakes()
    assert wakes.scheduler.admit("wh", None, at(2)) is None
    wakes.scheduler.finish("wh", None, Result.SUCCESS, at(2))

    assert wakes.count == 0


def storm_of_two() -> tuple[Scheduler, GlobalSlots]:
    """Two webhooks that have failed for a second."""
    slots = GlobalSlots(8)
    scheduler = Scheduler(slots, PaceRules(), lambda: None)
    for webhook in ("wh", "wh_2"):
        scheduler.configure(webhook, Limits(max_in_flight=4), at(0))
    for n in range(11):
        for webhook in ("wh", "wh_2"):
            assert scheduler.admit(webhook, None, at(n / 10)) is None
            scheduler.finish(webhook, None, Result.FAILURE, at(n / 10))
    return scheduler, slots


def test_webhooks_that_fail_steadily_leave_a_gap_between_two_starts_that_a_timer_ends() -> None:
    scheduler, slots = storm_of_two()
    gap_s = slots.failing_gap_s(1.2)
    assert gap_s > 0
    assert scheduler.admit("wh", None, at(1.2)) is None
    assert scheduler.admit("wh", None, at(1.2)) is Reason.PACE
    scheduler.offer(entry("waits", at(1.2)))

    assert scheduler.next(at(1.2)) is None
    assert scheduler.next_at_s() == 1.2 + gap_s
    started = scheduler.next(at(1.2 + gap_s))
    assert started is not None
    assert started.delivery_id == "waits"


def test_the_gap_is_gone_with_the_first_success_and_with_the_others_that_fail() -> None:
    scheduler, slots = storm_of_two()
    assert scheduler.admit("wh", None, at(1.2)) is None
    scheduler.finish("wh", None, Result.SUCCESS, at(1.2))
    assert slots.failing_gap_s(1.2) == 0
    assert [scheduler.admit("wh", None, at(1.2)) for _ in range(2)] == [None, None]

    scheduler, slots = storm_of_two()
    scheduler.remove("wh_2")
    assert slots.failing_gap_s(1.2) == 0
    scheduler.reset("wh")
    assert not slots._steady


def test_deliveries_that_start_at_once_wake_nobody() -> None:
    wakes = Wakes()
    for n in range(20):
        assert wakes.scheduler.admit("wh", None, at(2 + n)) is None
        wakes.scheduler.forget("wh", f"d{n}")
        wakes.scheduler.finish("wh", None, Result.SUCCESS, at(2 + n))

    assert wakes.count == 0


def test_one_that_held_as_many_slots_as_were_free_starts_when_attempts_of_another_end() -> None:
    wakes = Wakes()
    scheduler = Scheduler(GlobalSlots(16), PaceRules(), wakes.wake)
    for webhook in ("much", "hangs"):
        scheduler.configure(webhook, Limits(max_in_flight=8), at(0))
        scheduler._receivers[webhook].slots.cap = 8
    assert [scheduler.admit("much", None, at(0)) for _ in range(8)] == [None] * 8
    assert [scheduler.admit("hangs", None, at(0)) for _ in range(4)] == [None] * 4
    scheduler.offer(entry("waits", at(0))._replace(webhook_id="hangs"))
    assert scheduler.next(at(0)) is None
    wakes.count = 0
    for _ in range(8):
        scheduler.finish("much", None, Result.SUCCESS, at(0.1))

    assert wakes.count
    assert scheduler.next(at(0.1)) is not None


def test_memory_is_shared_out_among_all_that_wait_though_nobody_is_woken() -> None:
    scheduler = Scheduler(GlobalSlots(100_000), PaceRules(), lambda: None, entries_limit=1000)
    for webhook in map(str, range(200)):
        scheduler.configure(webhook, Limits(max_in_flight=1), at(0))
        assert scheduler.admit(webhook, None, at(0)) is None
        for n in range(20):
            scheduler.offer(entry(f"{webhook}-{n}", at(0))._replace(webhook_id=webhook))

    assert sum(len(found.backlog) for found in scheduler._receivers.values()) <= 2000
