"""The consumer's thread, and how records leave aiokafka there.

In one call for all partitions, one that cannot be read (a corrupt batch, an offset that retention took) makes aiokafka
forget what it has already taken of the others, and their positions have moved. So we take batch by batch, one
partition at a time, and a position moves with each batch that was taken whole.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import faust.transport.drivers.aiokafka as driver
import msgspec
from aiokafka import TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult

from app.engine.assignor import Claim, ColocatedAssignor
from app.engine.coordinators import patient
from app.engine.header_names import keep_fetched_bytes, read_batch_again
from app.engine.records import Header

if TYPE_CHECKING:
    from app.engine.engine import Engine

__all__ = ["POLL_RECORDS", "UNREADABLE_PAUSE_S", "ConsumerThread", "FetchedRecord"]

log = logging.getLogger("app.engine.consumer")

# With Faust's fixed 1,500 ms a seek waits for the fetch under way: 1.2 s against 0.05 s.
FETCH_MAX_WAIT_MS = 100
# A fetch names every partition: ten a second of the 336 of an idle worker are half of what it costs.
QUIET_FETCH_MAX_WAIT_MS = 300
QUIET_AFTER_S = 5.0
POKED_POLL_S = 0.05
UNREADABLE_PAUSE_S = 5.0
METADATA_RETRY_S = 5.0
POLL_RECORDS = 4096


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


keep_fetched_bytes()


class ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]  # Faust ships no types
    """The thread in which aiokafka's consumer runs; puts in our assignor, watches the heartbeats, fetches safely."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.unreadable: dict[tuple[str, int], tuple[float, str]] = {}
        self._found_at = time.monotonic()
        self._next_look: asyncio.TimerHandle | None = None

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        engine: Engine = self.app.engine
        kept = engine.data_dir.membership()
        claim = Claim(engine.instance, engine.url, engine.numbers_count, kept.held, kept.generation)

        def rejoin(delay_s: float) -> None:
            # Passing differences of metadata are the usual cause, so look first.
            consumer._client.force_metadata_update()
            self.thread_loop.call_later(delay_s, consumer._coordinator.request_rejoin)

        def look() -> None:
            consumer._client.force_metadata_update()
            # One chain of looks, however many assignments begin one.
            if self._next_look is not None:
                self._next_look.cancel()
            self._next_look = None
            if self._assignor.missing:
                self._next_look = self.thread_loop.call_later(METADATA_RETRY_S, look)

        assignor = ColocatedAssignor(
            claim,
            lambda: int(consumer._coordinator.generation),
            lambda got: engine.assigned(got, str(consumer._coordinator.member_id)),
            rejoin,
            look,
        )
        patient(consumer._client)
        assignor.bind(consumer._client.cluster.partitions_for_topic)
        # No setting selects an assignor; start() reads these attributes.
        consumer._partition_assignment_strategy = [assignor]
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        # An aborted transaction of a vault service never happened; and ends are those of committed reads.
        consumer._isolation_level = "read_committed" if engine.fenced else "read_uncommitted"
        # Whether skipped records may be skipped is for an opening to say, never for the client.
        consumer._auto_offset_reset = "none"
        self._assignor = assignor
        return consumer

    async def on_start(self) -> None:
        """Wrap the heartbeat (an answer renews the lease from the moment it was asked for) and the leader's deal."""
        await super().on_start()
        consumer = self._consumer
        coordinator = consumer._coordinator
        beat, perform = coordinator._do_heartbeat, coordinator._perform_assignment

        async def heartbeat() -> bool:
            sent = time.monotonic()
            answered = bool(await beat())
            if answered:
                self.app.engine.lease_from(sent)
            return answered

        async def deal_with_fresh_metadata(response: Any) -> Any:
            await consumer._client.force_metadata_update()
            return await perform(response)

        coordinator._do_heartbeat = heartbeat
        coordinator._perform_assignment = deal_with_fresh_metadata

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: Any,
        timeout: float | None = None,  # noqa: ASYNC109  # the signature is Faust's
        max_records: int | None = None,
    ) -> dict[Any, Taken]:
        """Take what was fetched, one partition at a time, and at least `max_records` if they are there."""
        fetcher, now, found = consumer._fetcher, time.monotonic(), {}
        if consumer._closed or fetcher._closed:
            raise driver.ConsumerStoppedError
        if not self.consumer.flow_active or fetcher._subscriptions.reassignment_in_progress:
            await asyncio.sleep(timeout or 0)
            return {}
        left = max_records or POLL_RECORDS
        with fetcher._subscriptions.fetch_context():
            for tp in [tp for tp in fetcher._records if tp in active_partitions]:
                if self.unreadable.get(tp, (0.0, ""))[0] > now:
                    continue
                records = self._take(consumer, tp, left)
                if records or records.end is not None:
                    found[tp] = records
                    left -= len(records)
                if left <= 0:
                    break
            if found:
                self._found_at = now
            quiet = now - self._found_at > QUIET_AFTER_S
            # Of the next fetch; while it waits, what comes is answered at once.
            fetcher._fetch_max_wait_ms = QUIET_FETCH_MAX_WAIT_MS if quiet else FETCH_MAX_WAIT_MS
            if not found and timeout:
                await self._wait_for_a_fetch(fetcher, timeout)
        return found

    def _take(self, consumer: Any, tp: Any, enough: int) -> Taken:
        """Fetched records of one partition, up to what cannot be read; nothing of it is skipped."""
        place = consumer._subscription.subscription.assignment.state_value(tp)
        taken = Taken()
        before = place._position
        try:
            take_fetched(consumer._fetcher, tp, enough, taken)
        except kafka_errors.OffsetOutOfRangeError:
            self.app.engine.out_of_range(tp.topic, tp.partition, place._position)
        except kafka_errors.NoOffsetForPartitionError:
            # Set before our seek, by the look-up of a committed offset that we never use.
            if place._position is not None:
                consumer.seek(TopicPartition(*tp), place._position)
        except Exception as error:
            log.exception("%s/%d cannot be read at offset %s", tp.topic, tp.partition, place._position)
            again_at = time.monotonic() + UNREADABLE_PAUSE_S
            self.unreadable[tp] = (again_at, f"offset {place._position}: {error!r}")
            if place._position is not None:
                consumer.seek(TopicPartition(*tp), place._position)
        else:
            self.unreadable.pop(tp, None)
            if place._position != before:
                taken.begin, taken.end = before, place._position
        return taken

    async def _wait_for_a_fetch(self, fetcher: Any, timeout_s: float) -> None:
        """Until something was fetched, the time is over, or more may be fetched than was asked for.

        A look at a flag twenty times a second is a tenth of what another round of the drain loop costs.
        """
        waiter, ends_s = fetcher._create_fetch_waiter(), time.monotonic() + timeout_s
        done, _ = await asyncio.wait([waiter], timeout=min(timeout_s, POKED_POLL_S))
        while not done and (left_s := ends_s - time.monotonic()) > 0 and not self.consumer.poked:
            done, _ = await asyncio.wait([waiter], timeout=min(left_s, POKED_POLL_S))
        if not done:
            waiter.cancel()
        elif not waiter.cancelled() and waiter.exception() is not None:
            log.warning("fetch: %r", waiter.exception())
