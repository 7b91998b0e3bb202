"""Sends what units and API calls produce, acknowledged by all replicas.

Records of one partition always go through the same queue of a small pool, so their order is kept; a pool, because
aiokafka keeps one produce request in flight per broker and producer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache

from aiokafka.partitioner import murmur2

from app.brokers import Connection
from app.engine import faults
from app.engine.errors import OutputFailed
from app.engine.output_queue import Message, OutputQueue
from app.engine.producer import HardProducer
from app.engine.records import Header

__all__ = ["Message", "Outputs", "partition_of"]

POOL = 4
# Below the broker's default message.max.bytes of 1 MiB; a larger record goes alone.
BATCH_BYTES = 900_000
REQUEST_BYTES = 2 << 20


@lru_cache(maxsize=65_536)
def partition_of(key: bytes, count: int) -> int:
    """The partition of a key, as Kafka's default partitioner (murmur2) has it."""
    return int(murmur2(key) & 0x7FFFFFFF) % count


class Outputs:
    """A pool of queues, each with an idempotent producer.

    Args:
        connection: The brokers.
        client_id: Shown in the broker's logs.
        gather_s: See `OutputQueue`.
    """

    def __init__(self, connection: Connection, client_id: str, gather_s: Callable[[], float] = lambda: 0.0) -> None:
        self._connection = connection
        self._client_id = client_id
        self._pool = [OutputQueue(self._maker(slot), gather_s) for slot in range(POOL)]
        self._counts: dict[str, int] = {}

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[Header] = ()
    ) -> tuple[int, int]:
        """Send one record.

        Returns:
            `(partition, offset)`.

        Raises:
            OutputFailed: Not acknowledged; it may be there all the same.
        """
        partition = partition_of(key or b"", self._counts.get(topic) or await self._count(topic))
        return partition, await self._queue(topic, partition).add(
            topic, partition, [Message(topic, key, value, headers)]
        )

    async def send_many(self, messages: Sequence[Message]) -> None:
        """Send records and wait for every acknowledgement.

        Raises:
            OutputFailed: At least one was not acknowledged.
        """
        counts = self._counts
        groups: dict[tuple[str, int], list[Message]] = {}
        for message in messages:
            topic = message.topic
            count = counts.get(topic) or await self._count(topic)
            groups.setdefault((topic, partition_of(message.key or b"", count)), []).append(message)
        sent = [self._queue(*tp).add(*tp, group) for tp, group in groups.items()]
        failure: OutputFailed | None = None
        try:
            for future in sent:
                try:
                    await future
                    faults.point("unit:sent")
                except OutputFailed as error:
                    failure = failure or error
        except BaseException:
            for future in sent:
                future.cancel()
            raise
        if failure is not None:
            raise failure

    async def send_each(self, messages: Sequence[Message]) -> list[OutputFailed | None]:
        """Send records, in order within a partition; each fails for itself.

        Returns:
            For each, None once it is acknowledged, else why it is not; it may be there all the same.
        """
        unknown: dict[str, OutputFailed] = {}
        for topic in dict.fromkeys(message.topic for message in messages):
            if topic not in self._counts:
                try:
                    await self._count(topic)
                except OutputFailed as error:
                    unknown[topic] = error
        # Nothing is awaited from the first to the last, so that they wait in this order.
        sent = [self._add(message) for message in messages if message.topic not in unknown]
        outcomes = iter(await asyncio.gather(*sent, return_exceptions=True))
        told = [unknown[m.topic] if m.topic in unknown else next(outcomes) for m in messages]
        return [_failure(outcome) for outcome in told]

    def _add(self, message: Message) -> asyncio.Future[int]:
        partition = partition_of(message.key or b"", self._counts[message.topic])
        return self._queue(message.topic, partition).add(message.topic, partition, [message])

    async def close(self) -> None:
        """Close all producers; what was acknowledged stays, nothing else is waited for."""
        await asyncio.gather(*(queue.close() for queue in self._pool))

    def _queue(self, topic: str, partition: int) -> OutputQueue:
        return self._pool[(partition_of(topic.encode(), POOL) + partition) % POOL]

    async def _count(self, topic: str) -> int:
        self._counts[topic] = count = await self._pool[0].partitions(topic)
        return count

    def _maker(self, slot: int) -> Callable[[], HardProducer]:
        def make() -> HardProducer:
            producer = HardProducer(
                **self._connection.aiokafka(),
                client_id=f"{self._client_id}-out-{slot}",
                acks="all",
                enable_idempotence=True,
                compression_type="zstd",
                max_batch_size=BATCH_BYTES,
                max_request_size=REQUEST_BYTES,
                request_timeout_ms=15_000,
                retry_backoff_ms=50,
            )
            return self._connection.adopt(producer)

        return make


def _failure(outcome: int | BaseException) -> OutputFailed | None:
    if isinstance(outcome, OutputFailed):
        return outcome
    if isinstance(outcome, BaseException):
        raise outcome
    return None
