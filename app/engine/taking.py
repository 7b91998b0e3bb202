"""How records leave aiokafka: batch by batch, one partition at a time.

In one call for all partitions, one that cannot be read (a corrupt batch, an offset that retention took) makes aiokafka
forget what it has already taken of the others, and their positions have moved; and a header name that is not UTF-8
stands its partition for ever. Here a position moves with each batch that was taken whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec
from aiokafka import errors as kafka_errors
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult

from app.engine.header_names import keep_fetched_bytes, read_batch_again
from app.engine.records import Header

__all__ = ["FetchedRecord", "Taken", "take_fetched", "take_many"]


class FetchedRecord(msgspec.Struct, gc=False):
    """See `records.Record`. Half the cost of aiokafka's own."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]


class Taken(list[FetchedRecord]):
    """What was fetched of one partition, in order.

    Attributes:
        begin: Where the partition was read before.
        end: Where it is read next: beyond the last record there may be transaction markers, and whole transactions
            that were aborted.
    """

    begin: int | None = None
    end: int | None = None


def take_fetched(fetcher: Any, tp: Any, enough: int, into: list[FetchedRecord]) -> None:
    """Move fetched batches of a partition into a list, at least `enough` records if they are there.

    Raises:
        KafkaError: What the broker answered for this partition, or the first batch that is corrupt; everything before
            it was taken.
    """
    result = fetcher._records[tp]
    used_up = True
    try:
        if type(result) is not FetchResult:
            result.check_raise()
        elif result.check_assignment(tp) and result.has_more():
            # The iterator that is not used keeps what was fetched in a cycle until a garbage collection.
            result._partition_records._records_iterator.close()
            while len(into) < enough and result._partition_records._records.has_next():
                into += _next_batch(result._partition_records)
                result._update_position()
            used_up = not result._partition_records._records.has_next()
    finally:
        if used_up:
            # aiokafka fetches only partitions of which it holds nothing.
            del fetcher._records[tp]
            fetcher._notify(fetcher._wait_consume_future)


def _next_batch(fetched: Any) -> list[FetchedRecord]:
    """Records of the next batch, none of a control batch or of one whose transaction was aborted."""
    topic, partition = fetched._tp
    batch = fetched._records.next_batch()
    if not batch.validate_crc():
        raise kafka_errors.CorruptRecordException(f"the batch at offset {batch.base_offset} fails its checksum")
    aborted = False
    if fetched._isolation_level == READ_COMMITTED and batch.producer_id is not None:
        fetched._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch and fetched._contains_abort_marker(batch):
            fetched._aborted_producers.discard(batch.producer_id)
        aborted = batch.is_transactional and batch.producer_id in fetched._aborted_producers
    records: list[FetchedRecord] = []
    if not aborted and not batch.is_control_batch:
        try:
            records = _records_of(batch, topic, partition)
        except UnicodeDecodeError:
            records = _records_of(read_batch_again(fetched._records, batch.base_offset), topic, partition)
        # A fetch gives whole batches, also when it begins inside of one.
        if records and records[0].offset < fetched.next_fetch_offset:
            records = [record for record in records if record.offset >= fetched.next_fetch_offset]
    # Beyond the batch, not beyond its last record: compaction may have removed that one.
    fetched.next_fetch_offset = batch.next_offset
    return records


def _records_of(batch: Iterable[Any], topic: str, partition: int) -> list[FetchedRecord]:
    """Its records. Neighbours nearly always have the same headers; that of one is kept, and stays in the cache."""
    records = []
    fetched: list[Header] = []
    headers: Sequence[Header] = ()
    for r in batch:
        own = r.headers
        if own != fetched:
            fetched = own
            headers = tuple(own)
        records.append(FetchedRecord(topic, partition, r.offset, r.timestamp, r.key, r.value, headers))
    return records


async def take_many(
    consumer: Any, partitions: Collection[Any], enough: int, timeout_s: float
) -> dict[Any, list[FetchedRecord]]:
    """Fetched records of partitions that are assigned without a group, at least `enough` if they are there.

    Waits up to the timeout if there is nothing yet; then, and where only control records came, the answer is empty.

    Raises:
        KafkaError: What the broker answered for a partition, or a corrupt batch.
    """
    fetcher = consumer._fetcher
    found: dict[Any, list[FetchedRecord]] = {}
    with fetcher._subscriptions.fetch_context():
        if not any(tp in fetcher._records for tp in partitions):
            waiter = fetcher._create_fetch_waiter()
            try:
                done, _ = await asyncio.wait([waiter], timeout=timeout_s)
            finally:
                waiter.cancel()
            for one in done:
                one.result()
        for tp in [tp for tp in fetcher._records if tp in partitions]:
            records: list[FetchedRecord] = []
            try:
                take_fetched(fetcher, tp, enough, records)
            except kafka_errors.KafkaError:
                # What was taken has moved positions; the error comes again with the next fetch.
                if not records and not found:
                    raise
                enough = 0
            if records:
                found[tp] = records
                enough -= len(records)
            if enough <= 0:
                break
    return found


keep_fetched_bytes()
