"""What had started and was not tried waits again: in its place, however little room there is, and ever less often."""

from __future__ import annotations

import pytest

from app.webhooks.backlog import Entry
from app.webhooks.model import Ordering, Reason
from app.webhooks.pace import GlobalSlots, PaceRules
from app.webhooks.scheduler import Limits, Now, Result, Scheduler


def at(seconds: float) -> Now:
    return Now(1_000_000 + round(seconds * 1000), 100 + seconds)


@pytest.fixture
def scheduler() -> Scheduler:
    made = Scheduler(GlobalSlots(64), PaceRules(), lambda: None, entries_limit=8)
    made.configure("wh", Limits(32), at(0))
    made._receivers["wh"].slots.cap = 32
    return made


def put_back(scheduler: Scheduler, entry: Entry, now: Now) -> None:
    scheduler.offer(entry, back=True)
    scheduler.finish("wh", entry.lane, Result.NOTHING, now)


def test_however_little_room_there_is_none_of_its_lane_overtakes_what_is_put_back(scheduler: Scheduler) -> None:
    """Left to the index, the next of its lane would be the first of those in memory."""
    plain, first, second = (
        Entry(at(0).wall_ms + n, n, f"d{n}", "wh", 0, lane) for n, lane in enumerate([None, b"x", b"x"])
    )
    for entry in (plain, first):
        assert scheduler.admit("wh", entry.lane, at(1)) is None
    scheduler.offer(second)
    for n in range(3, 9):
        scheduler.offer(Entry(at(0).wall_ms + n, n, f"d{n}", "wh", 0, None))
    for entry in (plain, first):
        put_back(scheduler, entry, at(1))

    assert [scheduler.next(at(1)), scheduler.next(at(1))] == [plain, first]


def test_with_strict_ordering_a_retry_that_is_put_back_keeps_its_place() -> None:
    scheduler = Scheduler(GlobalSlots(64), PaceRules(), lambda: None)
    scheduler.configure("wh", Limits(32, ordering=Ordering.STRICT), at(0))
    retry, later = Entry(at(0).wall_ms, 1, "d1", "wh", 2, b"x"), Entry(at(0).wall_ms, 2, "d2", "wh", 0, b"x")
    scheduler.offer(retry)
    assert scheduler.next(at(1)) == retry
    scheduler.offer(later)
    put_back(scheduler, retry, at(1))

    assert scheduler.next(at(1)) == retry


def test_behind_a_proxy_that_fails_one_starts_at_a_time_until_an_attempt_is_made(scheduler: Scheduler) -> None:
    entries = [Entry(at(0).wall_ms, n, f"d{n}", "wh", 0, None) for n in range(4)]
    for entry in entries:
        scheduler.offer(entry)
        assert scheduler.next(at(0)) == entry
    for entry in entries:
        # All of them started with the same proxy.
        scheduler.without_proxy("wh", at(0))
        put_back(scheduler, entry, at(0))

    assert scheduler.blocked("wh", at(0.9)) == (Reason.SLOT, False)
    assert scheduler.admit("wh", None, at(0.9)) is Reason.SLOT
    assert scheduler.next(at(0.9)) is None
    assert scheduler.next_at_s() == at(1).monotonic_s
    assert not scheduler.gets_on("wh", at(0.1))
    assert scheduler.next(at(1)) is not None
    assert scheduler.next(at(1)) is None

    scheduler.finish("wh", None, Result.FAILURE, at(1))

    assert scheduler.next(at(1)) is not None
    assert scheduler.next(at(1)) is not None


def test_a_proxy_that_is_away_for_days_is_asked_every_thirty_seconds(scheduler: Scheduler) -> None:
    now, waits = at(0), []
    for _ in range(5000):
        scheduler.without_proxy("wh", now)
        until_s = scheduler._receivers["wh"].no_proxy_until_s
        waits.append(until_s - now.monotonic_s)
        now = at(until_s - 100)

    assert waits[:7] == [1, 2, 4, 8, 16, 30, 30]
    assert set(waits[7:]) == {30}


def test_of_a_number_that_is_gone_an_attempt_that_ends_behind_the_proxy_says_nothing(scheduler: Scheduler) -> None:
    assert scheduler.admit("wh", None, at(0)) is None
    scheduler.close()

    scheduler.without_proxy("wh", at(0))

    assert scheduler.next(at(9)) is None
