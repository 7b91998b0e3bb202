"""Producers that can be closed hard, and one that takes its producer id under our control.

Every private name of aiokafka's producer that we use is in this file; `tests/unit/engine/test_private_names.py` has
one test for each, so that an upgrade fails there and not at night.

Why not `stop()`: it flushes, so with a frozen broker it waits, and leaves tasks and sockets behind.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka_errors
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.codec import zstd_encode
from aiokafka.conn import CloseReason
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.protocol.types import CompactString, Int16, Int32, Int64, Schema, TaggedFields
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from app.engine import faults
from app.engine.coordinators import patient
from app.engine.errors import NotMember, ProducerTaken

if TYPE_CHECKING:
    from app.engine.output_queue import Message
    from app.engine.records import Header

__all__ = ["FencedProducer", "HardProducer", "ProducerId", "append_many"]

_NO_COMPRESSION = 0
# A batch of ours is as small by it as by aiokafka's 3, for a tenth to a third less work.
_ZSTD_LEVEL = 1
_INIT_PRODUCER_ID = 22
_INVALID_PRODUCER_EPOCH = 47
_PRODUCER_FENCED = 90
_HARD_CLOSE_BUDGET_S = 2.0
_SENDER_COROUTINES = (
    "_send_produce_req",
    "_do_add_partitions_to_txn",
    "_do_add_offsets_to_txn",
    "_do_txn_offset_commit",
    "_do_txn_commit",
)


def append_many(batch: BatchBuilder, messages: Iterable[Message]) -> None:
    """What aiokafka's `append` does with each of them, up to the first that does not fit; `record_count` says how many.

    Half of the cost of so many calls. Neighbours often have the same headers, of which one list is enough.

    Raises:
        TypeError: A key, value or header of a wrong type; those before it are in the batch.
    """
    if batch.closed():
        return
    append, count = batch._builder.append, batch._relative_offset
    listed: list[Header] = []
    headers: Sequence[Header] = listed
    try:
        for message in messages:
            if message.headers is not headers:
                headers = message.headers
                listed = list(headers)
            if append(count, None, message.key, message.value, listed) is None:
                batch.close()
                return
            count += 1
    finally:
        batch._relative_offset = count


class ProducerId(NamedTuple):
    """What the broker knows a producer by."""

    id: int
    epoch: int


class _InitResponseV4(Response):  # type: ignore[misc]  # aiokafka ships no types
    API_KEY = _INIT_PRODUCER_ID
    API_VERSION = 4
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("tags", TaggedFields),
    )


class _InitStructV4(RequestStruct):  # type: ignore[misc]  # aiokafka ships no types
    API_KEY = _INIT_PRODUCER_ID
    API_VERSION = 4
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _InitResponseV4
    SCHEMA = Schema(
        ("transactional_id", CompactString("utf-8")),
        ("transaction_timeout_ms", Int32),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("tags", TaggedFields),
    )


class _InitV4(Request[_InitStructV4]):  # type: ignore[misc]  # aiokafka ships no types
    """KIP-360: raise my epoch, if nobody else has."""

    API_KEY: ClassVar[int] = _INIT_PRODUCER_ID

    def __init__(self, *fields: Any) -> None:
        self._fields = fields

    def build(self, request_struct_class: type[_InitStructV4]) -> _InitStructV4:
        return request_struct_class(*self._fields, {})


class HardProducer(AIOKafkaProducer):  # type: ignore[misc]  # aiokafka ships no types
    """An aiokafka producer that can be dropped at once, leaving no task and no socket."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._children: set[asyncio.Task[Any]] = set()
        for name in _SENDER_COROUTINES:
            setattr(self._sender, name, self._tracked(getattr(self._sender, name)))

    def _tracked(self, coroutine: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        # The sender keeps its children in a local variable, where a hard close could not reach them.
        async def run(*args: Any) -> Any:
            task = asyncio.current_task()
            if task is None:
                raise RuntimeError("the sender's coroutines run in tasks")
            self._children.add(task)
            try:
                return await coroutine(*args)
            finally:
                self._children.discard(task)

        return run

    def create_plain_batch(self) -> BatchBuilder:
        """An empty batch that is not compressed; not for transactions."""
        return BatchBuilder(self._message_accumulator._batch_size, _NO_COMPRESSION)

    async def hard_close(self) -> bool:
        """Never flush, never wait for a broker; goes on to its end though the caller is cancelled.

        Returns:
            True when no task and no socket is left.
        """
        return await asyncio.shield(asyncio.create_task(self._close_now()))

    async def _close_now(self) -> bool:
        self._closed = True
        client, sender = self.client, self._sender

        async def refuse(*_: Any, **__: Any) -> None:
            return None

        client._get_conn = refuse
        for connection in list(client._conns.values()):
            if connection._writer is not None:
                # close() alone would keep unsent bytes for the broker.
                connection._writer.transport.abort()
            _forget(request[-1] for request in connection._requests)
            connection.close(reason=CloseReason.SHUTDOWN)
        live = await self._cancel_tasks()
        waiting = self._message_accumulator
        for batch in [*chain.from_iterable(waiting._batches.values()), *waiting._pending_batches]:
            _forget((batch.future, batch._drain_waiter))
        # Whoever waits for a batch of ours hears of it now, not at its own deadline.
        waiting.fail_all(kafka_errors.KafkaConnectionError("producer closed"))
        for task in (sender._sender_task, client._sync_task):
            if task is not None and task.done() and not task.cancelled():
                task.exception()
        waiter = getattr(self._txn_manager, "_transaction_waiter", None)
        if waiter is not None and waiter.done() and not waiter.cancelled():
            waiter.exception()
        client._sync_task = None
        return not live

    async def _cancel_tasks(self) -> set[asyncio.Task[Any]]:
        """Cancel until nothing is left; the sender swallows the first cancel and waits for its children."""
        deadline = self._loop.time() + _HARD_CLOSE_BUDGET_S
        while True:
            tasks = (self._sender._sender_task, self.client._sync_task, *self._children)
            live = {task for task in tasks if task is not None and not task.done()}
            if not live or self._loop.time() >= deadline:
                return live
            for task in live:
                task.cancel()
            await asyncio.wait(live, timeout=0.1)


class FencedProducer(HardProducer):
    """A transactional producer; opening it makes every earlier holder of its transactional id fail at the broker."""

    @property
    def producer_id(self) -> ProducerId:
        """The id that `open` was given by the broker."""
        return ProducerId(*self._txn_manager._pid_and_epoch)

    @property
    def refused_for(self) -> BaseException | None:
        """What the transaction failed of, where a call says only that there is none any more."""
        waiter = getattr(self._txn_manager, "_transaction_waiter", None)
        return waiter.exception() if waiter is not None and waiter.done() and not waiter.cancelled() else None

    async def open(self, last: ProducerId | None, may: Callable[[], Awaitable[bool]]) -> None:
        """Take the producer id, asking the group before each request.

        Args:
            last: Our id from an earlier opening in this assignment: the broker then refuses us if anybody has
                opened since (KIP-360). None: take it from whoever has it.
            may: Does the group still know us?

        Raises:
            NotMember: `may` said no.
            ProducerTaken: Somebody else has opened since `last`.
        """
        manager, sender = self._txn_manager, self._sender
        await patient(self.client).bootstrap()
        while True:
            node = await sender._find_coordinator(CoordinationType.TRANSACTION, manager.transactional_id)
            if not await may():
                raise NotMember("the group did not confirm us before InitProducerId")
            faults.point("open:asked")
            answer = await self._init_producer_id(node, last)
            if answer.error_code == 0:
                break
            if answer.error_code in (_PRODUCER_FENCED, _INVALID_PRODUCER_EPOCH):
                raise ProducerTaken(f"{manager.transactional_id} was opened by somebody else")
            error = kafka_errors.for_code(answer.error_code)
            if error in (kafka_errors.NotCoordinatorError, kafka_errors.CoordinatorNotAvailableError):
                sender._coordinator_dead(CoordinationType.TRANSACTION)
            elif error not in (kafka_errors.ConcurrentTransactions, kafka_errors.CoordinatorLoadInProgressError):
                raise error(manager.transactional_id)
            await asyncio.sleep(0.05)
        manager.set_pid_and_epoch(answer.producer_id, answer.producer_epoch)
        await sender.start()

    async def _init_producer_id(self, node: int, last: ProducerId | None) -> Any:
        manager = self._txn_manager
        who = (manager.transactional_id, manager.transaction_timeout_ms)
        request = InitProducerIdRequest(*who) if last is None else _InitV4(*who, *last)
        return await self.client.send(node, request, group=ConnectionGroup.COORDINATION)


def _forget(futures: Iterable[asyncio.Future[Any]]) -> None:
    """Nobody may be left who asks what became of these; asyncio would log each, some time later, with its stack."""
    for future in futures:
        future.add_done_callback(lambda done: done.cancelled() or done.exception())


def _compress_quickly() -> None:
    """Have aiokafka's batches, which know no level, compressed at ours; once a process."""
    vars(sys.modules[DefaultRecordBatchBuilder.__module__])["zstd_encode"] = partial(zstd_encode, level=_ZSTD_LEVEL)


_compress_quickly()
