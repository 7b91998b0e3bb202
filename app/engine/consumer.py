"""Faust's consumer, made to deliver slices and never to lose one.

Every private name of Faust and aiokafka that we use is here, in `fetch_sessions.py`, `fetching.py`, `leaving.py`,
`taking.py`, `header_names.py` and `producer.py`; `tests/unit/engine/test_private_names.py` has one test for each.

What is different from the stock consumer, and why:
- It fetches only partitions that are open and have room, so nothing ever blocks the one drain loop.
- The drain loop itself seeks each partition once an opening, before its first fetch: a fetch begun before a rebalance
  returns records of the new assignment, and dropping them would leave the position beyond them for ever.
- Faust's acknowledgements are not kept; trackers are.
- Offsets, seeks and heartbeats go straight to the consumer's thread: Faust's method queue has two workers, and both
  may be waiting for the end of the rebalance that waits for us.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import faust
import faust.transport.drivers.aiokafka as driver
from aiokafka import TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.structs import OffsetAndMetadata
from faust.events import Event
from faust.serializers.schemas import Schema
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode import Service

from app.brokers import REFUSALS
from app.engine import faults
from app.engine.fetch_pace import ThreadClock
from app.engine.fetching import UNREADABLE_PAUSE_S, ConsumerThread

if TYPE_CHECKING:
    from app.engine.assignor import ColocatedAssignor
    from app.engine.engine import Engine
    from app.engine.records import Slice

__all__ = ["ConsumerApp", "SliceConsumer", "SliceSchema", "SliceTransport"]

log = logging.getLogger("app.engine.consumer")

T = TypeVar("T")

POLL_S = 0.2
IDLE_POLL_S = 0.2
THREAD_DEADLINE_S = 30.0
HEARTBEAT_DEADLINE_S = 3.0
WATCH_INTERVAL_S = 1.0
UNREADABLE_FOR_S = 2 * UNREADABLE_PAUSE_S


class SliceSchema(Schema):  # type: ignore[misc]  # Faust ships no types
    """Hands the agent what the consumer made, untouched."""

    def compile(self, app: Any, **_: Any) -> Any:
        """A decoder that decodes nothing."""

        async def decode(message: Any, *, propagate: bool = False) -> Event:
            del propagate
            return Event(app, None, message.value, message.headers, message)

        return decode


class SliceConsumer(driver.Consumer):  # type: ignore[misc]  # Faust ships no types
    """See the module."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.engine: Engine = self.app.engine
        self.engine.consumer = self
        self._poke = asyncio.Event()
        self._clock = ThreadClock()

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _in_thread(self, work: Coroutine[Any, Any, T], deadline_s: float = THREAD_DEADLINE_S) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._thread.thread_loop)
        async with asyncio.timeout(deadline_s):
            return await asyncio.wrap_future(future)

    @property
    def _coordinator(self) -> Any:
        return self._thread._consumer._coordinator

    # -- the group

    @property
    def assignor(self) -> ColocatedAssignor | None:
        """Our assignor, once the consumer exists."""
        return getattr(self._thread, "_assignor", None)

    @property
    def generation(self) -> int:
        """The generation we are a member of, -1 for none."""
        return int(self._coordinator.generation)

    async def confirm(self, generation: int) -> bool:
        """One heartbeat of that generation, answered now.

        aiokafka also answers True while the group is rebalancing, hence the look at the generation after it.
        """
        coordinator = self._coordinator

        def ours() -> bool:
            return bool(coordinator.generation == generation and not coordinator._rejoin_needed_fut.done())

        async def ask() -> bool:
            if not ours():
                return False
            await coordinator.ensure_coordinator_known()
            return bool(await coordinator._do_heartbeat()) and ours()

        try:
            return await self._in_thread(ask(), HEARTBEAT_DEADLINE_S)
        except (TimeoutError, kafka_errors.KafkaError):
            return False

    async def committed(self, partitions: list[tuple[str, int]]) -> dict[tuple[str, int], int | None]:
        """The group's offsets, in one request."""
        wanted = [TopicPartition(*tp) for tp in partitions]
        got = await self._in_thread(self._coordinator.fetch_committed_offsets(wanted))
        return {
            tp: (got[w].offset if w in got and got[w].offset >= 0 else None)
            for tp, w in zip(partitions, wanted, strict=True)
        }

    async def copy_offsets(self, offsets: Mapping[tuple[str, int], int], deadline_s: float) -> None:
        """Commit to the group."""
        values = {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
        if values:
            await self._in_thread(self._thread._consumer.commit(values), deadline_s)

    @property
    def unreadable(self) -> dict[tuple[str, int], str]:
        """Partitions that cannot be read now, with the reason."""
        # One that is with another worker by now, or was not met again, says nothing any more.
        now, mine = time.monotonic(), self.engine.reads
        found = list(self._thread.unreadable.items())
        return {tuple(tp): why for tp, (at, why) in found if mine(tuple(tp)) and now < at + UNREADABLE_FOR_S}

    def end_of(self, tp: tuple[str, int]) -> int | None:
        """The partition's end as of the last fetch, None before the first."""
        try:
            end = self._thread._consumer.highwater(TopicPartition(*tp))
        except (kafka_errors.KafkaError, AssertionError, AttributeError):
            return None
        return None if end is None else int(end)

    @Service.task  # type: ignore[untyped-decorator]
    async def _watch_coordinator(self) -> None:
        """Faust reads the fetcher, not the consumer, so nobody else consumes the coordinator's errors."""
        while not self.should_stop:
            await self.sleep(WATCH_INTERVAL_S)
            consumer = self._thread._consumer
            if consumer is None or consumer._coordinator is None:
                continue
            error = await self._check_errors()
            refused = None if error is None else REFUSALS.met(error, "Read", self.engine.config.app_id)
            # A plain KafkaError is what aiokafka makes of an error that has ended the coordination for good.
            mends = refused is not None and type(error) is not kafka_errors.KafkaError
            self.engine.coordinator_error(refused or (None if error is None else repr(error)), mends=mends)

    async def _check_errors(self) -> Exception | None:
        async def check() -> Exception | None:
            coordinator = self._coordinator
            try:
                coordinator.check_errors()
                if self._thread._consumer._fetcher.error_future.done():
                    return RuntimeError("the fetcher has ended")
            except Exception as error:  # noqa: BLE001  # whatever ended the coordination task
                beats = coordinator._heartbeat_task
                if isinstance(error, kafka_errors.GroupAuthorizationFailedError) and beats and beats.done():
                    # It would say the same for ever, and nobody but a join begins another one.
                    coordinator._heartbeat_task = None
                    coordinator.request_rejoin()
                return error
            return None

        try:
            return await self._in_thread(check(), HEARTBEAT_DEADLINE_S)
        except TimeoutError:
            return TimeoutError("the consumer's thread does not answer")

    async def subscribe(self, topics: Iterable[str]) -> None:
        """With this the join begins."""
        await self.engine.before_join()
        await super().subscribe(topics)

    # -- fetching

    def poke(self) -> None:
        """Something may be fetched that could not before."""
        self._poke.set()

    @property
    def poked(self) -> bool:
        """Whether that was so since the last look at what may be fetched; read in the consumer's thread."""
        return self._poke.is_set()

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                await self._drain_once()
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            # Faust's fetcher takes it for a crash of the whole application while its group rebalances.
            if not self.engine.draining:
                raise

    async def _drain_once(self) -> None:
        self._poke.clear()
        self.engine.pace.note(time.monotonic(), self._clock.now_s())
        wanted = self.engine.intake.wanted() if self.flow_active else {}
        if not wanted:
            await self._idle()
            return
        try:
            unplaced = {tp: t for tp, t in wanted.items() if not t.placed}
            if unplaced:
                await self._in_thread(self._place({tp: t.start for tp, t in unplaced.items()}))
                faults.point("restore:placed")
                for tracker in unplaced.values():
                    tracker.placed = True
                return
            records = await self._thread.getmany(set(wanted), timeout=POLL_S)
        except (kafka_errors.KafkaError, kafka_errors.IllegalStateError, TimeoutError) as error:
            log.info("fetch: %r", error)
            for tracker in wanted.values():
                tracker.unplace()
            await asyncio.sleep(IDLE_POLL_S)
            return
        fetched = {(tp.topic, tp.partition): taken for tp, taken in records.items()}
        slices = self.engine.intake.slices(fetched, wanted)
        self.engine.intake.pass_by(fetched, wanted)
        for handed in self._by_agent(slices):
            await self.callback(self._message(handed))
        await asyncio.sleep(0)

    async def _idle(self) -> None:
        with contextlib.suppress(TimeoutError):
            await self._in_thread(self._alive())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE_POLL_S):
                await self._poke.wait()

    async def _alive(self) -> None:
        """Nothing may be fetched, yet we live; else aiokafka leaves the group after max_poll_interval."""
        with self._thread._consumer._subscription.fetch_context():
            pass

    async def _place(self, offsets: Mapping[tuple[str, int], int]) -> None:
        consumer = self._thread._consumer
        for tp, offset in offsets.items():
            consumer.seek(TopicPartition(*tp), offset)

    def _by_agent(self, slices: list[Slice]) -> Iterable[list[Slice]]:
        """Each agent's, in order: to Faust they are one message, as each costs it 20 us, whatever it carries."""
        agents: dict[str, list[Slice]] = {}
        for slice_ in slices:
            agents.setdefault(self.engine.agent_of[slice_.records[0].topic].name, []).append(slice_)
        return agents.values()

    def _message(self, slices: list[Slice]) -> Any:
        last = slices[-1].records[-1]
        return ConsumerMessage(
            topic=last.topic,
            partition=last.partition,
            offset=last.offset,
            timestamp=last.timestamp / 1000,
            timestamp_type=None,
            headers=(),
            key=None,
            value=slices,
            checksum=None,
            serialized_key_size=0,
            serialized_value_size=0,
            tp=TP(last.topic, last.partition),
            generation_id=self.app.consumer_generation_id,
        )

    # -- what Faust must not do

    def ack(self, message: Any) -> bool:
        """Given on hand-over; the tracker knows what is done."""
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    def verify_event_path(self, now: float, tp: Any) -> None:
        """Faust's livelock detector asserts a position on every partition, and would end the worker."""

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[Any]:
        del topics
        return iter(())

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Checkpoints commit; Faust does not."""
        del topics, start_new_transaction
        return False

    # -- rebalance

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Close all numbers, then let Faust hear of it, whatever happened."""
        try:
            await self.engine.revoked()
        except Exception:
            log.exception("numbers were not closed cleanly")
        finally:
            await super().on_partitions_revoked(revoked)

    async def perform_seek(self) -> None:
        """Faust calls this when the assignment stands; the drain loop does the seeking."""
        await self.engine.opened({(tp.topic, tp.partition) for tp in self.assignment()}, self.generation)


class ConsumerApp(faust.App):  # type: ignore[misc]  # Faust ships no types
    """Says when its consumer is about to stop; Faust's own signals come after."""

    async def before_consumer_stops(self) -> None:
        """The consumer is a member of its group yet."""

    def _on_rebalance_when_stopped(self) -> None:
        """Nothing: Faust closes client and coordinator here, in this thread, which they do not belong to.

        What their own thread does with them then waits for what has ended already. It leaves by itself.
        """

    async def _stop_consumer(self) -> None:
        await self.before_consumer_stops()
        await super()._stop_consumer()


class IdleProducer(driver.Producer):  # type: ignore[misc]  # Faust ships no types
    """Faust's own producer, by which nothing is sent: it connects as everybody else does."""

    def _new_producer(self, transactional_id: str | None = None) -> Any:
        return self.app.engine.connection.adopt(super()._new_producer(transactional_id))


class SliceTransport(driver.Transport):  # type: ignore[misc]  # Faust ships no types
    """Faust's transport with our consumer."""

    Consumer = SliceConsumer
    Producer = IdleProducer
