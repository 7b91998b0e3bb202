"""Sends what units and API calls produce, acknowledged by all replicas.

Records of one partition always go through the same producer of a small pool, so their order is kept; a pool,
because aiokafka keeps one produce request in flight per broker and producer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
from aiokafka import errors as kafka_errors
from aiokafka.partitioner import murmur2

from app.engine.connection import Connection
from app.engine.errors import OutputFailed, OutputTooLarge
from app.engine.producer import HardProducer
from app.engine.records import Header
from app.observability import metrics

__all__ = ["Message", "Outputs", "partition_of"]

POOL = 4
# Below the broker's default message.max.bytes of 1 MiB; a larger record goes alone.
BATCH_BYTES = 900_000
REQUEST_BYTES = 2 << 20
# The broker's own answer comes within request_timeout (15 s); beyond both, the outcome is unknown.
SEND_DEADLINE_S = 20.0


@lru_cache(maxsize=65_536)
def partition_of(key: bytes, count: int) -> int:
    """The partition of a key, as Kafka's default partitioner (murmur2) has it."""
    return int(murmur2(key) & 0x7FFFFFFF) % count


class Message(msgspec.Struct, frozen=True, gc=False):
    """One record to send."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()


class Outputs:
    """A pool of idempotent producers.

    Args:
        connection: The brokers.
        client_id: Shown in the broker's logs.
    """

    def __init__(self, connection: Connection, client_id: str) -> None:
        self._connection = connection
        self._client_id = client_id
        self._pool: list[HardProducer | None] = [None] * POOL
        self._locks = [asyncio.Lock() for _ in range(POOL)]
        self._counts: dict[str, int] = {}
        self._closed = False

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
        return partition, await self._send_group(topic, partition, [Message(topic, key, value, headers)])

    async def send_many(self, messages: Sequence[Message]) -> None:
        """Send records, as one batch a partition where they fit, and wait for every acknowledgement.

        Raises:
            OutputFailed: At least one batch was not acknowledged.
        """
        groups: dict[tuple[str, int], list[Message]] = {}
        for message in messages:
            count = self._counts.get(message.topic) or await self._count(message.topic)
            groups.setdefault((message.topic, partition_of(message.key or b"", count)), []).append(message)
        jobs = [self._send_group(topic, partition, group) for (topic, partition), group in groups.items()]
        for result in await asyncio.gather(*jobs, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _send_group(self, topic: str, partition: int, messages: Sequence[Message]) -> int:
        """The offset of the first, once all are acknowledged."""
        slot = partition_of(topic.encode(), POOL) + partition
        producer = await self._producer(slot % POOL)
        try:
            async with asyncio.timeout(SEND_DEADLINE_S):
                offsets = [(await sent).offset for sent in await _enqueue(producer, topic, partition, messages)]
        except kafka_errors.MessageSizeTooLargeError as error:
            await self._drop(slot % POOL, producer)
            raise OutputTooLarge(f"{topic}/{partition} takes no record of that size") from error
        except (kafka_errors.KafkaError, TimeoutError, OSError) as error:
            # A late write may still land, and an idempotent producer with a hole in its sequence is refused for
            # ever: only a new producer id is sound.
            await self._drop(slot % POOL, producer)
            raise OutputFailed(f"{topic}/{partition}: {error!r}") from error
        metrics.OUTPUTS.labels(topic=topic).inc(len(messages))
        return int(offsets[0])

    async def _count(self, topic: str) -> int:
        try:
            async with asyncio.timeout(SEND_DEADLINE_S):
                producer = await self._producer(0)
                count = len(await producer.partitions_for(topic))
        except (kafka_errors.KafkaError, TimeoutError, OSError) as error:
            raise OutputFailed(f"no metadata of topic {topic}: {error!r}") from error
        self._counts[topic] = count
        return count

    async def _producer(self, slot: int) -> HardProducer:
        if (ready := self._pool[slot]) is not None:
            return ready
        async with self._locks[slot]:
            if self._closed:
                raise OutputFailed("the outputs are closed")
            if (ready := self._pool[slot]) is not None:
                return ready
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
            try:
                async with asyncio.timeout(SEND_DEADLINE_S):
                    await producer.start()
            except (kafka_errors.KafkaError, TimeoutError, OSError) as error:
                await producer.hard_close()
                raise OutputFailed(f"no producer: {error!r}") from error
            except BaseException:
                await producer.hard_close()
                raise
            self._pool[slot] = producer
            return producer

    async def _drop(self, slot: int, producer: HardProducer) -> None:
        if self._pool[slot] is producer:
            self._pool[slot] = None
        await producer.hard_close()

    async def close(self) -> None:
        """Close all producers; what was acknowledged stays, nothing else is waited for."""
        self._closed = True
        for slot, producer in enumerate(self._pool):
            if producer is not None:
                await self._drop(slot, producer)


async def _enqueue(
    producer: HardProducer, topic: str, partition: int, messages: Sequence[Message]
) -> list[asyncio.Future[Any]]:
    """Cut into batches; one future each."""
    waiting = []
    batch = producer.create_batch()
    for message in messages:
        if not _append(batch, message):
            batch.close()
            waiting.append(await producer.send_batch(batch, topic, partition=partition))
            batch = producer.create_batch()
            # The first record of a batch always fits; one that is too large is the broker's to refuse.
            _append(batch, message)
    batch.close()
    waiting.append(await producer.send_batch(batch, topic, partition=partition))
    return waiting


def _append(batch: Any, message: Message) -> bool:
    added = batch.append(key=message.key, value=message.value, timestamp=None, headers=list(message.headers))
    return added is not None
