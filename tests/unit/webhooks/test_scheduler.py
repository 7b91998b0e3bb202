"""What the state machine in tests/model does not show: timers, and numbers that share the worker's slots."""

from __future__ import annotations

from app.webhooks.backlog import Entry
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

    assert len(scheduler._timers) < 50


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
