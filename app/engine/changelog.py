"""Writes one number's rows and positions to its changelogs, as one transaction that fences former owners.

`FencedChangelog` is what every broker gets. `PlainChangelog` is for the embedded cluster alone, which knows neither
fencing nor committed reads: there, and only there, one worker runs, and nothing is promised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiokafka import errors as kafka_errors

from app.brokers import Connection
from app.engine import faults
from app.engine.errors import CheckpointFailed, NotMember, ProducerTaken
from app.engine.producer import FencedProducer, HardProducer, ProducerId

__all__ = ["Changelog", "FencedChangelog", "PlainChangelog", "Write"]

# Begin, send and commit together. Below the transaction timeout, so that the broker never aborts a transaction that
# we still wait for; inside it aiokafka itself repeats requests under the same id and epoch, which is safe.
WRITE_DEADLINE_S = 20.0
TRANSACTION_TIMEOUT_MS = 60_000
OPEN_DEADLINE_S = 5.0
BATCH_BYTES = 900_000
_RECORD_OVERHEAD_BYTES = 40
_NO_OUTCOME = (kafka_errors.KafkaError, TimeoutError, OSError, faults.FaultInjected)
# What aiokafka says, of a state or by an assertion, when the transaction has failed while more was handed over.
_FAILED_ON_THE_WAY = (kafka_errors.IllegalOperation, AssertionError)

Item = tuple[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class Write:
    """Records for one changelog partition, in order."""

    topic: str
    partition: int
    items: Sequence[Item]


class Changelog(Protocol):
    """One number's way into its changelogs."""

    async def open(self, may: Callable[[], Awaitable[bool]]) -> None:
        """Become the only writer.

        Raises:
            NotMember, ProducerTaken, KafkaError, TimeoutError: Not opened; ask the group and try again.
        """

    async def write(self, writes: Sequence[Write]) -> dict[str, int]:
        """All of it or nothing.

        Returns:
            The next offset of each changelog topic.

        Raises:
            CheckpointFailed: The outcome is unknown; drop everything, open again and read the log.
        """

    async def drop(self) -> None:
        """Close at once."""


class FencedChangelog:
    """A transactional producer a number; its transactional id is `{app id}-{number}`."""

    def __init__(self, connection: Connection, app_id: str, number: int) -> None:
        self._connection = connection
        self._transactional_id = f"{app_id}-{number}"
        self._producer: FencedProducer | None = None
        self._last: ProducerId | None = None

    async def open(self, may: Callable[[], Awaitable[bool]]) -> None:
        """See `Changelog.open`: the first opening of an assignment is plain, a later one cannot fence an heir."""
        producer = FencedProducer(
            **self._connection.aiokafka(),
            client_id=self._transactional_id,
            transactional_id=self._transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            compression_type="zstd",
            max_batch_size=BATCH_BYTES + 100_000,
            max_request_size=2 << 20,
            request_timeout_ms=15_000,
            retry_backoff_ms=20,
        )
        self._connection.adopt(producer)
        try:
            async with asyncio.timeout(OPEN_DEADLINE_S):
                await producer.open(self._last, may)
        except ProducerTaken:
            # Nobody else may own it while the group confirms us, so the next try takes it plainly.
            self._last = None
            await producer.hard_close()
            raise
        except BaseException:
            await producer.hard_close()
            raise
        self._last = producer.producer_id
        self._producer = producer

    async def write(self, writes: Sequence[Write]) -> dict[str, int]:
        """See `Changelog.write`."""
        producer = self._producer
        if producer is None:
            raise CheckpointFailed("the changelog is not open")
        try:
            async with asyncio.timeout(WRITE_DEADLINE_S):
                await producer.begin_transaction()
                faults.point("checkpoint:begun")
                waiting = [(w.topic, await _enqueue(producer, w)) for w in writes]
                faults.point("checkpoint:sending")
                offsets = {topic: await _ends(futures) for topic, futures in waiting}
                faults.point("checkpoint:sent")
                await producer.commit_transaction()
        except (*_NO_OUTCOME, *_FAILED_ON_THE_WAY) as error:
            raise CheckpointFailed(f"{self._transactional_id}: {error!r}") from producer.refused_for or error
        return offsets

    async def drop(self) -> None:
        """See `Changelog.drop`."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.hard_close()


class PlainChangelog:
    """An idempotent producer, rows first and positions last; only for the embedded cluster."""

    def __init__(self, connection: Connection, app_id: str, number: int) -> None:
        self._connection = connection
        self._client_id = f"{app_id}-{number}"
        self._producer: HardProducer | None = None

    async def open(self, may: Callable[[], Awaitable[bool]]) -> None:
        """See `Changelog.open`; nobody is fenced."""
        if not await may():
            raise NotMember("the group did not confirm us")
        producer = HardProducer(
            **self._connection.aiokafka(),
            client_id=self._client_id,
            acks="all",
            max_batch_size=BATCH_BYTES + 100_000,
            request_timeout_ms=10_000,
        )
        try:
            async with asyncio.timeout(OPEN_DEADLINE_S):
                await producer.start()
        except BaseException:
            await producer.hard_close()
            raise
        self._producer = producer

    async def write(self, writes: Sequence[Write]) -> dict[str, int]:
        """See `Changelog.write`; one write after another, so that the positions are the last thing to land."""
        if self._producer is None:
            raise CheckpointFailed("the changelog is not open")
        offsets: dict[str, int] = {}
        try:
            async with asyncio.timeout(WRITE_DEADLINE_S):
                faults.point("checkpoint:begun")
                for write in writes:
                    offsets[write.topic] = await _ends(await _enqueue(self._producer, write))
                    faults.point("checkpoint:sending")
                faults.point("checkpoint:sent")
        except _NO_OUTCOME as error:
            raise CheckpointFailed(f"{self._client_id}: {error!r}") from error
        return offsets

    async def drop(self) -> None:
        """See `Changelog.drop`."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.hard_close()


async def _enqueue(producer: HardProducer, write: Write) -> list[tuple[Any, int]]:
    """Futures of the batches of one write, with the record count of each."""
    futures: list[tuple[Any, int]] = []
    batch, count, size = producer.create_batch(), 0, 0
    for key, value in write.items:
        weight = len(key) + len(value or b"") + _RECORD_OVERHEAD_BYTES
        if count and size + weight > BATCH_BYTES:
            batch.close()
            futures.append((await _hand_over(producer, batch, write), count))
            batch, count, size = producer.create_batch(), 0, 0
        if batch.append(key=key, value=value, timestamp=None) is None:
            raise CheckpointFailed(f"{write.topic}: a row of {weight} bytes does not fit a batch")
        count, size = count + 1, size + weight
    batch.close()
    futures.append((await _hand_over(producer, batch, write), count))
    return futures


async def _hand_over(producer: HardProducer, batch: Any, write: Write) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = await producer.send_batch(batch, write.topic, partition=write.partition)
    # The first failure is told and the others are not asked for; asyncio would log each of them, with its stack.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


async def _ends(futures: Sequence[tuple[Any, int]]) -> int:
    """The offset after the last record."""
    end = 0
    for future, count in futures:
        end = (await future).offset + count
    return end
