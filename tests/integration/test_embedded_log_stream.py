"""Reading topics again on the embedded cluster, which knows no times and says so by an empty answer."""

import contextlib
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from app.devstack.embedded import EmbeddedBroker
from app.engine import Connection
from app.engine.log_stream import LogStream
from app.engine.restore import LogReader

START_MS = 1_750_000_000_000


@pytest.fixture
def bootstrap() -> Iterator[str]:
    broker = EmbeddedBroker()
    broker.start()
    try:
        yield broker.bootstrap
    finally:
        broker.stop()


async def test_what_is_asked_for_since_a_time_is_found_and_not_silently_nothing(bootstrap: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for place in range(20):
        producer.produce("t", b"%d" % place, partition=place % 2, timestamp=START_MS + place * 1_000)
    assert producer.flush(30) == 0
    places = [("t", partition) for partition in range(3)]
    connection = Connection(bootstrap)
    reader = LogReader(connection, "test")
    reader.committed_only = False
    stream = LogStream(connection, "test", ("t",), reader)
    try:
        assert await stream.offsets_at(places, START_MS) == {("t", 0): 0, ("t", 1): 0, ("t", 2): None}
        since = await stream.offsets_at(places, START_MS + 15_000)
        assert since == {("t", 0): 8, ("t", 1): 7, ("t", 2): None}
        assert await stream.offsets_at(places, START_MS + 20_000) == dict.fromkeys(places)
        until = {tp: end for tp, (_, end) in (await stream.bounds()).items()}
        start = {tp: at for tp, at in since.items() if at is not None}
        async with contextlib.aclosing(stream.read(start, until)) as blocks:
            read = [record.value async for records in blocks for record in records]
        assert sorted(int(value or b"") for value in read) == [15, 16, 17, 18, 19]
    finally:
        await reader.close()
