"""How far apart fetches are."""

import hashlib
import os
import random
import threading
import time
from pathlib import Path
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine import fetch_pace
from app.engine.fetch_pace import AIM_LOAD, BACKLOG_S, GATHER_SHARE, LONGEST_S, WINDOW_S, FetchPace, ThreadClock

DATA = bytes(1 << 20)


def paced(load: float, seconds: int = 10) -> FetchPace:
    """A pace that has seen this load for so long."""
    pace = FetchPace()
    for second in range(seconds + 1):
        pace.note(float(second), second * load)
    return pace


def apart_s(pace: FetchPace) -> float:
    """How long a fetch waits after another one."""
    pace.sent(100.0)
    return pace.wait_s(100.0)


@pytest.mark.parametrize("load", [0.0, AIM_LOAD / 2, AIM_LOAD * 0.99])
def test_a_worker_that_has_time_asks_again_at_once(load: float) -> None:
    assert apart_s(paced(load)) == 0.0


@pytest.mark.parametrize("load", [0.9, 1.0])
def test_where_the_load_stays_high_fetches_are_as_far_apart_as_they_may_be(load: float) -> None:
    pace = paced(load)
    pace.sent(100.0)

    assert pace.wait_s(100.0) == pytest.approx(LONGEST_S)
    assert pace.wait_s(100.0 + LONGEST_S / 3) == pytest.approx(LONGEST_S * 2 / 3)
    assert pace.wait_s(100.0 + LONGEST_S) == 0.0


@pytest.mark.parametrize(("load", "busy"), [(0.0, False), (AIM_LOAD, False), (0.8, False), (0.9, True), (1.0, True)])
def test_a_worker_is_busy_where_pacing_does_not_leave_it_time(load: float, busy: bool) -> None:
    assert paced(load).busy is busy


def test_a_worker_is_not_busy_for_one_moment_and_no_longer_when_it_is_over() -> None:
    pace = FetchPace()
    pace.note(0.0, 0.0)
    pace.note(WINDOW_S, WINDOW_S)
    assert not pace.busy

    pace.note(WINDOW_S * 4, WINDOW_S * 4)
    pace.note(WINDOW_S * 8, WINDOW_S * 8)
    assert pace.busy
    pace.note(WINDOW_S * 10, WINDOW_S * 8)
    assert not pace.busy


def test_one_busy_moment_changes_little() -> None:
    pace = FetchPace()
    pace.note(0.0, 0.0)
    pace.note(WINDOW_S, WINDOW_S)

    assert apart_s(pace) < LONGEST_S / 3


def test_a_clock_that_stood_still_for_long_changes_no_more_than_a_second() -> None:
    pace = FetchPace()
    pace.note(0.0, 0.0)
    pace.note(60.0, 60.0)

    assert apart_s(pace) == apart_s(paced(1.0, seconds=1))


def test_what_was_noted_too_soon_after_the_last_note_waits_for_more() -> None:
    pace = FetchPace()
    for at_s in (0.0, 0.05, 0.1, 0.15):
        pace.note(at_s, at_s)

    assert apart_s(pace) == 0.0


def test_a_load_that_is_over_is_forgotten() -> None:
    pace = paced(1.0)
    for second in range(11, 15):
        pace.note(float(second), 10.0)

    assert apart_s(pace) == 0.0


def test_where_more_lies_ready_than_an_answer_may_hold_nothing_waits() -> None:
    pace = paced(1.0)
    pace.sent(100.0)
    pace.more()

    assert pace.wait_s(100.0) == 0.0


def test_what_is_sent_waits_for_others_only_where_fetches_do() -> None:
    assert paced(AIM_LOAD / 2).gather_s() == 0.0
    assert paced(1.0).gather_s() == pytest.approx(LONGEST_S * GATHER_SHARE)


def test_what_is_sent_waits_for_nothing_while_a_backlog_makes_large_batches_anyway() -> None:
    pace = paced(1.0)
    pace.sent(10.0)
    pace.more()
    pace.note(10.1, 10.1)

    assert pace.gather_s() == 0.0

    pace.note(10.0 + BACKLOG_S, 10.0 + BACKLOG_S)

    assert pace.gather_s() == pytest.approx(LONGEST_S * GATHER_SHARE)


@pytest.mark.parametrize("content", ["0 0 0\n", None])
def test_where_the_kernel_counts_nothing_the_time_at_work_counts(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "schedstat").write_text(content)
    monkeypatch.setattr(fetch_pace, "SCHEDSTAT", str(tmp_path / "schedstat"))
    clock = ThreadClock()
    began_s = clock.now_s()

    while time.thread_time() < began_s + 0.01:
        hashlib.sha256(DATA).digest()

    assert clock.now_s() >= began_s + 0.01


def test_time_that_others_have_the_processor_is_no_time_to_spare() -> None:
    """Two threads that never rest, kept on one processor: each needs all of its time, and gets about half."""
    clocks: list[float] = []
    began = threading.Barrier(2)

    def never_rests() -> None:
        clock = ThreadClock()
        began.wait()
        start_s, end_s = clock.now_s(), time.monotonic() + 0.5
        while time.monotonic() < end_s:
            hashlib.sha256(DATA).digest()  # without the interpreter's lock
        clocks.append(clock.now_s() - start_s)

    allowed = os.sched_getaffinity(0)
    threads = [threading.Thread(target=never_rests) for _ in range(2)]
    os.sched_setaffinity(0, {min(allowed)})
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        os.sched_setaffinity(0, allowed)

    # A kernel that counts no waiting tells of the half that each had.
    counted = Path(fetch_pace.SCHEDSTAT).exists() and Path(fetch_pace.SCHEDSTAT).read_text() != "0 0 0\n"
    assert min(clocks) > 0.5 * (AIM_LOAD if counted else 0.2)


@given(
    fixed=st.floats(0.2, 0.65),
    a_fetch_s=st.floats(0.008, 0.02),
    busy_s=st.floats(0.0, 5.0),
    noise=st.floats(0.0, 0.1),
    seed=st.integers(0, 1000),
)
def test_it_settles_where_the_thread_has_some_time_left_and_does_not_swing(
    fixed: float, a_fetch_s: float, busy_s: float, noise: float, seed: int
) -> None:
    """A thread that needs a part of its time for records, and so much for each fetch, after it was busy for a while."""
    uneven = random.Random(seed)
    pace, now_s, worked_s, waits, loads = FetchPace(), 0.0, 0.0, [], []
    pace.note(now_s, worked_s)
    for _ in range(round((busy_s + 20) / WINDOW_S)):
        busy = now_s < busy_s
        now_s += WINDOW_S * 1.001
        waits.append(apart_s(pace))
        loads.append(
            1.0 if busy else min(1.0, fixed + uneven.uniform(-noise, noise) + a_fetch_s / max(waits[-1], a_fetch_s))
        )
        worked_s += loads[-1] * WINDOW_S * 1.001
        pace.note(now_s, worked_s)

    assert max(waits[-20:]) - min(waits[-20:]) < LONGEST_S / 3
    load = mean(loads[-20:])
    assert AIM_LOAD - 0.1 < load < AIM_LOAD + 0.05 or (load > AIM_LOAD and waits[-1] == pytest.approx(LONGEST_S))
