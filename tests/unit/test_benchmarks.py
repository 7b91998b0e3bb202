"""What the benchmark makes of what it saw; that it runs is tested with a broker."""

import pytest

from benchmarks.__main__ import NAMES, main
from benchmarks.contender import Measured
from benchmarks.goals import GOALS, Goal
from benchmarks.load import Seen, first_after, longest_pause_s
from benchmarks.report import Results


def seen(number: int, *at_s: float, worker: str = "one") -> list[Seen]:
    return [Seen(at, number, worker) for at in at_s]


def test_a_pause_counts_where_it_touches_the_interval_and_of_these_numbers_only() -> None:
    outputs = seen(0, 1.0, 2.0, 2.1, 2.9, 3.0, 9.0) + seen(1, 1.0, 9.0)

    assert longest_pause_s(outputs, 2.2, 2.95, {0}) == pytest.approx(0.8)
    assert longest_pause_s(outputs, 2.2, 2.95, {0, 1}) == pytest.approx(8.0)


def test_records_of_the_dead_worker_are_no_takeover() -> None:
    outputs = seen(0, 1.0, 5.1, worker="dead") + seen(0, 7.0, 8.0, worker="heir") + seen(1, 6.0, worker="heir")

    assert first_after(outputs, 5.0, {0}, not_by="dead") == {0: 7.0}


def test_a_goal_says_what_holds_and_what_is_missed() -> None:
    at_least, at_most = Goal(name="a", must=0.2, aim=0.3), Goal(name="b_s", must=10, less_is_better=True)

    assert at_least.verdict(0.25) == "at least 0.2: met, aim 0.3: MISSED"
    assert at_most.verdict(10.5) == "at most 10: MISSED"


def test_ratios_are_medians_of_the_rounds_and_stand_beside_their_goals() -> None:
    rounds = [{"bare": Measured(1000, 1.0, 1.0), "row": Measured(events, 1.0, 1.0)} for events in (100, 250, 900)]

    results = Results(rounds, {"idle_rss_mb": 151.0}, 1.0, 3.0)

    assert results.ratios == {"row_ratio_bare": 0.25}
    for text in (results.chart(), results.markdown()):
        assert "at least 0.2: met, aim 0.3: MISSED" in text
        assert "at most 150: MISSED" in text


def test_every_goal_has_a_name_of_its_own() -> None:
    assert len({goal.name for goal in GOALS}) == len(GOALS)


def test_the_parts_are_listed_and_an_unknown_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert capsys.readouterr().out.split() == list(NAMES)

    with pytest.raises(SystemExit, match="2"):
        main(["--only", "nonsense"])
