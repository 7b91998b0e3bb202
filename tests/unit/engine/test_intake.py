"""What is no record (a transaction marker, an aborted transaction) is passed by, and never what is one."""

from types import SimpleNamespace

import pytest

from app.engine.intake import Intake
from app.engine.taking import FetchedRecord, Taken
from app.engine.tracker import Tracker

TP = ("in", 0)


class Numbers(SimpleNamespace):
    """One number with one partition; `moved` says how far it was passed by."""

    def __init__(self, tracker: Tracker) -> None:
        super().__init__(trackers={TP: tracker}, number=0, epoch=object(), reopened=[])
        self.runners = {"agent": SimpleNamespace(spec=SimpleNamespace(slice_records=256))}

    def reopen(self, why: str) -> None:
        self.reopened.append(why)

    def pass_by(self, tp: tuple[str, int], offset: int) -> None:
        self.trackers[tp].pass_by(offset)


@pytest.fixture
def tracker() -> Tracker:
    return Tracker(10)


@pytest.fixture
def intake(tracker: Tracker) -> Intake:
    clock = SimpleNamespace(monotonic_s=lambda: 0.0)
    agents = {"in": SimpleNamespace(name="agent")}
    return Intake(SimpleNamespace(numbers={0: Numbers(tracker)}, numbers_count=1, agent_of=agents, clock=clock))


def taken(*offsets: int, begin: int, end: int) -> Taken:
    found = Taken(FetchedRecord("in", 0, offset, 0, None, b"v", ()) for offset in offsets)
    found.begin, found.end = begin, end
    return found


def fetch(intake: Intake, tracker: Tracker, found: Taken) -> None:
    intake.slices({TP: found}, {TP: tracker})
    intake.pass_by({TP: found}, {TP: tracker})


def test_a_marker_behind_the_last_record_is_passed_once_the_record_is_done(intake: Intake, tracker: Tracker) -> None:
    (slice_,) = intake.slices({TP: taken(10, 11, begin=10, end=13)}, {TP: tracker})
    intake.pass_by({TP: taken(10, 11, begin=10, end=13)}, {TP: tracker})
    assert (tracker.position, tracker.next) == (10, 13)

    tracker.finish_rest(slice_.parts[TP][1], {11})
    assert tracker.position == 11
    tracker.finish(slice_.parts[TP][1], 11)
    assert tracker.position == 13


def test_a_marker_alone_is_passed_at_once(intake: Intake, tracker: Tracker) -> None:
    fetch(intake, tracker, taken(begin=10, end=11))

    assert (tracker.position, tracker.next) == (11, 11)


def test_a_marker_behind_records_that_were_not_accepted_is_not_passed(intake: Intake, tracker: Tracker) -> None:
    fetch(intake, tracker, taken(9, 10, 11, begin=9, end=13))
    fetch(intake, tracker, taken(begin=13, end=14))

    assert (tracker.position, tracker.next) == (10, 10)
    assert intake._engine.numbers[0].reopened


def test_what_was_fetched_for_an_opening_gone_by_moves_nothing(intake: Intake, tracker: Tracker) -> None:
    intake.pass_by({TP: taken(begin=10, end=99)}, {TP: Tracker(10)})

    assert (tracker.position, tracker.next) == (10, 10)
