"""The private reader of invalidations, on a real broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.errors import KafkaConnectionError, TopicAlreadyExistsError

from app.devstack.kafka import KafkaServer
from app.integrations.policy import InvalidationTail
from app.integrations.policy import tail as module
from tests.support.policy import decision, question

pytestmark = pytest.mark.kafka

DEADLINE_S = 60.0


async def soon(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(0.01)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Broker:
    """One topic."""

    def __init__(self, server: KafkaServer, topic: str) -> None:
        self.server, self.topic = server, topic

    async def create(self, partitions: int = 1) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.server.bootstrap)
        await admin.start()
        try:
            config = {"message.timestamp.type": "LogAppendTime"}
            await admin.create_topics([NewTopic(self.topic, partitions, 1, topic_configs=config)])
        finally:
            await admin.close()

    async def delete(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.server.bootstrap)
        await admin.start()
        try:
            await admin.delete_topics([self.topic])
        finally:
            await admin.close()

    async def forget(self, before: int) -> None:
        """As retention does."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.server.bootstrap)
        await admin.start()
        try:
            await admin.delete_records({TopicPartition(self.topic, 0): RecordsToDelete(before_offset=before)})
        finally:
            await admin.close()

    async def create_again(self) -> None:
        """Once the broker has let go of the deleted one."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    return await self.create()
                except TopicAlreadyExistsError:
                    await asyncio.sleep(0.05)

    async def send(self, *keys: str, partition: int = 0) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.server.bootstrap, acks="all")
        await producer.start()
        try:
            for key in keys:
                await producer.send_and_wait(self.topic, b"{}", key=key.encode(), partition=partition)
        finally:
            await producer.stop()

    def tail(self) -> InvalidationTail:
        return InvalidationTail(self.server.bootstrap, topic=self.topic)


@pytest.fixture
def broker(kafka: KafkaServer, unique: Callable[[str], str]) -> Broker:
    return Broker(kafka, unique("invalidations"))


async def test_what_was_there_is_read_before_anything_counts_and_what_comes_is_read_too(broker: Broker) -> None:
    await broker.create()
    await broker.send("p:alice")
    before = decision(began_ms=now_ms() - 1000)
    async with broker.tail() as tail:
        assert not tail.times.fresh(time.monotonic())
        await soon(lambda: tail.times.fresh(time.monotonic()))
        assert not tail.times.counts(before)
        other = decision(question("bob"), began_ms=now_ms() - 1000)
        assert tail.times.counts(other)
        await broker.send("r:ds-1")
        await soon(lambda: not tail.times.counts(other))
    stopped_s = time.monotonic()
    assert not tail.times.fresh(stopped_s + 1.1)


async def test_a_topic_that_is_not_there_yet_is_waited_for(broker: Broker) -> None:
    async with broker.tail() as tail:
        assert not tail.times.fresh(time.monotonic())
        await broker.create()
        await soon(lambda: tail.times.fresh(time.monotonic()))


async def test_all_partitions_count_where_there_is_more_than_one(broker: Broker) -> None:
    await broker.create(3)
    for partition in range(3):
        await broker.send(f"p:{partition}", partition=partition)
    async with broker.tail() as tail:
        await soon(lambda: tail.times.fresh(time.monotonic()))
        for partition in range(3):
            assert not tail.times.counts(decision(question(str(partition)), began_ms=now_ms() - 1000))


async def test_a_topic_that_was_made_again_is_read_again(broker: Broker) -> None:
    await broker.create()
    await broker.send("p:a", "p:b", "p:c")
    async with broker.tail() as tail:
        await soon(lambda: tail.times.fresh(time.monotonic()))
        await broker.delete()
        await broker.create_again()
        # What was written before it was deleted, and not read, may have ended anything.
        await soon(lambda: not tail.times.counts(decision(question("nobody"), began_ms=now_ms() - 1000)))
        await soon(lambda: tail.times.fresh(time.monotonic()))
        sent_s = time.monotonic()
        await broker.send("p:alice")
        await soon(lambda: tail.times.seen_since(question(), sent_s))
        assert not tail.times.seen_since(question("nobody"), sent_s)


class Line:
    """What is between the tails and the broker.

    Attributes:
        cut: No end is told.
        told: An end was told, and waits for the gate.
    """

    def __init__(self) -> None:
        self.cut = False
        self.told = 0
        self.gate = asyncio.Event()
        self.gate.set()


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    made = Line()

    class Consumer(AIOKafkaConsumer):  # type: ignore[misc]
        async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
            if made.cut:
                raise KafkaConnectionError("away")
            ends: dict[TopicPartition, int] = await super().end_offsets(partitions)
            made.told += not made.gate.is_set()
            await made.gate.wait()
            return ends

    monkeypatch.setattr(module, "AIOKafkaConsumer", Consumer)
    monkeypatch.setattr(module, "ANSWER_S", DEADLINE_S)
    return made


async def test_what_retention_took_while_the_broker_was_away_may_have_ended_anything(
    broker: Broker, line: Line
) -> None:
    await broker.create()
    await broker.send("p:eve", "p:eve")
    kept = decision(began_ms=now_ms() - 1000)
    async with broker.tail() as tail:
        await soon(lambda: tail.times.fresh(time.monotonic()))
        line.cut = True
        await soon(lambda: not tail.times.fresh(time.monotonic()))
        await broker.send("p:alice", "p:mallory")
        await broker.forget(3)
        line.cut = False
        await soon(lambda: tail.times.fresh(time.monotonic()))
        assert not tail.times.counts(kept)


async def test_what_retention_took_just_before_it_was_read_may_have_ended_anything(broker: Broker, line: Line) -> None:
    await broker.create()
    kept = decision(began_ms=now_ms() - 1000)
    async with broker.tail() as tail:
        await soon(lambda: tail.times.fresh(time.monotonic()))
        line.gate.clear()
        await soon(lambda: line.told > 0)
        await broker.send("p:alice")
        line.gate.set()
        await asyncio.sleep(0)
        line.gate.clear()
        await soon(lambda: line.told > 1)
        await broker.forget(1)
        await soon(lambda: not tail.times.fresh(time.monotonic()))
        line.gate.set()
        await soon(lambda: tail.times.fresh(time.monotonic()))
        assert not tail.times.counts(kept)


async def test_what_retention_took_after_it_was_read_ends_nothing_more(broker: Broker, line: Line) -> None:
    await broker.create()
    await broker.send("p:bob", "p:bob")
    kept = decision(began_ms=now_ms() - 1000)
    async with broker.tail() as tail:
        await soon(lambda: tail.times.fresh(time.monotonic()))
        line.cut = True
        await soon(lambda: not tail.times.fresh(time.monotonic()))
        await broker.forget(2)
        line.cut = False
        await soon(lambda: tail.times.fresh(time.monotonic()))
        await broker.send("p:carol")
        await soon(lambda: not tail.times.counts(decision(question("carol"), began_ms=kept.began_ms)))
        assert tail.times.counts(kept)
        assert not tail.times.counts(decision(question("bob"), began_ms=kept.began_ms))
