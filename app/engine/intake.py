"""From fetched records to runners: what may be fetched, how it is cut, and who takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from app.engine.number import State
from app.engine.records import Record, Slice, cut, merge_by_time

if TYPE_CHECKING:
    from app.engine.engine import Engine
    from app.engine.taking import Taken
    from app.engine.tracker import Tracker

__all__ = ["Intake"]

TP = tuple[str, int]


class Intake:
    """The way of records into one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def wanted(self) -> dict[TP, Tracker]:
        """Partitions that are open and have room."""
        return {
            tp: tracker
            for number in self._engine.numbers.values()
            if number.state is State.OPEN
            for runner in number.runners.values()
            if runner.has_room()
            for tp, tracker in runner.trackers.items()
        }

    def slices(self, records: Mapping[TP, Sequence[Record]], wanted: Mapping[TP, Tracker]) -> list[Slice]:
        """Merge fetched records by number and agent, cut them, and interleave the numbers.

        Records of a partition whose opening has changed since they were asked for are dropped: the new opening seeks.
        """
        groups: dict[tuple[int, str], list[Sequence[Record]]] = {}
        for tp, found in records.items():
            number = self._engine.numbers.get(tp[1] % self._engine.numbers_count)
            if not found or number is None or number.trackers.get(tp) is not wanted.get(tp):
                continue
            if found[0].offset < number.trackers[tp].next:
                number.reopen(f"{tp[0]}/{tp[1]}: offset {found[0].offset} came after {number.trackers[tp].next - 1}")
                continue
            groups.setdefault((number.number, self._engine.agent_of[tp[0]].name), []).append(found)
        now = self._engine.clock.monotonic_s()
        queues = []
        for (number_id, agent), runs in groups.items():
            number = self._engine.numbers[number_id]
            limit = number.runners[agent].spec.slice_records
            queues.append(cut(number_id, merge_by_time(runs), limit, number.trackers, number.epoch, now))
        return [slice_ for turn in _turns(queues) for slice_ in turn]

    def pass_by(self, fetched: Mapping[TP, Taken], wanted: Mapping[TP, Tracker]) -> None:
        """After `slices`: move trackers beyond what is no record, or its partitions would seem to lag for ever."""
        for tp, taken in fetched.items():
            number = self._engine.numbers.get(tp[1] % self._engine.numbers_count)
            if taken.end is None or number is None or number.trackers.get(tp) is not wanted.get(tp):
                continue
            # What was not accepted, now or a moment ago, must come again.
            if number.trackers[tp].next == (taken[-1].offset + 1 if taken else taken.begin):
                number.pass_by(tp, taken.end)

    def accept(self, agent: str, slice_: Slice) -> None:
        """Hand a slice to its runner; one of an opening gone by is dropped. Never blocks, never raises."""
        number = self._engine.numbers.get(slice_.number)
        if number is not None and number.epoch is slice_.epoch and agent in number.runners:
            number.runners[agent].accept(slice_)


def _turns(queues: list[list[Slice]]) -> list[list[Slice]]:
    """One slice of each queue a turn."""
    longest = max((len(queue) for queue in queues), default=0)
    return [[queue[at] for queue in queues if at < len(queue)] for at in range(longest)]
