"""The sealed batches of the audit chain as the broker has them, and where in the topic a time range lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.integrations.export import Span, choose_anchor
from tables.audit_sealed import Sealed

if TYPE_CHECKING:
    from app.cli.topic_reader import TopicReader

__all__ = ["Range", "Sealed", "export_spans", "read_ranges", "read_sealed"]


def read_sealed(reader: TopicReader, changelog: str) -> Sealed:
    """The sealed batches, by the changelog of the table."""
    sealed = Sealed()
    for message in reader.records(changelog, "reading batches"):
        key, value = message.key(), message.value()
        sealed.put(key if isinstance(key, bytes) else None, value if isinstance(value, bytes) else None)
    return sealed


@dataclass(frozen=True, slots=True)
class Range:
    """A part of a partition of the audit topic.

    Attributes:
        begin: The first offset that the topic still has.
        first: The first offset that is asked for.
        until: The offset behind the last one.
    """

    begin: int
    first: int
    until: int


def read_ranges(reader: TopicReader, topic: str, from_ms: int | None, to_ms: int | None) -> dict[int, Range]:
    """Where a time range lies, by the timestamps of the records."""
    bounds = {partition: reader.bounds(topic, partition) for partition in reader.partitions(topic)}
    firsts = {} if from_ms is None else reader.offsets_at(topic, bounds, from_ms)
    untils = {} if to_ms is None else reader.offsets_at(topic, bounds, to_ms)
    found: dict[int, Range] = {}
    for partition, (begin, end) in bounds.items():
        # Nothing of that time or later: the range begins, or ends, where the partition does.
        first = firsts.get(partition, begin) if from_ms is not None else begin
        until = untils.get(partition, end)
        first = end if first is None else first
        found[partition] = Range(begin, first, max(first, end if until is None else until))
    return found


def export_spans(sealed: Sealed, ranges: dict[int, Range]) -> list[Span]:
    """What of each partition is exported, and where its fold begins."""
    return [
        Span(
            partition,
            range_.first,
            range_.until,
            choose_anchor(sealed.anchors(partition), range_.begin, range_.first),
        )
        for partition, range_ in sorted(ranges.items())
    ]
