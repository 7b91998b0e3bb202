"""Records that no well-behaved client writes, put on a real broker."""

import asyncio
import struct
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c

from app.engine import Header


def send_with_header_name(
    brokers: str,
    topic: str,
    partition: int,
    name: bytes,
    *,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[Header] = (),
) -> None:
    """One record whose last header has a name of any bytes, and no value."""
    asyncio.run(
        _send(brokers, topic, partition, name, key=key, value=value, headers=[*headers, ("n" * len(name), None)])
    )


async def _send(brokers: str, topic: str, partition: int, name: bytes, **record: Any) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=brokers)
    await producer.start()
    try:
        batch = producer.create_batch()
        batch.append(timestamp=None, **record)
        data = bytearray(bytes(batch._build()).replace(b"n" * len(name), name))
        struct.pack_into(">I", data, 17, calc_crc32c(memoryview(bytes(data[21:]))))
        batch._buffer = bytes(data)
        await (await producer.send_batch(batch, topic, partition=partition))
    finally:
        await producer.stop()
