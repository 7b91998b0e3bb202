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
