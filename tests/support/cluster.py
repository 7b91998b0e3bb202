"""Kafka as numbers see it, in memory: changelogs with transactions, fences, a group; and all that may go wrong.

A request travels: it is sent, arrives, and is answered, with steps of the loop between. It can be lost, arrive when
nobody waits any longer, or lose its answer. A process that is killed or frozen leaves its requests in the broker.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from aiokafka import errors as kafka_errors

from app.engine import Message, OutputFailed
from app.engine.errors import NotMember, ProducerTaken
from app.engine.positions import Bounds
from app.engine.producer import ProducerId
from app.engine.restore import Sink, tail
from tests.support.engine import FakeRecord

TP = tuple[str, int]
Item = tuple[bytes, bytes | None]


@dataclass
class Transaction:
    """Of one producer; a record is readable when it is committed."""

    producer: ProducerId
    state: str = "open"
    writes: list[tuple[TP, Item]] = field(default_factory=list)


class Partition:
    """A changelog partition; None is a control record."""

    def __init__(self) -> None:
        self.records: list[tuple[Transaction, Item] | None] = []

    def append(self, transaction: Transaction, items: Sequence[Item]) -> int:
        first = len(self.records)
        self.records += [(transaction, item) for item in items]
        return first

    @property
    def end(self) -> int:
        """The last stable offset."""
        for offset, record in enumerate(self.records):
            if record is not None and record[0].state == "open":
                return offset
        return len(self.records)

    def committed(self, start: int, stop: int) -> Iterator[tuple[int, Item]]:
        for offset in range(start, min(stop, self.end)):
            record = self.records[offset]
            if record is not None and record[0].state == "committed":
                yield offset, record[1]


class Cluster:
    """The broker: one transactional id, its changelogs, the sources and the group.

    Attributes:
        on_commit: Told of each transaction that became readable.
    """

    def __init__(self) -> None:
        self.partitions: defaultdict[TP, Partition] = defaultdict(Partition)
        self.sources: dict[TP, list[FakeRecord]] = {}
        self.outputs: list[Message] = []
        self.offsets: dict[TP, int] = {}
        self.producer = ProducerId(1, -1)
        self.before_bump: ProducerId | None = None
        self.open: Transaction | None = None
        self.owner: object = None
        self.generation = 0
        self.late: list[Sent] = []
        self.on_commit: Callable[[Transaction], None] = lambda _: None

    # -- the transaction coordinator

    def init_producer(self, last: ProducerId | None) -> ProducerId:
        """InitProducerId, plain or with the last id (KIP-360)."""
        if last is not None and last == self.before_bump:
            return self.producer
        if last is not None and last != self.producer:
            raise ProducerTaken("somebody else has opened since")
        self.end(commit=False)
        self.before_bump = last
        self.producer = ProducerId(1, self.producer.epoch + 1)
        return self.producer

    def produce(self, producer: ProducerId, tp: TP, items: Sequence[Item]) -> int:
        self._fence(producer)
        if self.open is None:
            self.open = Transaction(producer)
        self.open.writes += [(tp, item) for item in items]
        return self.partitions[tp].append(self.open, items)

    def end_transaction(self, producer: ProducerId) -> None:
        self._fence(producer)
        if self.open is None:
            raise kafka_errors.InvalidTxnState
        self.end(commit=True)

    def end(self, *, commit: bool) -> None:
        transaction, self.open = self.open, None
        if transaction is None:
            return
        transaction.state = "committed" if commit else "aborted"
        for tp in {tp for tp, _ in transaction.writes}:
            self.partitions[tp].records.append(None)
        if commit:
            self.on_commit(transaction)

    def _fence(self, producer: ProducerId) -> None:
        if producer != self.producer:
            raise kafka_errors.ProducerFenced("fenced")

    # -- what the log says

    def rows(self, tp: TP) -> dict[bytes, bytes]:
        """The fold of a changelog."""
        partition = self.partitions[tp]
        rows = {key: value for _, (key, value) in partition.committed(0, partition.end)}
        return {key: value for key, value in rows.items() if value is not None}


class Sent:
    """A request on its way; it arrives once at most."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self.arrived = False
        self._result: Any = None
        self._error: Exception | None = None

    def arrive(self) -> None:
        if self.arrived:
            return
        self.arrived = True
        try:
            self._result = self._call()
        except Exception as error:  # noqa: BLE001  # the broker's answer
            self._error = error

    def answer(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result


class Wire:
    """A process's way to the broker.

    Attributes:
        fates: Of its next requests: "well", "refused", "lost", "unanswered" or "late".
        fate_of: Of the next request of a kind: "init", "produce", "end" or "output".
        sending: Requests that have not arrived.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.fates: deque[str] = deque()
        self.fate_of: dict[str, str] = {}
        self.sending: list[Sent] = []
        self.cut = False
        self.producers: list[MemoryProducer] = []

    async def ask(self, call: Callable[[], Any], kind: str = "") -> Any:
        if self.cut:
            raise kafka_errors.KafkaConnectionError("cut")
        fate = self.fates.popleft() if self.fates else "well"
        fate = self.fate_of.pop(kind, fate)
        if fate == "refused":
            raise kafka_errors.KafkaConnectionError("no connection")
        sent = Sent(call)
        self.sending.append(sent)
        try:
            await asyncio.sleep(0)
            if fate == "late":
                self.cluster.late.append(sent)
                await asyncio.get_running_loop().create_future()
            if self.cut:
                raise kafka_errors.KafkaConnectionError("cut")
            if fate == "lost":
                raise kafka_errors.KafkaConnectionError("the request was lost")
            sent.arrive()
        finally:
            if sent in self.sending:
                self.sending.remove(sent)
        await asyncio.sleep(0)
        if fate == "unanswered":
            raise kafka_errors.KafkaConnectionError("the answer was lost")
        return sent.answer()


class Batch:
    """As aiokafka's builder."""

    def __init__(self) -> None:
        self.items: list[Item] = []

    def append(self, *, key: bytes, value: bytes | None, timestamp: None) -> object:
        self.items.append((key, value))
        return self

    def close(self) -> None: ...


class MemoryProducer:
    """In the place of `FencedProducer`, so that `FencedChangelog` is the real one."""

    def __init__(self, *, wire: Wire, **_: object) -> None:
        self._wire = wire
        self._cluster = wire.cluster
        self.producer_id = ProducerId(-1, -1)
        self._sends: list[asyncio.Task[Any]] = []
        self.closed = False
        self.refused_for: BaseException | None = None
        wire.producers.append(self)

    async def open(self, last: ProducerId | None, may: Callable[[], Awaitable[bool]]) -> None:
        await self._wire.ask(lambda: None)
        if not await may():
            raise NotMember("the group did not confirm us before InitProducerId")
        self.producer_id = await self._wire.ask(lambda: self._cluster.init_producer(last), "init")

    async def begin_transaction(self) -> None:
        if self.closed:
            raise kafka_errors.ProducerClosed

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Task[Any]:
        producer, items, tp = self.producer_id, list(batch.items), (topic, partition)

        async def send() -> Any:
            first = await self._wire.ask(lambda: self._cluster.produce(producer, tp, items), "produce")
            return SimpleNamespace(offset=first)

        self._sends.append(asyncio.create_task(send()))
        return self._sends[-1]

    async def commit_transaction(self) -> None:
        producer = self.producer_id
        await asyncio.gather(*self._sends)
        self._sends = []
        await self._wire.ask(lambda: self._cluster.end_transaction(producer), "end")

    async def hard_close(self) -> bool:
        self.closed = True
        for task in self._sends:
            task.cancel()
        await asyncio.gather(*self._sends, return_exceptions=True)
        return True


class MemoryConsumer:
    """What `tail` needs of a consumer of committed records."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._at: dict[Any, int] = {}

    def assign(self, partitions: Sequence[Any]) -> None:
        self._at = dict.fromkeys(partitions, 0)

    def seek(self, partition: Any, offset: int) -> None:
        self._at[partition] = offset

    async def position(self, partition: Any) -> int:
        return self._at[partition]

    async def take(self, partitions: Collection[Any], _enough: int, _timeout_s: float) -> dict[Any, list[FakeRecord]]:
        return await self._wire.ask(lambda: {tp: self._take(tp) for tp in partitions})

    def _take(self, tp: Any) -> list[FakeRecord]:
        """A few at a time, so that a restore may end anywhere."""
        partition, at = self._wire.cluster.partitions[tuple(tp)], self._at[tp]
        stop = min(at + 3, partition.end)
        self._at[tp] = max(stop, at)
        return [FakeRecord(*tp, offset=o, key=k, value=v) for o, (k, v) in partition.committed(at, stop)]


class MemoryReader:
    """In the place of `LogReader`, with the real `tail`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def bounds(self, partitions: Sequence[TP]) -> dict[TP, tuple[int, int]]:
        logs = self._wire.cluster.partitions
        async with asyncio.timeout(10):
            return await self._wire.ask(lambda: {tp: (0, logs[tp].end) for tp in partitions})

    async def read(self, start: Mapping[TP, int], until: Mapping[TP, int], sink: Sink) -> None:
        async with asyncio.timeout(60):
            await tail(MemoryConsumer(self._wire), start, until, sink, MemoryConsumer.take)


class MemoryOutputs:
    """Acknowledged, or of unknown outcome."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def send_many(self, messages: Sequence[Message]) -> None:
        taken = list(messages)
        try:
            async with asyncio.timeout(20):
                await self._wire.ask(lambda: self._wire.cluster.outputs.extend(taken), "output")
        except (kafka_errors.KafkaError, TimeoutError) as error:
            raise OutputFailed(repr(error)) from error


async def source_bounds(wire: Wire, partitions: Sequence[TP]) -> dict[TP, Bounds]:
    """What the broker says of sources that nothing is ever deleted from."""
    cluster = wire.cluster
    async with asyncio.timeout(10):
        return await wire.ask(
            lambda: {tp: Bounds(0, len(cluster.sources[tp]), cluster.offsets.get(tp), "id") for tp in partitions}
        )


async def confirmed(wire: Wire, member: object, generation: int) -> bool:
    """A heartbeat."""
    cluster = wire.cluster
    try:
        async with asyncio.timeout(3):
            return bool(await wire.ask(lambda: cluster.owner is member and cluster.generation == generation))
    except (kafka_errors.KafkaError, TimeoutError):
        return False
