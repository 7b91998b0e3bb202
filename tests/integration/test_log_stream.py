"""Reading topics again on a real Kafka: ends, times, transactions, and a broker that is away."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from app.devstack.kafka import KafkaServer
from app.engine import Connection
from app.engine.log_stream import LogStream, LogUnreadable
from app.engine.restore import LogReader
from app.engine.topic_log import TopicLog
from tests.support.garbled import send_with_header_name

pytestmark = pytest.mark.kafka

TP = tuple[str, int]
# Recent, or the broker's retention takes the records before they are read.
START_MS = time.time_ns() // 1_000_000 - 3_600_000


def topics(kafka: KafkaServer, *names: str, partitions: int = 2) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    for future in admin.create_topics([NewTopic(name, partitions, 1) for name in names]).values():
        future.result(10)


def produce(
    kafka: KafkaServer, topic: str, count: int, *, partition: int = 0, first: int = 0, step_ms: int = 10
) -> None:
    # Without idempotence the first batches of a topic that is being made may change places: a retry overtakes.
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "enable.idempotence": True})
    for place in range(first, first + count):
        producer.produce(topic, b"%d" % place, partition=partition, timestamp=START_MS + place * step_ms)
        if place % 1_000 == 0:
            # In batches of which a fetch takes a few.
            producer.flush(30)
    assert producer.flush(30) == 0


@contextlib.asynccontextmanager
async def stream_of(kafka: KafkaServer, *names: str, gapless: bool = False) -> AsyncIterator[LogStream]:
    connection = Connection(kafka.bootstrap)
    reader = LogReader(connection, "test")
    try:
        yield LogStream(connection, "test", names, reader, gapless=gapless)
    finally:
        await reader.close()


async def values(stream: LogStream, start: Mapping[TP, int], until: Mapping[TP, int]) -> list[bytes]:
    async with contextlib.aclosing(stream.read(start, until)) as blocks:
        return [record.value or b"" async for records in blocks for record in records]


async def test_topics_are_read_from_their_beginning_to_their_end_in_the_order_of_time(
    kafka: KafkaServer, unique: Callable[[str], str]
) -> None:
    first, second, absent = unique("first"), unique("second"), unique("absent")
    topics(kafka, first, second)
    # 30,000 records of two topics, one of which is ahead of the other in bytes but not in time.
    produce(kafka, first, 20_000, step_ms=10)
    produce(kafka, second, 10_000, partition=1, step_ms=20)
    async with stream_of(kafka, first, second, absent) as stream:
        bounds = await stream.bounds()
        assert bounds == {(first, 0): (0, 20_000), (first, 1): (0, 0), (second, 0): (0, 0), (second, 1): (0, 10_000)}
        until = {tp: end for tp, (_, end) in bounds.items()}
        seen: list[tuple[int, str, int]] = []
        async with contextlib.aclosing(stream.read(dict.fromkeys(bounds, 0), until)) as blocks:
            async for records in blocks:
                seen += [(record.timestamp, record.topic, record.offset) for record in records]
    assert [at_ms for at_ms, _, _ in seen] == sorted(at_ms for at_ms, _, _ in seen)
    assert [offset for _, topic, offset in seen if topic == first] == list(range(20_000))
    assert [offset for _, topic, offset in seen if topic == second] == list(range(10_000))


async def test_a_part_is_read_to_where_it_was_asked_for(kafka: KafkaServer, unique: Callable[[str], str]) -> None:
    topic = unique("part")
    topics(kafka, topic)
    produce(kafka, topic, 100)
    async with stream_of(kafka, topic) as stream:
        assert await values(stream, {(topic, 0): 90}, {(topic, 0): 95}) == [b"%d" % place for place in range(90, 95)]
        assert await values(stream, {(topic, 0): 5, (topic, 1): 0}, {(topic, 0): 5, (topic, 1): 0}) == []


async def test_a_time_is_found_in_each_partition(kafka: KafkaServer, unique: Callable[[str], str]) -> None:
    topic = unique("times")
    topics(kafka, topic)
    produce(kafka, topic, 100)
    partitions = [(topic, 0), (topic, 1)]
    async with stream_of(kafka, topic) as stream:
        assert await stream.offsets_at(partitions, START_MS + 501) == {(topic, 0): 51, (topic, 1): None}
        assert await stream.offsets_at(partitions, 0) == {(topic, 0): 0, (topic, 1): None}
        assert await stream.offsets_at(partitions, START_MS + 10_000) == {(topic, 0): None, (topic, 1): None}


@pytest.mark.parametrize("gapless", [True, False])
async def test_what_retention_took_before_it_was_read_breaks_a_gapless_read_off(
    kafka: KafkaServer, unique: Callable[[str], str], *, gapless: bool
) -> None:
    topic = unique("gap")
    topics(kafka, topic)
    produce(kafka, topic, 20_000, step_ms=0)
    seen: list[int] = []

    async def read(stream: LogStream) -> None:
        async with contextlib.aclosing(stream.read({(topic, 0): 0}, {(topic, 0): 20_000})) as blocks:
            async for records in blocks:
                if not seen:
                    await asyncio.to_thread(delete_records, kafka, topic, 0, 19_990)
                seen.extend(record.offset for record in records)

    async with stream_of(kafka, topic, gapless=gapless) as stream:
        if gapless:
            with pytest.raises(LogUnreadable, match="OffsetOutOfRange"):
                await read(stream)
            assert seen == list(range(len(seen)))
        else:
            await read(stream)
            assert seen[-1] == 19_999
            assert len(seen) < 20_000


def delete_records(kafka: KafkaServer, topic: str, partition: int, before: int) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    for future in admin.delete_records([TopicPartition(topic, partition, before)]).values():
        future.result(30)


async def test_of_transactions_what_was_committed_is_read_and_their_markers_are_passed(
    kafka: KafkaServer, unique: Callable[[str], str]
) -> None:
    topic = unique("transactions")
    topics(kafka, topic, partitions=1)
    await asyncio.to_thread(transactions, kafka, topic, unique("id"))
    async with stream_of(kafka, topic) as stream:
        until = {tp: end for tp, (_, end) in (await stream.bounds()).items()}
        found = await asyncio.wait_for(values(stream, {(topic, 0): 0}, until), 30)
    assert found == [b"kept-0", b"kept-2"]
    assert until[topic, 0] > len(found)


def transactions(kafka: KafkaServer, topic: str, transactional_id: str) -> None:
    """Committed ones, with aborted ones in between and at the end."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": transactional_id})
    producer.init_transactions(30)
    for turn in range(4):
        kept = turn % 2 == 0
        producer.begin_transaction()
        producer.produce(topic, f"{'kept' if kept else 'dropped'}-{turn}".encode())
        producer.flush(30)
        (producer.commit_transaction if kept else producer.abort_transaction)(30)


