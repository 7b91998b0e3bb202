"""One producer, and the records that wait for it.

Whoever has something to send puts it into the queue; each round takes what has come meanwhile, as one batch a
partition. So under load a batch serves many units, and an idle queue sends at once.

One batch a partition at a time is also what aiokafka needs: where several wait for a partition, its `add_batch` counts
the time that has passed again and again, and gives up long before its timeout.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import islice
from typing import Any

import msgspec
from aiokafka import errors as kafka_errors

from app.brokers.refusals import REFUSALS, explain
from app.engine.cancellation import cancelled
from app.engine.errors import OutputFailed, OutputTooLarge
from app.engine.producer import HardProducer, append_many
from app.engine.records import Header
from app.observability import metrics
from app.observability.clock_skew import PeerClock

__all__ = ["Message", "OutputQueue"]

log = logging.getLogger("app.engine.outputs")

# The compressor costs 0.1 ms to begin with: below this it takes more from the event than the network would.
COMPRESS_FROM_BYTES = 4096
# The broker's own answer comes within request_timeout (15 s); beyond both, the outcome is unknown.
SEND_DEADLINE_S = 20.0
LOG_APPEND_TIME = 1
_FAILURES = (kafka_errors.KafkaError, TimeoutError, OSError)

TP = tuple[str, int]
# Looked up once a topic: there may be a thousand batches a second.
_outputs = cache(lambda topic: metrics.OUTPUTS.labels(topic=topic))


class Message(msgspec.Struct, frozen=True, gc=False):
    """One record to send."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()


class _Group:
    """Records of one sender for one partition; `at` counts those that are in a batch already."""

    __slots__ = ("alone", "at", "future", "messages", "offset")

    def __init__(self, messages: Sequence[Message], future: asyncio.Future[int]) -> None:
        self.messages = messages
        self.future = future
        self.at = 0
        self.offset = -1
        self.alone = False

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class _Batch:
    """What one round sends to one partition.

    Attributes:
        parts: Groups in it; for each the index of its first record in the group, and in the batch.
        sent_s: When, since 1970.
    """

    __slots__ = ("builder", "count", "parts", "sent", "sent_s", "tp")

    def __init__(self, tp: TP, builder: Any) -> None:
        self.tp = tp
        self.builder = builder
        self.parts: list[tuple[_Group, int, int]] = []
        self.count = 0
        self.sent_s = 0.0
        self.sent: asyncio.Future[Any] | None = None

    def add(self, group: _Group) -> None:
        """As many of the group's records as fit; the first of a batch always does, to be refused by the broker."""
        first, builder = group.at, self.builder
        try:
            append_many(builder, islice(group.messages, first, first + 1 if group.alone else None))
        except Exception as error:  # noqa: BLE001  # a key, value or header of a wrong type: its sender's fault alone
            group.fail(error)
        count = builder.record_count()
        if count > self.count:
            self.parts.append((group, first, self.count))
            group.at = first + count - self.count
            self.count = count


