"""How far apart fetches are."""

import pytest

from app.engine.fetch_pace import FREE_LOAD, FULL_LOAD, LONGEST_S, FetchPace


def paced(load: float, seconds: int = 10) -> FetchPace:
    """A pace that has seen this load for so long."""
    pace = FetchPace()
    for second in range(seconds + 1):
        pace.note(float(second), second * load)
    return pace


@pytest.mark.parametrize("load", [0.0, FREE_LOAD / 2, FREE_LOAD * 0.99])
def test_a_worker_that_has_time_asks_again_at_once(load: float) -> None:
    pace = paced(load)
    pace.sent(100.0)

    assert pace.wait_s(100.0) == 0.0


@pytest.mark.parametrize("load", [FULL_LOAD * 1.01, 1.0])
def test_under_full_load_fetches_are_as_far_apart_as_they_may_be(load: float) -> None:
    pace = paced(load)
    pace.sent(100.0)

    assert pace.wait_s(100.0) == pytest.approx(LONGEST_S)
    assert pace.wait_s(100.0 + LONGEST_S / 3) == pytest.approx(LONGEST_S * 2 / 3)
    assert pace.wait_s(100.0 + LONGEST_S) == 0.0


def test_between_them_they_are_the_farther_apart_the_more_there_is_to_do() -> None:
    waits = []
    for load in (0.4, 0.5, 0.6):
        pace = paced(load)
        pace.sent(100.0)
        waits.append(pace.wait_s(100.0))

    assert 0 < waits[0] < waits[1] < waits[2] < LONGEST_S


def test_one_busy_moment_is_not_full_load() -> None:
    pace = FetchPace()
    pace.note(0.0, 0.0)
    pace.note(0.2, 0.2)
    pace.sent(0.2)

    assert 0 < pace.wait_s(0.2) < LONGEST_S


def test_what_was_noted_too_soon_after_the_last_note_waits_for_more() -> None:
    pace = FetchPace()
    for at_s in (0.0, 0.05, 0.1, 0.15):
        pace.note(at_s, at_s)
    pace.sent(0.15)

    assert pace.wait_s(0.15) == 0.0


def test_a_load_that_is_over_is_forgotten() -> None:
    pace = paced(1.0)
    for second in range(11, 15):
        pace.note(float(second), 10.0)
    pace.sent(100.0)

    assert pace.wait_s(100.0) == 0.0


def test_where_more_lies_ready_than_an_answer_may_hold_nothing_waits() -> None:
    pace = paced(1.0)
    pace.sent(100.0)
    pace.more()

    assert pace.wait_s(100.0) == 0.0
