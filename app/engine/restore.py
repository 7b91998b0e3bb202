"""Reads changelogs: one loop, used to restore a number's stores and to keep a table in memory on every worker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Generic, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka_errors

from app.brokers import REFUSALS, Connection
from app.engine import faults
from app.engine.records import Record
from app.engine.store import Store
from app.engine.table import Table
from app.engine.taking import take_many

__all__ = ["LogReader", "Replica", "apply_records", "tail"]

log = logging.getLogger("app.engine.restore")

R = TypeVar("R")
TP = tuple[str, int]
Sink = Callable[[TP, Sequence[Record], int], Awaitable[None]]
Take = Callable[[Any, Collection[Any], int, float], Awaitable[Mapping[Any, Sequence[Record]]]]

RETRY_MIN_S = 0.2
RETRY_MAX_S = 5.0
OFFSETS_DEADLINE_S = 10.0
POLL_RECORDS = 10_000
# RocksDB writes run on the event loop; others want their turn.
ROWS_A_WRITE = 1_000
# A restore mostly waits for the position to pass a control record, which nothing announces.
RESTORE_POLL_MS = 50
FOLLOW_POLL_MS = 500
# A broker that does not answer is left for another one: with aiokafka's 40 s, and 5 minutes for its metadata, a replica
# would be that old while what is read by it goes on.
REQUEST_TIMEOUT_MS = 5_000
METADATA_MAX_AGE_MS = 30_000
FRESH_INTERVAL_S = 1.0
FRESH_FOR_S = 5.0
# Asked for ends, aiokafka learns of unknown topics one a retry: with its 100 ms the 28 source topics cost 2.6 s.
ENDS_BACKOFF_MS = 10


def _consumer(
    connection: Connection, client_id: str, *, committed_only: bool, retry_backoff_ms: int = 100
) -> AIOKafkaConsumer:
    return connection.adopt(
        AIOKafkaConsumer(
            **connection.aiokafka(),
            client_id=client_id,
            retry_backoff_ms=retry_backoff_ms,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed" if committed_only else "read_uncommitted",
            max_partition_fetch_bytes=4 << 20,
            fetch_max_wait_ms=100,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
        )
    )


async def tail(
    consumer: AIOKafkaConsumer,
    start: Mapping[TP, int],
    until: Mapping[TP, int] | None,
    sink: Sink,
    take: Take = take_many,
) -> None:
    """Read partitions from `start`, handing records and the next position to `sink`.

    Args:
        until: Where to stop, a partition; None: never. Control records and compacted gaps move the position without
            records, so positions are compared, never counts.
        take: Takes what was fetched.
    """
    unread = {TopicPartition(*tp): tp for tp, offset in start.items() if until is None or offset < until[tp]}
    if not unread:
        return
    consumer.assign(list(unread))
    for partition, tp in unread.items():
        consumer.seek(partition, start[tp])
    poll_ms = FOLLOW_POLL_MS if until is None else RESTORE_POLL_MS
    while unread:
        found = await take(consumer, unread, POLL_RECORDS, poll_ms / 1000)
        for partition, tp in list(unread.items()):
            records = found.get(partition, ())
            position = await consumer.position(partition)
            if records or until is None or position >= until[tp]:
                await sink(tp, records, position)
            if until is not None and position >= until[tp]:
                del unread[partition]


class LogReader:
    """Private, group-less reads: ends, beginnings, and restores a few at a time.

    Attributes:
        committed_only: False on the embedded cluster, where committed reads hang.
    """

    def __init__(self, connection: Connection, client_id: str) -> None:
        self._connection = connection
        self._client_id = client_id
        self.committed_only = True
        self._shared: AIOKafkaConsumer | None = None
        self._lock = asyncio.Lock()
        self._slots = asyncio.Semaphore(4)

    async def bounds(self, partitions: Sequence[TP]) -> dict[TP, tuple[int, int]]:
        """First offset and (committed) end of each partition.

        Raises:
            KafkaError, TimeoutError: Not known now.
        """
        wanted = [TopicPartition(*tp) for tp in partitions]
        async with self._lock:
            try:
                async with asyncio.timeout(OFFSETS_DEADLINE_S):
                    consumer = await self._started()
                    begin = await consumer.beginning_offsets(wanted)
                    end = await consumer.end_offsets(wanted)
            except BaseException:
                await self._forget()
                raise
        return {(tp.topic, tp.partition): (begin[tp], end[tp]) for tp in wanted}

    async def _started(self) -> AIOKafkaConsumer:
        if self._shared is None:
            consumer = _consumer(
                self._connection,
                f"{self._client_id}-ends",
                committed_only=self.committed_only,
                retry_backoff_ms=ENDS_BACKOFF_MS,
            )
            try:
                await consumer.start()
            except BaseException:
                await _stop(consumer)
                raise
            self._shared = consumer
        return self._shared

    async def _forget(self) -> None:
        consumer, self._shared = self._shared, None
        if consumer is not None:
            await _stop(consumer)

    async def read(self, start: Mapping[TP, int], until: Mapping[TP, int], sink: Sink) -> None:
        """`tail` with a consumer of its own; at most four at once."""
        if all(start[tp] >= until[tp] for tp in start):
            return
        async with self._slots:
            consumer = _consumer(self._connection, f"{self._client_id}-restore", committed_only=self.committed_only)
            try:
                await consumer.start()
                await tail(consumer, start, until, sink)
            finally:
                await _stop(consumer)

    async def follow(self, start: Mapping[TP, int], sink: Sink, client_id: str) -> None:
        """`tail` for ever, with a consumer of its own; returns only by an exception."""
        consumer = _consumer(self._connection, client_id, committed_only=self.committed_only)
        try:
            await consumer.start()
            await tail(consumer, start, None, sink)
        finally:
            await _stop(consumer)

    async def close(self) -> None:
        """Stop the shared consumer."""
        async with self._lock:
            await self._forget()


async def _stop(consumer: AIOKafkaConsumer) -> None:
    try:
        async with asyncio.timeout(3):
            await consumer.stop()
    except (TimeoutError, kafka_errors.KafkaError, OSError) as error:
        log.warning("a reader did not stop cleanly: %r", error)


async def apply_records(
    store: Store, agent: str, table: Table[Any], changelog: str, records: Sequence[Record], position: int
) -> None:
    """Write changelog records into an agent's store, and yield to the loop.

    A home changelog may be shared, so only this agent's engine rows are taken; what the store has already is skipped.
    """
    applied = store.applied(changelog)
    name = b"/" + agent.encode()
    for start in range(0, len(records), ROWS_A_WRITE):
        rows: dict[bytes, bytes | None] = {}
        chunk = records[start : start + ROWS_A_WRITE]
        for record in chunk:
            key = record.key or b""
            if record.offset < applied:
                continue
            if key[:1] != b"\x00":
                rows[table.prefix_byte + key] = record.value
            elif key.endswith(name):
                rows[key] = record.value
        store.write(rows, {changelog: max(chunk[-1].offset + 1, applied)}, current=False)
        faults.point("restore:rows")
        await asyncio.sleep(0)
    if position > store.applied(changelog):
        store.write({}, {changelog: position}, current=False)


class Replica(Generic[R]):
    """A table in memory on every worker, kept by reading its changelog for ever.

    Args:
        table: The table.
        topic: Its changelog.
        count: Its partitions.

    Attributes:
        rows: By row key.
        ready: Whether everything that was in the changelog at the start has been read.
        fresh_at: When it was last known to have everything that was in the changelog then; monotonic seconds.
    """

    def __init__(self, table: Table[R], topic: str, count: int) -> None:
        self.table = table
        self.rows: dict[bytes, R] = {}
        self._topic = topic
        self._next = dict.fromkeys(((topic, p) for p in range(count)), 0)
        self._listeners: list[Callable[[bytes, R | None], None]] = []
        self._moved = asyncio.Condition()
        self.ready = False
        self.fresh_at = float("-inf")

    @property
    def fresh(self) -> bool:
        """Whether that was a moment ago."""
        return time.monotonic() - self.fresh_at < FRESH_FOR_S

    def subscribe(self, listener: Callable[[bytes, R | None], None]) -> None:
        """Call with key and row (None when deleted) after each change, and now for every row there is."""
        self._listeners.append(listener)
        for key, row in self.rows.items():
            listener(key, row)

    async def wait_for(self, predicate: Callable[[], bool], timeout_s: float) -> bool:
        """Whether the predicate held, looked at after each change, within the time."""
        try:
            async with asyncio.timeout(timeout_s), self._moved:
                await self._moved.wait_for(predicate)
        except TimeoutError:
            return predicate()
        return True

    @property
    def partitions(self) -> list[TP]:
        """All partitions of the changelog."""
        return list(self._next)

    async def caught_up(self, ends: Mapping[TP, int], timeout_s: float) -> bool:
        """Whether every partition was read up to these ends within the time."""
        return await self.wait_for(lambda: all(self._next[tp] >= end for tp, end in ends.items()), timeout_s)

    async def run(self, reader: LogReader, client_id: str) -> None:
        """Follow the changelog until cancelled; a broker that is away is waited for."""
        delay_s = RETRY_MIN_S
        while True:
            try:
                await reader.follow(self._next, self._apply, client_id)
            except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
                level = logging.WARNING if REFUSALS.met(error, "Read", self._topic) is None else logging.DEBUG
                log.log(level, "replica of %s: again in %.1f s: %r", self._topic, delay_s, error)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_MAX_S)

    async def keep_fresh(self, reader: LogReader) -> None:
        """Compare with the ends of the changelog, again and again; a broker that is away is waited for."""
        while True:
            asked_at = time.monotonic()
            try:
                ends = {tp: end for tp, (_, end) in (await reader.bounds(self.partitions)).items()}
                if await self.caught_up(ends, RETRY_MAX_S):
                    self.fresh_at, self.ready = asked_at, True
            except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
                level = logging.INFO if REFUSALS.met(error, "Read", self._topic) is None else logging.DEBUG
                log.log(level, "replica of %s: its ends are not known now: %r", self._topic, error)
            await asyncio.sleep(FRESH_INTERVAL_S if self.ready else RETRY_MIN_S)

    async def _apply(self, tp: TP, records: Sequence[Record], position: int) -> None:
        if not records and self._next[tp] == position:
            return
        for record in records:
            self._apply_one(record)
        async with self._moved:
            self._next[tp] = position
            self._moved.notify_all()

    def _apply_one(self, record: Record) -> None:
        key = record.key or b""
        if key[:1] == b"\x00":
            return
        row = None if record.value is None else self.table.decode(record.value)
        if row is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = row
        for listener in self._listeners:
            listener(key, row)
