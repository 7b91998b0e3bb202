"""How far a restore is: pure, with a clock that the tests turn."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine import Agent
from app.engine.changelog import Write
from app.engine.number_restore import restore_number
from app.engine.recovery import WINDOW_S, Recovery
from tests.support.engine import ROWS, Row
from tests.support.number import FakeServices
from tests.support.quiet import Quiet


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recovery(clock: Clock) -> Recovery:
    return Recovery(clock)


def test_nothing_is_restored_nothing_is_told(recovery: Recovery) -> None:
    assert recovery.progress() is None
    recovery.begin({"audit": 10}).end()
    assert recovery.progress() is None


def test_rows_are_told_by_table_over_all_numbers(recovery: Recovery, clock: Clock) -> None:
    one, two = recovery.begin({"audit": 100, "deliveries": 1000}), recovery.begin({"audit": 50})
    clock.now_s += 10
    one.moved("audit", 60, 60)
    two.moved("audit", 50, 50)
    two.end()
    progress = recovery.progress()
    assert progress is not None
    assert progress.to_json() == {
        "restored_rows": 110,
        "remaining_rows": 1040,
        "tables": {
            "audit": {"restored_rows": 110, "remaining_rows": 40},
            "deliveries": {"restored_rows": 0, "remaining_rows": 1000},
        },
        "left_s": 94.5,
    }
    assert str(progress) == "recovering: 110 rows restored, 1040 remaining, about 95 s left"
    one.end()
    assert recovery.progress() is None


def test_what_was_compacted_away_is_passed_and_not_restored(recovery: Recovery, clock: Clock) -> None:
    restoring = recovery.begin({"audit": 1000})
    clock.now_s += 1
    restoring.moved("audit", 10, 500)
    progress = recovery.progress()
    assert progress is not None
    assert (progress.restored, progress.remaining, progress.left_s) == ({"audit": 10}, {"audit": 500}, 1.0)


def test_a_restore_that_was_given_up_leaves_nothing_to_do(recovery: Recovery) -> None:
    given_up, goes_on = recovery.begin({"audit": 1000}), recovery.begin({"audit": 5})
    given_up.moved("audit", 1, 1)
    given_up.end()
    given_up.end()
    progress = recovery.progress()
    assert progress is not None
    assert progress.remaining == {"audit": 5}
    goes_on.end()


def test_the_next_recovery_begins_at_nothing(recovery: Recovery, clock: Clock) -> None:
    first = recovery.begin({"audit": 10})
    clock.now_s += 5
    first.moved("audit", 10, 10)
    first.end()
    recovery.begin({"audit": 7})
    progress = recovery.progress()
    assert progress is not None
    assert (progress.restored, progress.remaining, progress.left_s) == ({}, {"audit": 7}, None)


def test_no_time_is_told_before_a_pace_is_known_and_while_nothing_comes(recovery: Recovery, clock: Clock) -> None:
    def left_s() -> float | None:
        progress = recovery.progress()
        assert progress is not None
        return progress.left_s

    restoring = recovery.begin({"audit": 1000})
    clock.now_s += 0.9
    restoring.moved("audit", 10, 10)
    assert left_s() is None
    clock.now_s += 0.2
    assert left_s() is not None
    restoring.moved("audit", 0, 0)
    clock.now_s += WINDOW_S
    restoring.moved("audit", 0, 0)
    clock.now_s += WINDOW_S
    restoring.moved("audit", 0, 0)
    assert left_s() is None


@given(st.integers(1, 100_000), st.floats(0.05, 5), st.integers(4, 200))
def test_at_an_even_pace_the_estimate_is_the_truth(rows: int, gap_s: float, steps: int) -> None:
    clock = Clock()
    recovery = Recovery(clock)
    restoring = recovery.begin({"audit": rows * steps})
    for step in range(1, steps):
        clock.now_s += gap_s
        restoring.moved("audit", rows, rows)
        progress = recovery.progress()
        assert progress is not None
        if progress.left_s is not None:
            assert progress.left_s == pytest.approx((steps - step) * gap_s, rel=1e-6)


@given(st.lists(st.tuples(st.floats(0, 60), st.integers(0, 50), st.integers(0, 50)), max_size=60))
def test_what_is_told_is_never_less_than_nothing(moves: Sequence[tuple[float, int, int]]) -> None:
    clock = Clock()
    recovery = Recovery(clock)
    restoring = recovery.begin({"audit": 500})
    for wait_s, restored, gone in moves:
        clock.now_s += wait_s
        restoring.moved("audit", restored, restored + gone)
        progress = recovery.progress()
        assert progress is not None
        shown = progress.to_json()
        assert shown["restored_rows"] >= 0
        assert shown["remaining_rows"] >= 0
        assert shown["left_s"] is None or shown["left_s"] >= 0


async def test_a_number_tells_what_it_restores_while_it_does(tmp_path: Path) -> None:
    services = FakeServices(tmp_path)
    agents = [Agent(name=n, topics=(n,), processor=Quiet, home=ROWS, tables=(ROWS,)) for n in ("x", "y")]
    services.agents = tuple(agents)
    log = services.reader
    # A control record is behind them, which is passed and no row.
    log.append([Write("rows", 0, [(b"%d" % n, ROWS.encode(Row(n=n))) for n in range(5)])])
    told = []
    read = log.read

    async def reading(start: dict, until: dict, sink: Callable) -> None:
        told.append(services.recovery.progress())
        await read(start, until, sink)
        told.append(services.recovery.progress())

    log.read = reading
    await restore_number(services, 0)
    first, last = told
    assert (first.restored, first.remaining) == ({}, {"rows": 6})
    assert (last.restored, last.remaining) == ({"rows": 5}, {"rows": 0})
    assert services.recovery.progress() is None
    for agent in agents:
        services.stores[agent.name].close()
