"""The picture of a webhook's last hour: twelve times five minutes, whatever happens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.webhooks.recent import BUCKET_S, BUCKETS, Recent

MINUTE_MS = 60_000
NOON_MS = 1_769_860_800_000
attempts = st.lists(st.tuples(st.integers(0, 40 * MINUTE_MS), st.booleans()), max_size=60)


def test_without_attempts_it_is_twelve_times_nothing() -> None:
    hour = Recent().last_hour(NOON_MS + 1)
    assert [bucket.start_ms for bucket in hour] == [NOON_MS + at * BUCKET_S * 1000 for at in range(-11, 1)]
    assert {bucket[1:] for bucket in hour} == {(0, 0)}


def test_attempts_are_in_the_five_minutes_in_which_they_ended() -> None:
    recent = Recent()
    for at_ms, ok in ((0, True), (4 * MINUTE_MS, False), (5 * MINUTE_MS, True), (59 * MINUTE_MS, True)):
        recent.note(NOON_MS + at_ms, ok=ok)
    hour = recent.last_hour(NOON_MS + 59 * MINUTE_MS)
    assert [(bucket.delivered, bucket.failed) for bucket in hour] == [(1, 1), (1, 0), *[(0, 0)] * 9, (1, 0)]


def test_what_is_older_than_an_hour_is_gone() -> None:
    recent = Recent()
    recent.note(NOON_MS, ok=True)
    assert {bucket[1:] for bucket in recent.last_hour(NOON_MS + 60 * MINUTE_MS)} == {(0, 0)}


def test_a_clock_that_went_back_loses_nothing() -> None:
    recent = Recent()
    recent.note(NOON_MS, ok=True)
    recent.note(NOON_MS - 20 * MINUTE_MS, ok=False)
    assert recent.last_hour(NOON_MS)[-1][1:] == (1, 1)


@given(attempts)
def test_it_stays_small_and_counts_each_attempt_of_the_hour_once(steps: list[tuple[int, bool]]) -> None:
    recent, now_ms, noted = Recent(), NOON_MS, []
    for step_ms, ok in steps:
        now_ms += step_ms
        recent.note(now_ms, ok=ok)
        noted.append((now_ms, ok))
    hour = recent.last_hour(now_ms)
    counted = [ok for at_ms, ok in noted if at_ms >= hour[0].start_ms]
    assert sum(bucket.delivered for bucket in hour) == sum(counted)
    assert sum(bucket.failed for bucket in hour) == len(counted) - sum(counted)
    assert len(hour) == BUCKETS
    assert len(recent._buckets) <= BUCKETS
