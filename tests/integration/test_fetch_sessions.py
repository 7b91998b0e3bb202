"""Fetch sessions on a real Kafka: few partitions in each request, and nothing lost when the broker knows no session."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from app.devstack.kafka import KafkaServer
from app.engine.fetch_pace import FetchPace
from app.engine.fetch_sessions import SessionFetcher

pytestmark = pytest.mark.kafka

PARTITIONS = 24
DEADLINE_S = 60


class Reader:
    """A consumer with sessions, and the fetches that it made."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self.consumer = consumer
        self.fetches: list[Any] = []
        self.values: list[bytes] = []
        send = consumer._client.send

        async def noting(node: int, request: Any, **more: Any) -> Any:
            answer = await send(node, request, **more)
            if hasattr(request, "session"):
                self.fetches.append(answer)
            return answer

        consumer._client.send = noting

    @property
    def session(self) -> Any:
        (session,) = self.consumer._fetcher._sessions.values()
        return session

    async def read_until(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while len(self.values) < count:
                for records in (await self.consumer.getmany(timeout_ms=200)).values():
                    self.values += [record.value for record in records]

    async def fetched(self, more: int) -> None:
        wanted = len(self.fetches) + more
        async with asyncio.timeout(DEADLINE_S):
            while len(self.fetches) < wanted:
                await self.consumer.getmany(timeout_ms=50)


def publish(kafka: KafkaServer, topic: str, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "enable.idempotence": True})
    for place, value in enumerate(values):
        producer.produce(topic, value, partition=place % PARTITIONS)
    assert producer.flush(30) == 0


@pytest.fixture
def topic(kafka: KafkaServer, unique: Callable[[str], str]) -> str:
    name = unique("sessions")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result(10)
    return name


@pytest.fixture
async def reader(kafka: KafkaServer, topic: str) -> AsyncIterator[Reader]:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="none", fetch_max_wait_ms=50)
    await consumer.start()
    SessionFetcher.adopt(consumer._fetcher, FetchPace())
    made = Reader(consumer)
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    consumer.assign(partitions)
    for partition in partitions:
        consumer.seek(partition, 0)
    yield made
    with contextlib.suppress(asyncio.CancelledError):
        await consumer.stop()


def named(answer: Any) -> int:
    return sum(len(partitions) for _, partitions in answer.topics)


async def test_an_answer_names_only_what_is_new(kafka: KafkaServer, topic: str, reader: Reader) -> None:
    publish(kafka, topic, *(b"%d" % n for n in range(PARTITIONS)))
    await reader.read_until(PARTITIONS)
    await reader.fetched(2)
    quiet = len(reader.fetches)
    await reader.fetched(2)
    assert {named(answer) for answer in reader.fetches[quiet:]} == {0}

    publish(kafka, topic, b"one more")
    await reader.read_until(PARTITIONS + 1)
    assert reader.values[-1] == b"one more"
    assert max(named(answer) for answer in reader.fetches[quiet:]) == 1


@pytest.mark.parametrize(("id_", "epoch"), [(12345, 7), (None, 99)], ids=["unknown session", "wrong epoch"])
async def test_a_session_that_the_broker_refuses_loses_nothing(
    kafka: KafkaServer, topic: str, reader: Reader, id_: int | None, epoch: int
) -> None:
    publish(kafka, topic, *(b"%d" % n for n in range(PARTITIONS)))
    await reader.read_until(PARTITIONS)
    reader.session._id = reader.session._id if id_ is None else id_
    reader.session._epoch = epoch
    publish(kafka, topic, *(b"%d" % (PARTITIONS + n) for n in range(PARTITIONS)))
    await reader.read_until(2 * PARTITIONS)

    assert any(answer.error_code for answer in reader.fetches)
    assert sorted(reader.values, key=int) == [b"%d" % n for n in range(2 * PARTITIONS)]


async def test_after_a_seek_a_partition_is_read_again_from_there(
    kafka: KafkaServer, topic: str, reader: Reader
) -> None:
    publish(kafka, topic, b"first")
    await reader.read_until(1)
    await reader.fetched(2)
    reader.consumer.seek(TopicPartition(topic, 0), 0)
    await reader.read_until(2)

    assert reader.values == [b"first", b"first"]


async def test_a_new_assignment_hears_of_the_ends_of_quiet_partitions(
    kafka: KafkaServer, topic: str, reader: Reader
) -> None:
    publish(kafka, topic, b"first")
    await reader.read_until(1)
    await reader.fetched(2)
    partition = TopicPartition(topic, 0)
    reader.consumer.assign([partition])
    reader.consumer.seek(partition, 1)
    await reader.fetched(2)

    assert reader.consumer.highwater(partition) == 1
