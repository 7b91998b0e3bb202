"""Reads of a topic outside the group, over a log in memory; on a broker it is tests/system's to prove."""

from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from hypothesis import given
from hypothesis import strategies as st

from app.engine import LogUnavailable, TopicLog
from app.engine.topic_log import WINDOW_RECORDS
from tests.support.engine import FakeRecord
from tests.support.fake_log import FakeReader


def record(partition: int, offset: int, timestamp_ms: int = 0) -> FakeRecord:
    return FakeRecord("t", partition, offset, timestamp_ms, b"k", b"v", ())


async def walked(reader: FakeReader, partitions: int = 2, **options: Any) -> list[tuple[int, int]]:
    log = TopicLog(reader, "t", partitions)
    return [(p.partition, p.offset) async for p in log.newest_first(lambda found: found.offset, **options)]


async def test_the_newest_comes_first_over_all_partitions() -> None:
    reader = FakeReader(record(0, 0, 10), record(0, 1, 30), record(1, 0, 20), record(1, 1, 40))

    assert await walked(reader) == [(1, 1), (0, 1), (1, 0), (0, 0)]


async def test_some_partitions_are_read_alone() -> None:
    assert await walked(FakeReader(record(0, 0), record(1, 0)), only=[1]) == [(1, 0)]


async def test_a_long_partition_is_read_window_by_window_and_only_as_far_as_it_is_wanted() -> None:
    reader = FakeReader(*(record(0, offset, offset) for offset in range(3 * WINDOW_RECORDS)))
    log = TopicLog(reader, "t", 1)

    walk = log.newest_first(lambda found: found.offset)
    newest = [(await anext(walk)).offset for _ in range(WINDOW_RECORDS + 1)]

    assert newest == list(range(3 * WINDOW_RECORDS - 1, 2 * WINDOW_RECORDS - 2, -1))
    assert [(start, until) for _, start, until in reader.reads] == [(400, 600), (200, 400)]


async def test_what_retention_took_is_not_looked_for() -> None:
    reader = FakeReader(record(0, 7), begin={("t", 0): 7})

    assert await walked(reader, 1) == [(0, 7)]
    assert await TopicLog(reader, "t", 1).record(0, 6) is None
    assert [start for _, start, _ in reader.reads] == [7]


async def test_an_empty_topic_has_nothing() -> None:
    assert await walked(FakeReader()) == []


async def test_records_are_found_by_their_offsets_in_one_read() -> None:
    reader = FakeReader(*(record(0, offset) for offset in (0, 2, 3, 9)))

    found = await TopicLog(reader, "t", 1).records(0, {1, 2, 9, 50})

    assert sorted(found) == [2, 9]
    assert len(reader.reads) == 1


@pytest.mark.parametrize("place", [(0, 5), (1, 0), (-1, 0), (99, 0)])
async def test_what_is_not_there_is_none(place: tuple[int, int]) -> None:
    assert await TopicLog(FakeReader(record(0, 0)), "t", 2).record(*place) is None


@pytest.mark.parametrize("failure", [KafkaConnectionError(), OSError(), TimeoutError()])
async def test_a_broker_that_does_not_answer_is_one_kind_of_error(failure: Exception) -> None:
    reader = FakeReader(record(0, 0))
    reader.failure = failure
    log = TopicLog(reader, "t", 1)

    with pytest.raises(LogUnavailable):
        await log.record(0, 0)
    with pytest.raises(LogUnavailable):
        await anext(log.newest_first(lambda found: found))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 50)), max_size=40))
async def test_everything_comes_once_and_no_partition_out_of_order(placed: list[tuple[int, int]]) -> None:
    counts = [0, 0, 0]
    records = []
    for partition, timestamp_ms in placed:
        records.append(record(partition, counts[partition], timestamp_ms))
        counts[partition] += 1

    found = await walked(FakeReader(*records), 3)

    assert sorted(found) == sorted((one.partition, one.offset) for one in records)
    for partition in range(3):
        offsets = [offset for of, offset in found if of == partition]
        assert offsets == sorted(offsets, reverse=True)
