"""The consumer's thread, in which aiokafka fetches for all numbers."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import faust.transport.drivers.aiokafka as driver
from aiokafka import TopicPartition
from aiokafka import errors as kafka_errors

from app.brokers import REFUSALS
from app.engine.assignor import Claim, ColocatedAssignor
from app.engine.coordinators import patient
from app.engine.fetch_sessions import SessionFetcher
from app.engine.leaving import ended_within, leaves_at_once
from app.engine.taking import Taken, take_fetched

if TYPE_CHECKING:
    from app.engine.engine import Engine

__all__ = ["POLL_RECORDS", "UNREADABLE_PAUSE_S", "ConsumerThread"]

log = logging.getLogger("app.engine.consumer")

# With Faust's fixed 1,500 ms a seek waits for the fetch under way: 1.2 s against 0.05 s.
FETCH_MAX_WAIT_MS = 100
# Ten fetches a second are a good part of what an idle worker costs.
QUIET_FETCH_MAX_WAIT_MS = 300
QUIET_AFTER_S = 5.0
POKED_POLL_S = 0.05
UNREADABLE_PAUSE_S = 5.0
METADATA_RETRY_S = 5.0
POLL_RECORDS = 4096
# Numbers are closed by then, and what is left is a courtesy. With a drain (15 s), the last checkpoint (5 s) and a last
# copy of the offsets (2 s) it fits below the limit of a whole stop.
GOODBYE_S = 2.0
SWEEP_S = 0.5


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
        patient(engine.connection.adopt(consumer)._client)
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
        SessionFetcher.adopt(consumer._fetcher, self.app.engine.pace)
        coordinator = consumer._coordinator
        leaves_at_once(coordinator, lambda: self.app.engine.draining)
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

    async def on_thread_stop(self) -> None:
        """Leave the group, and go on whatever becomes of that: the main thread stands until this one has ended."""
        self.app.engine.left = await ended_within(GOODBYE_S, super().on_thread_stop(), "the consumer")

    async def _gather_remaining_tasks(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
            task.add_done_callback(lambda late: late.cancelled() or late.exception())
        if left:
            # Faust's own waits for all of them, but aiokafka swallows a cancellation now and then.
            await asyncio.wait(left, timeout=SWEEP_S)

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
            refused = REFUSALS.met(error, "Read", tp.topic)
            if refused is None:
                log.exception("%s/%d cannot be read at offset %s", tp.topic, tp.partition, place._position)
            again_at = time.monotonic() + UNREADABLE_PAUSE_S
            self.unreadable[tp] = (
                again_at,
                refused or f"{tp.topic}/{tp.partition} cannot be read: offset {place._position}: {error!r}",
            )
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
