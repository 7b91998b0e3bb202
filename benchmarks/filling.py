"""Fills a topic before anything reads it."""

from collections.abc import Iterable
from typing import Final

from confluent_kafka import Producer

from benchmarks.failed import BenchmarkFailed

__all__ = ["fill"]

FLUSH_TIMEOUT_S: Final = 120.0
POLL_EVERY_RECORDS: Final = 5_000
BROKER_FULL_S: Final = 0.1


def fill(
    brokers: str,
    topic: str,
    records: Iterable[tuple[int, bytes, bytes]],
    headers: Iterable[tuple[str, bytes]] = (),
    *,
    compression: str = "none",
    batch_bytes: int = 500_000,
) -> None:
    """Write the records, each a partition, a key and a value, and wait until they are all there.

    Raises:
        BenchmarkFailed: The broker has not taken them all.
    """
    producer = Producer(
        {
            "bootstrap.servers": brokers,
            "log_level": 0,
            "linger.ms": 50,
            "compression.type": compression,
            "batch.size": batch_bytes,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 256_000,
        }
    )
    count, same_headers = 0, list(headers)
    for partition, key, value in records:
        while True:
            try:
                producer.produce(topic, value, key, partition=partition, headers=same_headers)
                break
            except BufferError:
                producer.poll(BROKER_FULL_S)
        if count % POLL_EVERY_RECORDS == 0:
            producer.poll(0)
        count += 1
    if left := producer.flush(FLUSH_TIMEOUT_S):
        raise BenchmarkFailed(f"the broker did not take {left} of {count} records within {FLUSH_TIMEOUT_S:.0f} s")