class OutputQueue:
    """Sends groups of records through one producer at a time, in the order in which they came.

    Args:
        new_producer: Makes one that is not started.
        gather_s: How long a round waits for more, in seconds; asked before each.
    """

    def __init__(self, new_producer: Callable[[], HardProducer], gather_s: Callable[[], float] = lambda: 0.0) -> None:
        self._new_producer = new_producer
        self._gather_s = gather_s
        self._producer: HardProducer | None = None
        self._starting = asyncio.Lock()
        self._waiting: dict[TP, deque[_Group]] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._broker_clock = PeerClock("broker")

    def add(self, topic: str, partition: int, messages: Sequence[Message]) -> asyncio.Future[int]:
        """Queue records for one partition.

        Returns:
            The offset of the first, once all are acknowledged. Cancelled, what is not sent yet is not sent.

        Raises:
            OutputFailed: In the future: not all are acknowledged; they may be there all the same.
            OutputTooLarge: In the future: the topic does not take one of them.
        """
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_exception(OutputFailed("the outputs are closed"))
            return future
        self._waiting.setdefault((topic, partition), deque()).append(_Group(messages, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="outputs")
        return future

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has.

        Raises:
            OutputFailed: Nobody says.
        """
        try:
            async with asyncio.timeout(SEND_DEADLINE_S):
                return len(await (await self._started()).partitions_for(topic))
        except _FAILURES as error:
            raise _because(f"no metadata of topic {topic}", error, topic) from error

    async def close(self) -> None:
        """What was acknowledged stays; nothing else is waited for."""
        self._closed = True
        if self._task is not None:
            await cancelled(self._task)
        self._fail_waiting(OutputFailed("the outputs are closed"))
        await self._drop()

    async def _run(self) -> None:
        try:
            while self._waiting:
                if gather_s := self._gather_s():
                    # Slices of one fetch come one by one, each with something for most partitions.
                    await asyncio.sleep(gather_s)
                await self._round()
        finally:
            # Only a bug or the end gets here with groups left.
            self._fail_waiting(OutputFailed("the outputs have stopped"))

    def _fail_waiting(self, error: OutputFailed) -> None:
        waiting, self._waiting = self._waiting, {}
        for groups in waiting.values():
            for group in groups:
                group.fail(error)

    async def _round(self) -> None:
        """One batch for each partition that somebody waits for, to the end of all of them."""
        batches: list[_Batch] = []
        failure = f"not acknowledged within {SEND_DEADLINE_S:.0f} s"
        try:
            async with asyncio.timeout(SEND_DEADLINE_S):
                producer = await self._started()
                for tp in list(self._waiting):
                    if (batch := self._next_batch(tp, producer)).count:
                        batches.append(batch)  # noqa: PERF401  # what was taken is settled, whatever the next one does
                for batch in batches:
                    topic, partition = batch.tp
                    batch.sent_s = time.time()
                    batch.sent = await producer.send_batch(batch.builder, topic, partition=partition)
                if batches:
                    await asyncio.wait([batch.sent for batch in batches if batch.sent is not None])
        except _FAILURES as error:
            failure = explain(error) or repr(error)
            if not batches:
                self._fail_waiting(_because("no producer", error))
        finally:
            sound = [self._settle(batch, failure) for batch in batches]
            if not all(sound):
                # A late write may still land, and an idempotent producer with a hole in its sequence is refused for
                # ever: only a new producer id is sound.
                await self._drop()

    def _next_batch(self, tp: TP, producer: HardProducer) -> _Batch:
        waiting = self._waiting[tp]
        large = _is_large(waiting)
        batch = _Batch(tp, producer.create_batch() if large else producer.create_plain_batch())
        while waiting:
            group = waiting[0]
            if not group.future.done():
                batch.add(group)
            if not group.future.done() and group.at < len(group.messages):
                break
            waiting.popleft()
            if group.alone:
                break
        if not waiting:
            del self._waiting[tp]
        batch.builder.close()
        return batch

    def _settle(self, batch: _Batch, failure: str) -> bool:
        """Tell the groups of a batch what became of it; whether its producer may go on."""
        topic, partition = batch.tp
        sent = batch.sent
        if sent is None or not sent.done() or sent.cancelled():
            if sent is not None:
                # Nobody else will ask what becomes of it when the producer is closed.
                sent.add_done_callback(lambda late: late.cancelled() or late.exception())
            self._failed(batch, OutputFailed(f"{topic}/{partition}: {failure}"))
            return False
        error = sent.exception()
        if isinstance(error, kafka_errors.MessageSizeTooLargeError):
            self._too_large(batch)
            return False
        if error is not None:
            self._failed(batch, _because(f"{topic}/{partition}", error, topic))
            return False
        _outputs(topic).inc(batch.count)
        written = sent.result()
        base = written.offset
        if written.timestamp_type == LOG_APPEND_TIME and written.timestamp:
            # The topics whose records the broker itself stamps: `policy.invalidations` and `webhook.commands`.
            self._broker_clock.told(written.timestamp / 1000, batch.sent_s, time.time())
        for group, first, place in batch.parts:
            if first == 0:
                group.offset = base + place
            if group.at == len(group.messages) and not group.future.done():
                group.future.set_result(group.offset)
        return True

    def _failed(self, batch: _Batch, error: OutputFailed) -> None:
        for group, _, _ in batch.parts:
            group.fail(error)

    def _too_large(self, batch: _Batch) -> None:
        """A topic may take less than a batch of ours: its records go one by one, and only what is too large fails."""
        topic, partition = batch.tp
        if batch.count == 1:
            batch.parts[0][0].fail(OutputTooLarge(topic, partition))
            return
        waiting = self._waiting.setdefault(batch.tp, deque())
        for group, first, _ in reversed(batch.parts):
            group.at, group.alone = first, True
            if not waiting or waiting[0] is not group:
                waiting.appendleft(group)

    async def _started(self) -> HardProducer:
        async with self._starting:
            if self._closed:
                raise kafka_errors.KafkaConnectionError("the outputs are closed")
            if self._producer is None:
                producer = self._new_producer()
                try:
                    await producer.start()
                except BaseException:
                    await producer.hard_close()
                    raise
                self._producer = producer
            return self._producer

    async def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.hard_close()


def _because(what: str, error: BaseException, topic: str | None = None) -> OutputFailed:
    """The failure that whoever waits is told; it remembers what it comes of."""
    refused = REFUSALS.met(error, "Write", topic)
    failure = OutputFailed(f"{what}: {refused or repr(error)}")
    failure.__cause__ = error
    failure.refused = refused is not None
    return failure


def _is_large(groups: Iterable[_Group]) -> bool:
    """Whether what waits is worth compressing."""
    size_bytes = 0
    for group in groups:
        for message in islice(group.messages, group.at, None):
            # A value of a wrong type is refused where it is appended.
            size_bytes += len(message.value) if isinstance(message.value, bytes) else 0
            if size_bytes >= COMPRESS_FROM_BYTES:
                return True
    return False
