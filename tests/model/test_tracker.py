"""Openings of a number against sets of offsets, in any order of deliver, done, exception, revoke and late done.

The position never passes a record whose effects are not real, and once everything is done it stands at the end.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant

from app.engine import Revoked, Unit
from app.engine.records import Slice, cut, merge_by_time
from app.engine.tracker import Span, Tracker
from app.engine.unit import Scope
from tests.support.engine import FakeRecord, RecordingOutputs
from tests.support.machines import Machine, action, caught, play

PLACES = [("in", 0), ("other", 8)]
Place = tuple[str, int, int]
spacing = st.lists(st.integers(1, 3), min_size=1, max_size=5)


def place_of(record: FakeRecord) -> Place:
    return record.topic, record.partition, record.offset


@dataclass
class Opening:
    """One opening of the number, and what a reference makes of it."""

    trackers: dict[tuple[str, int], Tracker]
    scope: Scope
    slices: list[Slice] = field(default_factory=list)
    delivered: list[list[Place]] = field(default_factory=list)
    bytes_of: list[int] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    begun: list[Slice] = field(default_factory=list)
    done: set[Place] = field(default_factory=set)
    passed: dict[tuple[str, int], int] = field(default_factory=dict)

    def all_delivered(self, tp: tuple[str, int]) -> list[int]:
        return sorted(offset for part in self.delivered for *where, offset in part if tuple(where) == tp)

    def undone(self, tp: tuple[str, int]) -> list[int]:
        return [offset for offset in self.all_delivered(tp) if (*tp, offset) not in self.done]


@dataclass
class Running:
    """A unit that is not done yet, and what it would do."""

    opening: Opening
    unit: Unit
    finishes: set[Place] = field(default_factory=set)
    holds: set[Place] = field(default_factory=set)


class OpeningMachine(Machine):
    tracker_class = Tracker

    def __init__(self) -> None:
        super().__init__()
        self.clock = 0.0
        self.log: dict[tuple[str, int], list[int]] = {tp: [] for tp in PLACES}
        self.markers = dict.fromkeys(PLACES, 0)
        self.logged = dict.fromkeys(PLACES, 0)
        self.real: set[Place] = set()
        self.units: list[Running] = []
        self.opening = self.open()

    def open(self) -> Opening:
        trackers = {tp: self.tracker_class(self.logged[tp]) for tp in PLACES}
        scope = Scope("agent", SimpleNamespace(), RecordingOutputs(), "quarantine", lambda: None)
        self.held: set[Place] = set()
        return Opening(trackers, scope)

    # -- what the world does

    @action()
    def deliver(self, data: st.DataObject) -> None:
        gaps, limit = data.draw(st.tuples(spacing, spacing)), data.draw(st.integers(1, 4))
        self.clock += 1.0
        opening, runs = self.opening, []
        for tp, mine in zip(PLACES, gaps, strict=True):
            for gap in mine:
                self.log[tp].append(self._end(tp) + gap - 1)
            ahead = [o for o in self.log[tp] if o >= opening.trackers[tp].next][: len(mine)]
            runs.append([FakeRecord(*tp, offset=o, timestamp=o, value=b"v" * (o % 5)) for o in ahead])
        for slice_ in cut(0, merge_by_time(runs), limit, opening.trackers, None, self.clock):
            opening.slices.append(slice_)
            for tp in slice_.parts:
                mine = [record for record in slice_.records if (record.topic, record.partition) == tp]
                opening.delivered.append([place_of(record) for record in mine])
                opening.bytes_of.append(sum(len(r.key) + len(r.value) for r in mine))
                opening.at.append(self.clock)

    def _end(self, tp: tuple[str, int]) -> int:
        return max([0, self.markers[tp], *(offset + 1 for offset in self.log[tp][-1:])])

    @action()
    def markers_are_passed_by(self, data: st.DataObject) -> None:
        """What ends a transaction, and what an aborted one had, is never delivered."""
        tp = data.draw(st.sampled_from(PLACES))
        tracker = self.opening.trackers[tp]
        if self.log[tp] and self.log[tp][-1] >= tracker.next:
            return
        end = max(self._end(tp), tracker.next) + data.draw(st.integers(0, 2))
        before = tracker.position
        assert tracker.pass_by(end) == (tracker.position > before)
        self.markers[tp] = end
        self.opening.passed[tp] = end

    @action()
    def a_fetch_is_lost(self, data: st.DataObject) -> None:
        tp = data.draw(st.sampled_from(PLACES))
        tracker = self.opening.trackers[tp]
        tracker.placed = True
        tracker.unplace()
        assert not tracker.placed
        assert tracker.start == tracker.next

    # -- what the runner does

    @action(3, when=lambda self: len(self.opening.slices) > 1)
    def two_slices_that_wait_become_one(self, data: st.DataObject) -> None:
        slices = self.opening.slices
        at = data.draw(st.integers(0, len(slices) - 2))
        if any(one is begun for one in slices[at : at + 2] for begun in self.opening.begun):
            return
        later = slices.pop(at + 1)
        self._join_reference(slices[at], later)
        slices[at].join(later)

    def _join_reference(self, slice_: Slice, later: Slice) -> None:
        opening = self.opening
        for tp, (first, last) in later.spans.items():
            if tp not in slice_.spans:
                continue
            begins = [part[0] for part in opening.delivered]
            into, gone = begins.index((*tp, slice_.spans[tp][0])), begins.index((*tp, first))
            assert opening.delivered[gone][-1] == (*tp, last)
            opening.delivered[into] += opening.delivered.pop(gone)
            opening.bytes_of[into] += opening.bytes_of.pop(gone)
            del opening.at[gone]

    @action(2, when=lambda self: any(len(slice_.records) > 1 for slice_ in self.opening.slices))
    def one_slice_that_waits_becomes_two(self, data: st.DataObject) -> None:
        slices = self.opening.slices
        at = data.draw(st.sampled_from([at for at, slice_ in enumerate(slices) if len(slice_.records) > 1]))
        slice_ = slices[at]
        if any(slice_ is begun for begun in self.opening.begun):
            return
        count = data.draw(st.integers(1, len(slice_.records) - 1))
        self._split_reference(slice_, slice_.records[count:])
        slices.insert(at + 1, slice_.split(count))

    def _split_reference(self, slice_: Slice, rest: list[FakeRecord]) -> None:
        opening = self.opening
        for tp, (first, _) in slice_.spans.items():
            mine = [record for record in rest if (record.topic, record.partition) == tp]
            at = [part[0] for part in opening.delivered].index((*tp, first))
            if not mine or len(mine) == len(opening.delivered[at]):
                continue
            del opening.delivered[at][-len(mine) :]
            size_bytes = sum(len(r.key) + len(r.value) for r in mine)
            opening.bytes_of[at] -= size_bytes
            opening.delivered.insert(at + 1, [place_of(record) for record in mine])
            opening.bytes_of.insert(at + 1, size_bytes)
            opening.at.insert(at + 1, opening.at[at])

    @action(6, when=lambda self: self.opening.slices)
    def a_unit_runs(self, data: st.DataObject) -> None:
        what = data.draw(st.sampled_from(["slice", "record", "held"]))
        held = what == "held" and self.held
        running = self._ending(data) if held else self._running(data, whole=what == "slice")
        self.units.append(running)
        if data.draw(st.booleans()):
            self._done(self.units.pop())

    def _running(self, data: st.DataObject, *, whole: bool) -> Running:
        """A slice, or one record of it; also one that was run before: an exception, or a second try."""
        slice_ = data.draw(st.sampled_from(self.opening.slices[-4:]))
        self.opening.begun.append(slice_)
        if not whole:
            record = data.draw(st.sampled_from(slice_.records))
            tp = (record.topic, record.partition)
            slice_ = Slice(0, [record], None, {tp: slice_.parts[tp]})
        held = data.draw(st.lists(st.sampled_from(slice_.records), unique_by=place_of))
        unit = Unit(self.opening.scope, slice_, whole=whole)
        for record in held:
            unit.hold(record)
        holds = {place_of(record) for record in held}
        return Running(self.opening, unit, {place_of(record) for record in slice_.records} - holds, holds)

    def _ending(self, data: st.DataObject) -> Running:
        """Held records that end, all in one later unit."""
        held = data.draw(st.lists(st.sampled_from(sorted(self.held)), min_size=1, unique=True))
        unit = Unit(self.opening.scope)
        for place in held:
            unit.finish(FakeRecord(*place))
        return Running(self.opening, unit, set(held))

    @action(4, when=lambda self: self.units)
    def a_unit_ends(self, data: st.DataObject) -> None:
        running = self.units.pop(data.draw(st.integers(0, len(self.units) - 1)))
        thrown = data.draw(st.sampled_from([False, False, True]))
        if not thrown:
            self._done(running)

    def _done(self, running: Running) -> None:
        running.unit.on_done(lambda: self.real.update(running.finishes))
        if running.opening is self.opening:
            running.unit.done()
            running.opening.done |= running.finishes
            self.held = (self.held | running.holds) - running.finishes
        else:
            with pytest.raises(Revoked):
                running.unit.done()

    # -- what the number does

    @action()
    def checkpoint(self, data: st.DataObject) -> None:
        self.logged = {tp: tracker.position for tp, tracker in self.opening.trackers.items()}

    @action()
    def revoked_and_opened_again(self, data: st.DataObject) -> None:
        self.opening.scope.valid = False
        self.opening = self.open()

    # -- what must hold

    @invariant()
    def the_position_never_passes_a_record_whose_effects_are_not_real(self) -> None:
        for tp, tracker in self.opening.trackers.items():
            assert tracker.position >= self.logged[tp]
            assert {(*tp, o) for o in self.log[tp] if o < tracker.position} <= self.real

    @invariant()
    def the_position_does_not_stand_before_a_finished_record(self) -> None:
        for tp, tracker in self.opening.trackers.items():
            delivered, undone = self.opening.all_delivered(tp), self.opening.undone(tp)
            if undone:
                before = [o for o in delivered if o < undone[0]]
                assert tracker.position <= undone[0]
                assert not before or tracker.position > before[-1]
            else:
                assert tracker.position == tracker.next
            passed = [self.opening.passed.get(tp, 0), *(o + 1 for o in delivered[-1:])]
            assert tracker.next == max(passed) or not any(passed)
            assert tracker.unfinished == len(undone)

    @invariant()
    def bytes_are_free_when_a_span_is_done_and_the_age_is_that_of_the_oldest_span(self) -> None:
        opening = self.opening
        for tp, tracker in opening.trackers.items():
            left = [
                (size, at)
                for part, size, at in zip(opening.delivered, opening.bytes_of, opening.at, strict=True)
                if part[0][:2] == tp and not set(part) <= opening.done
            ]
            assert tracker.unfinished_bytes == sum(size for size, _ in left)
            assert tracker.oldest_at == min((at for _, at in left), default=None)

    def teardown(self) -> None:
        """Whatever has happened: when the rest is done, nothing is stuck."""
        for slice_ in self.opening.slices:
            Unit(self.opening.scope, slice_).done()
        for tp, tracker in self.opening.trackers.items():
            delivered = self.opening.all_delivered(tp)
            assert tracker.position == tracker.next > max([-1, *delivered])
            assert (tracker.unfinished, tracker.unfinished_bytes, tracker.oldest_at) == (0, 0, None)


@pytest.mark.parametrize(
    "histories", [pytest.param(200, id="short"), pytest.param(5_000, id="full", marks=pytest.mark.prove)]
)
def test_a_position_never_passes_unfinished_work_and_is_never_stuck(histories: int) -> None:
    play(OpeningMachine, histories, 40, "Model: positions")


class Hasty(Tracker):
    """Takes the newest finished record for the oldest unfinished one."""

    __slots__ = ()

    def _advance(self) -> None:
        super()._advance()
        if not self.unfinished_bytes or self.unfinished < 2:
            self.position = max(self.position, self.next)


class Stuck(Tracker):
    """Looks only at the oldest span when it advances."""

    __slots__ = ()

    def _advance(self) -> None:
        if self._spans and not self._spans[0].undone:
            self.position = self._spans.popleft().last + 1


class Blurred(Tracker):
    """A span that became two keeps what the later one has."""

    __slots__ = ()

    def split(self, span: Span, offsets: list[int], bytes_: int) -> Span:
        undone = set(span.undone)
        later = super().split(span, offsets, bytes_)
        span.undone = undone
        return later


@pytest.mark.parametrize("broken", [Hasty, Stuck, Blurred])
def test_a_tracker_that_is_hasty_or_stuck_is_caught(broken: type[Tracker]) -> None:
    machine = type("Broken", (OpeningMachine,), {"tracker_class": broken})

    assert caught(machine, 200, 40) is not None
