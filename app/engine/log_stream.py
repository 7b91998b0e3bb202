"""Reads topics from given offsets to given ends, outside the group, in the order of time as far as partitions keep it.

A partition is read in its order. Over all of them the records are merged by their timestamps, as a slice is: whoever
reads a long log again would else get all of one topic before anything of the next.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka_errors
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from app.engine.errors import EngineError
from app.engine.taking import take_many

if TYPE_CHECKING:
    from app.brokers import Connection
    from app.engine.records import Record
    from app.engine.restore import LogReader

__all__ = ["LogStream", "LogUnreadable", "TimeMerge"]

TP = tuple[str, int]

METADATA_DEADLINE_S: Final = 10.0
OFFSETS_DEADLINE_S: Final = 30.0
STOP_DEADLINE_S: Final = 3.0
SILENCE_S: Final = 30.0
POLL_MS: Final = 100
POLL_RECORDS: Final = 2000
BLOCK_RECORDS: Final = 256
# One such part of each partition is in memory at a time, or one batch of a producer where that is larger.
PART_BYTES: Final = 64 << 10
_FAILURES: Final = (kafka_errors.KafkaError, OSError, TimeoutError)


class LogUnreadable(EngineError):
    """The brokers do not answer, or not sensibly; the same read may succeed later."""

    retriable = True


class TimeMerge:
    """Merges what was fetched, as long as every partition that is not at its end has something to compare.

    Args:
        until: Where each partition ends.
    """

    def __init__(self, until: Mapping[TP, int]) -> None:
        self._until = until
        self._fetched: dict[TP, deque[Record]] = {tp: deque() for tp in until}
        self._heads: list[tuple[int, int, TP]] = []
        self._turn = count()
        self._read_to: dict[TP, int] = {}
        self._empty = dict.fromkeys(until)

    @property
    def hungry(self) -> list[TP]:
        """The partitions that must be fetched before anything can be merged."""
        return list(self._empty)

    def add(self, tp: TP, records: Sequence[Record], position: int) -> None:
        """What was fetched of a hungry partition, and where it goes on."""
        waiting = self._fetched[tp]
        waiting.extend(record for record in records if record.offset < self._until[tp])
        self._read_to[tp] = position
        if waiting:
            self._push(tp)
        if waiting or position >= self._until[tp]:
            self._empty.pop(tp, None)

    def take(self, limit: int) -> list[Record]:
        """The next records, oldest first; none while a partition is hungry."""
        taken: list[Record] = []
        while self._heads and not self._empty and len(taken) < limit:
            _, _, tp = heapq.heappop(self._heads)
            waiting = self._fetched[tp]
            record = waiting.popleft()
            taken.append(record)
            if waiting:
                self._push(tp)
            elif self._read_to[tp] < self._until[tp]:
                self._empty[tp] = None
        return taken

    def _push(self, tp: TP) -> None:
        heapq.heappush(self._heads, (self._fetched[tp][0].timestamp, next(self._turn), tp))


class LogStream:
    """Some topics, as a log that can be read again.

    Args:
        connection: The brokers.
        client_id: Shown in the broker's logs.
        topics: Which.
        reader: Knows the ends.
        gapless: Whether a read breaks off where retention took what it had not read yet; else it goes on behind that.
    """

    def __init__(
        self,
        connection: Connection,
        client_id: str,
        topics: Sequence[str],
        reader: LogReader,
        *,
        gapless: bool = False,
    ) -> None:
        self._connection = connection
        self._client_id = client_id
        self._topics = topics
        self._reader = reader
        self._on_gap = "none" if gapless else "earliest"

    async def bounds(self) -> dict[TP, tuple[int, int]]:
        """First offset and (committed) end of every partition of the topics that there are.

        Raises:
            LogUnreadable: Not known now.
        """
        try:
            return await self._reader.bounds(await asyncio.to_thread(self._partitions))
        except (*_FAILURES, KafkaException) as error:
            raise LogUnreadable(f"the ends of the topics are not known: {error!r}") from error

    def _partitions(self) -> list[TP]:
        found = AdminClient(self._connection.librdkafka()).list_topics(timeout=METADATA_DEADLINE_S).topics
        return [(topic, partition) for topic in self._topics if topic in found for partition in found[topic].partitions]

    async def offsets_at(self, partitions: Sequence[TP], at_ms: int) -> dict[TP, int | None]:
        """Of each partition the first offset of that time or later; None: there is none.

        Raises:
            LogUnreadable: Not known now.
        """
        if not self._reader.committed_only:
            return await self._looked_up(partitions, at_ms)
        consumer = self._consumer()
        try:
            async with asyncio.timeout(OFFSETS_DEADLINE_S):
                await consumer.start()
                found = await consumer.offsets_for_times({TopicPartition(*tp): max(0, at_ms) for tp in partitions})
        except _FAILURES as error:
            raise LogUnreadable(f"the offsets of a time are not known: {error!r}") from error
        finally:
            await _stop(consumer)
        return {
            tp: None if (at := found.get(TopicPartition(*tp))) is None or at.offset < 0 else int(at.offset)
            for tp in partitions
        }

    async def _looked_up(self, partitions: Sequence[TP], at_ms: int) -> dict[TP, int | None]:
        """The same on the embedded cluster, which knows no times and says so by none; a partition of it holds 5 MB."""
        found: dict[TP, int | None] = dict.fromkeys(partitions)
        try:
            bounds = await self._reader.bounds(partitions)
        except _FAILURES as error:
            raise LogUnreadable(f"the offsets of a time are not known: {error!r}") from error
        start = {tp: low for tp, (low, _) in bounds.items()}
        until = {tp: high for tp, (_, high) in bounds.items()}
        async with aclosing(self.read(start, until)) as blocks:
            async for records in blocks:
                for record in records:
                    tp = record.topic, record.partition
                    if record.timestamp >= at_ms and found[tp] is None:
                        found[tp] = record.offset
        return found

    async def read(self, start: Mapping[TP, int], until: Mapping[TP, int]) -> AsyncGenerator[list[Record], None]:
        """All records in between, some at a time; close it when you stop early.

        Raises:
            LogUnreadable: It broke off; what was yielded counts.
        """
        unread = {tp: at for tp, at in start.items() if at < until[tp]}
        if not unread:
            return
        consumer = self._consumer()
        try:
            await consumer.start()
            consumer.assign([TopicPartition(*tp) for tp in unread])
            for tp, at in unread.items():
                consumer.seek(TopicPartition(*tp), at)
            merge = TimeMerge({tp: until[tp] for tp in unread})
            heard_s = time.monotonic()
            while True:
                if records := merge.take(BLOCK_RECORDS):
                    yield records
                    heard_s = time.monotonic()
                elif not merge.hungry:
                    return
                elif await _feed(consumer, merge):
                    heard_s = time.monotonic()
                elif time.monotonic() - heard_s > SILENCE_S:
                    # aiokafka asks on in silence while the leader of a partition is away.
                    raise TimeoutError(f"nothing came for {SILENCE_S:.0f} s")
        except _FAILURES as error:
            raise LogUnreadable(f"the log cannot be read: {error!r}") from error
        finally:
            await _stop(consumer)

    def _consumer(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **self._connection.aiokafka(),
            client_id=self._client_id,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset=self._on_gap,
            isolation_level="read_committed" if self._reader.committed_only else "read_uncommitted",
            max_partition_fetch_bytes=PART_BYTES,
            fetch_max_wait_ms=POLL_MS,
        )


async def _feed(consumer: AIOKafkaConsumer, merge: TimeMerge) -> bool:
    """Fetch for the hungry partitions; whether there was anything."""
    hungry = {TopicPartition(*tp): tp for tp in merge.hungry}
    found = await take_many(consumer, hungry, POLL_RECORDS, POLL_MS / 1000)
    for partition, tp in hungry.items():
        merge.add(tp, found.get(partition, ()), await consumer.position(partition))
    return bool(found) or len(merge.hungry) < len(hungry)


async def _stop(consumer: Any) -> None:
    try:
        async with asyncio.timeout(STOP_DEADLINE_S):
            await consumer.stop()
    except _FAILURES:
        return
