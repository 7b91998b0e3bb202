"""A topic in memory, behind the reader that `TopicLog` asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from app.engine import Record

TP = tuple[str, int]


class FakeReader:
    """Has these records; `failure` is what a read raises.

    Attributes:
        reads: The ranges that were read, by partition.
    """

    def __init__(self, *records: Record, begin: Mapping[TP, int] | None = None) -> None:
        self.records = records
        self.begin = dict(begin or {})
        self.failure: Exception | None = None
        self.reads: list[tuple[TP, int, int]] = []

    async def bounds(self, partitions: Sequence[TP]) -> dict[TP, tuple[int, int]]:
        if self.failure is not None:
            raise self.failure
        ends = {tp: [record.offset + 1 for record in self._of(tp)] for tp in partitions}
        return {tp: (self.begin.get(tp, 0), max(ends[tp], default=0)) for tp in partitions}

    async def read(
        self,
        start: Mapping[TP, int],
        until: Mapping[TP, int],
        sink: Callable[[TP, Sequence[Record], int], Awaitable[None]],
    ) -> None:
        if self.failure is not None:
            raise self.failure
        for tp in start:
            self.reads.append((tp, start[tp], until[tp]))
            # As a fetch does: whole batches, also beyond what was asked for.
            found = [record for record in self._of(tp) if record.offset >= start[tp]]
            await sink(tp, found, until[tp])

    def _of(self, tp: TP) -> list[Record]:
        return [record for record in self.records if (record.topic, record.partition) == tp]
