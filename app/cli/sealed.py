"""The sealed batches of the audit chain as the broker has them, and where in the topic a time range lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from app.integrations.export import Anchor, Span, choose_anchor
from tables.audit import AUDIT, head_key, partition_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.cli.topic_reader import TopicReader
    from app.integrations.chain import Batch, ChainHead

__all__ = ["Range", "Sealed", "export_spans", "read_ranges", "read_sealed"]

_ENGINE_ROW: Final = b"\0"


@dataclass(frozen=True, slots=True)
class Sealed:
    """What the table `audit` says: heads, and the sealed batches of each partition's present chain.

    A year of batches is large: they stay as they came until a partition is asked for.

    Attributes:
        rows: By partition and key, the newest value of each row.
    """

    rows: dict[int, dict[bytes, bytes]] = field(default_factory=dict)

    def head(self, partition: int) -> ChainHead | None:
        """The head of a partition's chain; None before its first batch."""
        found = self.rows.get(partition, {}).get(head_key(partition))
        return None if found is None else AUDIT.decode(found).head

    def batches(self, partition: int) -> list[Batch]:
        """The sealed batches of a partition's present chain, in no order."""
        head = self.head(partition)
        found = (AUDIT.decode(value).batch for value in self.rows.get(partition, {}).values())
        return [batch for batch in found if batch is not None and head is not None and batch.chain == head.chain]

    def anchors(self, partition: int) -> Iterable[Anchor]:
        """Where the chain of a partition can be taken up."""
        for batch in self.batches(partition):
            yield Anchor(batch.first, batch.previous_hash)
        if (head := self.head(partition)) is not None:
            yield Anchor(head.sequence + 1, head.hash)


def read_sealed(reader: TopicReader, changelog: str) -> Sealed:
    """The sealed batches, by the changelog of the table."""
    rows: dict[int, dict[bytes, bytes]] = {}
    for message in reader.records(changelog, "reading batches"):
        key, value = message.key(), message.value()
        if not isinstance(key, bytes) or key.startswith(_ENGINE_ROW):
            continue
        of_partition = rows.setdefault(partition_of(key), {})
        if isinstance(value, bytes):
            of_partition[key] = value
        else:
            of_partition.pop(key, None)
    return Sealed(rows)


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
