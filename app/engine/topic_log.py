"""Reads of a topic outside the group: one record by its offset, a few by theirs, and the newest first.

Each read has a consumer of its own and ends; nothing is kept between two.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from aiokafka import errors as kafka_errors

from app.engine.records import Record
from app.engine.restore import LogReader, Sink

__all__ = ["LogUnavailable", "Placed", "TopicLog"]

T = TypeVar("T")
TP = tuple[str, int]

READ_DEADLINE_S = 20.0
# Of each partition; what is read of them is smaller than the records.
WINDOW_RECORDS = 200
_FAILURES = (kafka_errors.KafkaError, OSError, TimeoutError)


class LogUnavailable(Exception):
    """The broker does not say what is in the topic now."""


class Placed(NamedTuple, Generic[T]):
    """What was read of one record, and where it stands."""

    partition: int
    offset: int
    timestamp_ms: int
    read: T | None


class TopicLog:
    """One topic.

    Args:
        reader: Of this process.
        topic: Must exist.
        partitions: How many it has.
    """

    def __init__(self, reader: LogReader, topic: str, partitions: int) -> None:
        self._reader = reader
        self.topic = topic
        self.partitions = partitions

    async def record(self, partition: int, offset: int) -> Record | None:
        """One record; None: there is none of that offset (any more).

        Raises:
            LogUnavailable: Nobody says.
        """
        if not 0 <= partition < self.partitions:
            return None
        found = await self.records(partition, {offset})
        return found.get(offset)

    async def records(self, partition: int, offsets: Collection[int]) -> dict[int, Record]:
        """Records of one partition by offset, those that are there.

        Raises:
            LogUnavailable: Nobody says.
        """
        tp = (self.topic, partition)
        begin, end = (await self._bounds([tp]))[tp]
        wanted = {offset for offset in offsets if begin <= offset < end}
        found: dict[int, Record] = {}

        async def keep(_: TP, records: Sequence[Record], __: int) -> None:
            found.update((record.offset, record) for record in records if record.offset in wanted)

        if wanted:
            await self._read({tp: min(wanted)}, {tp: max(wanted) + 1}, keep)
        return found

    async def newest_first(
        self, read: Callable[[Record], T | None], only: Collection[int] | None = None
    ) -> AsyncIterator[Placed[T]]:
        """All records, the newest first by their timestamps; in each partition by offset, downwards.

        Args:
            read: What is kept of a record; None is handed on, too, as the record was looked at.
            only: These partitions; None: all.

        Raises:
            LogUnavailable: Nobody says.
        """
        asked = range(self.partitions) if only is None else only
        bounds = await self._bounds([(self.topic, partition) for partition in asked])
        backs: list[_Backwards[T]] = [_Backwards(tp[1], begin, end) for tp, (begin, end) in bounds.items()]
        while True:
            await self._fill([back for back in backs if not back.found and back.upper > back.begin], read)
            left = [back for back in backs if back.found]
            if not left:
                # A window may be empty: markers of transactions, or compacted.
                if all(back.upper <= back.begin for back in backs):
                    return
                continue
            yield max(left, key=lambda back: (back.found[-1].timestamp_ms, back.partition)).found.pop()

    async def _fill(self, backs: Sequence[_Backwards[T]], read: Callable[[Record], T | None]) -> None:
        if not backs:
            return
        by_partition = {back.partition: back for back in backs}
        until = {(self.topic, back.partition): back.upper for back in backs}
        start = {(self.topic, back.partition): max(back.begin, back.upper - WINDOW_RECORDS) for back in backs}

        async def keep(tp: TP, records: Sequence[Record], _: int) -> None:
            found = by_partition[tp[1]].found
            for record in records:
                if record.offset < until[tp]:
                    found.append(Placed(tp[1], record.offset, record.timestamp, read(record)))

        await self._read(start, until, keep)
        for back in backs:
            back.upper = start[self.topic, back.partition]

    async def _bounds(self, partitions: Sequence[TP]) -> dict[TP, tuple[int, int]]:
        try:
            return await self._reader.bounds(partitions)
        except _FAILURES as error:
            raise LogUnavailable(f"{self.topic}: {error!r}") from error

    async def _read(
        self,
        start: Mapping[TP, int],
        until: Mapping[TP, int],
        keep: Sink,
    ) -> None:
        try:
            async with asyncio.timeout(READ_DEADLINE_S):
                await self._reader.read(start, until, keep)
        except _FAILURES as error:
            raise LogUnavailable(f"{self.topic}: {error!r}") from error


class _Backwards(Generic[T]):
    """One partition, read window by window from its end; `found` is in the log's order."""

    __slots__ = ("begin", "found", "partition", "upper")

    def __init__(self, partition: int, begin: int, upper: int) -> None:
        self.partition = partition
        self.begin = begin
        self.upper = upper
        self.found: deque[Placed[T]] = deque()