async def test_a_record_whose_header_names_are_no_text_is_read_all_the_same(
    kafka: KafkaServer, unique: Callable[[str], str]
) -> None:
    topic = unique("garbled")
    topics(kafka, topic, partitions=1)
    produce(kafka, topic, 1)
    await asyncio.to_thread(
        send_with_header_name, kafka.bootstrap, topic, 0, b"\xff\xfe", key=b"k", value=b"v", headers=[("plain", b"1")]
    )
    produce(kafka, topic, 1, first=1)
    async with stream_of(kafka, topic) as stream:
        assert await values(stream, {(topic, 0): 0}, {(topic, 0): 3}) == [b"0", b"v", b"1"]
    reader = LogReader(Connection(kafka.bootstrap), "test")
    try:
        found = await TopicLog(reader, topic, 1).record(0, 1)
    finally:
        await reader.close()
    assert found is not None
    assert (found.value, list(found.headers)) == (b"v", [("plain", b"1"), ("\\xff\\xfe", None)])


async def test_without_a_broker_every_question_says_so(
    unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.log_stream.METADATA_DEADLINE_S", 0.5)
    connection = Connection("127.0.0.1:1")
    stream = LogStream(connection, "test", ["t"], LogReader(connection, "test"))
    with pytest.raises(LogUnreadable):
        await stream.bounds()
    with pytest.raises(LogUnreadable):
        await stream.offsets_at([("t", 0)], 0)
    with pytest.raises(LogUnreadable):
        await values(stream, {("t", 0): 0}, {("t", 0): 1})
