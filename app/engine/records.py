"""Records and slices: what an agent is handed."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Protocol

from app.engine.tracker import Span, Tracker

__all__ = ["Header", "Record", "Slice", "cut", "fit_first", "merge_by_time"]

Header = tuple[str, bytes]

_PLACE = attrgetter("topic", "partition")


class Record(Protocol):
    """One Kafka record, as the client delivers it."""

    @property
    def topic(self) -> str:
        """Where it was read from."""

    @property
    def partition(self) -> int:
        """Its partition."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""

    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970: the producer's clock, or the broker's on a LogAppendTime topic."""

    @property
    def key(self) -> bytes | None:
        """The record key."""

    @property
    def value(self) -> bytes | None:
        """The record value; None is a tombstone."""

    @property
    def headers(self) -> Sequence[Header]:
        """In order, names may repeat."""


@dataclass(slots=True, eq=False)
class Slice:
    """Up to `slice_records` records of one number of one agent; the order inside a partition is the log's.

    Attributes:
        number: The number that all of it belongs to.
        records: Merged over the number's partitions by timestamp.
        spans: `{(topic, partition): (first, last)}` offsets.
    """

    number: int
    records: list[Record]
    epoch: object = None
    parts: dict[tuple[str, int], tuple[Tracker, Span]] = field(default_factory=dict)

    @property
    def spans(self) -> dict[tuple[str, int], tuple[int, int]]:
        """First and last offset of each partition."""
        return {tp: (span.offsets[0], span.last) for tp, (_, span) in self.parts.items()}

    def join(self, later: Slice) -> None:
        """Take over the slice that was cut next; nobody has begun with either."""
        self.records += later.records
        for tp, (tracker, span) in later.parts.items():
            if tp in self.parts:
                tracker.join(self.parts[tp][1], span)
            else:
                self.parts[tp] = (tracker, span)

    def split(self, count: int) -> Slice:
        """Keep the first `count` records; the others become the slice after this. Nobody has begun with it."""
        rest = self.records[count:]
        del self.records[count:]
        kept = _by_partition(self.records)
        parts: dict[tuple[str, int], tuple[Tracker, Span]] = {}
        for tp, found in _by_partition(rest).items():
            tracker, span = self.parts[tp]
            if tp in kept:
                span = tracker.split(span, [record.offset for record in found], _size_bytes(found))
            else:
                del self.parts[tp]
            parts[tp] = (tracker, span)
        return Slice(self.number, rest, self.epoch, parts)


def fit_first(slices: deque[Slice], limit: int) -> None:
    """Make the first of the slices that wait as long as it may be: each run of one waits for acknowledgements.

    One that is longer than that becomes two.
    """
    while len(slices) > 1 and len(slices[0].records) + len(slices[1].records) <= limit:
        first = slices.popleft()
        first.join(slices.popleft())
        slices.appendleft(first)
    if len(slices[0].records) > limit:
        slices.insert(1, slices[0].split(limit))


def merge_by_time(runs: Iterable[Sequence[Record]]) -> list[Record]:
    """K-way merge on the timestamp of each run's next record; the order inside a run is never changed."""
    lists = [run for run in runs if run]
    if len(lists) == 1:
        return list(lists[0])
    return list(heapq.merge(*lists, key=attrgetter("timestamp")))


def cut(
    number: int,
    records: list[Record],
    limit: int,
    trackers: Mapping[tuple[str, int], Tracker],
    epoch: object,
    at: float,
) -> list[Slice]:
    """Slices of at most `limit` records, each registered with the trackers of its partitions."""
    slices = []
    for start in range(0, len(records), limit):
        part = records[start : start + limit]
        parts = {}
        for tp, found in _by_partition(part).items():
            tracker = trackers[tp]
            parts[tp] = (tracker, tracker.deliver([record.offset for record in found], _size_bytes(found), at))
        slices.append(Slice(number, part, epoch, parts))
    return slices


def _size_bytes(records: list[Record]) -> int:
    return sum([len(record.value or b"") + len(record.key or b"") for record in records])


def _by_partition(records: list[Record]) -> dict[tuple[str, int], list[Record]]:
    found: dict[tuple[str, int], list[Record]] = {}
    for (topic, partition), run in groupby(records, key=_PLACE):
        found.setdefault((topic, partition), []).extend(run)
    return found
