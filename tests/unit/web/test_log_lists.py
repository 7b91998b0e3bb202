"""Lists that are read from a topic, page by page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine import Record, TopicLog
from app.web.cursors import seal_cursor
from app.web.log_lists import LogList, log_cursor, place_of
from app.web.problems import Problem
from tests.support.engine import FakeRecord
from tests.support.fake_log import FakeReader


def things(*placed: tuple[int, int, str]) -> FakeReader:
    """Records by partition, timestamp and what they are about; `-`: somebody else's."""
    counts: dict[int, int] = {}
    records = []
    for partition, timestamp_ms, name in placed:
        offset = counts[partition] = counts.get(partition, -1) + 1
        records.append(FakeRecord("t", partition, offset, timestamp_ms, None, name.encode(), ()))
    return FakeReader(*records)


def listed(reader: FakeReader) -> LogList[tuple[str, int, int]]:
    def read(record: Record) -> tuple[str, int, int] | None:
        name = (record.value or b"").decode()
        return None if name == "-" else (name, record.partition, record.offset)

    return LogList(TopicLog(reader, "t", 3), read, lambda thing: thing[0])


async def all_pages(reader: FakeReader, limit: int, wanted: str = "") -> list[tuple[str, int, int]]:
    found: list[tuple[str, int, int]] = []
    cursor: str | None = None
    for _ in range(100):
        page = await listed(reader).page(
            lambda thing: wanted in thing[0], log_cursor(cursor, TopicLog(reader, "t", 3)), limit
        )
        assert len(page.items) <= limit
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise AssertionError("the list has no end")


async def test_of_each_thing_the_newest_is_listed_newest_first() -> None:
    reader = things((0, 1, "a"), (0, 2, "b"), (0, 3, "a"), (0, 4, "-"))
    assert await all_pages(reader, 10) == [("a", 0, 2), ("b", 0, 1)]


async def test_what_is_not_meant_is_left_out() -> None:
    assert await all_pages(things((0, 1, "ab"), (1, 2, "b"), (2, 3, "c")), 1, "b") == [("b", 1, 0), ("ab", 0, 0)]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.sampled_from("abcd-")), max_size=25),
    st.integers(1, 5),
)
async def test_pages_of_any_size_hold_the_same_as_one(placed: list[tuple[int, int, str]], limit: int) -> None:
    # As with quarantine and dead letters, all records about one thing are in one partition.
    reader = things(*((("abcd-".index(name)) % 3, timestamp_ms, name) for _, timestamp_ms, name in placed))
    whole = await listed(reader).all(lambda _: True, 100)
    assert await all_pages(reader, limit) == whole
    assert len({name for name, _, _ in whole or ()}) == len(whole or ())


async def test_more_than_the_limit_of_all_is_none() -> None:
    reader = things((0, 1, "a"), (0, 2, "b"))
    assert await listed(reader).all(lambda _: True, 1) is None
    assert len(await listed(reader).all(lambda _: True, 2) or ()) == 2


async def test_a_broker_that_does_not_answer_is_503() -> None:
    reader = things((0, 1, "a"))
    reader.failure = TimeoutError()
    with pytest.raises(Problem) as refused:
        await all_pages(reader, 1)
    assert (refused.value.status, refused.value.code) == (503, "log_unavailable")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "é",
        "eyIwIjoxfQ==",
        *(seal_cursor("t", place) for place in (b"", b"null", b'{"0":"1"}', b'{"9":1}', b'{"0":-1}', b"[]", b"\xff")),
        seal_cursor("another", b'{"0":1}'),
    ],
)
def test_a_cursor_that_no_list_has_given_is_422(cursor: str) -> None:
    with pytest.raises(Problem) as refused:
        log_cursor(cursor, TopicLog(FakeReader(), "t", 3))
    assert (refused.value.status, refused.value.errors[0].field) == (422, "cursor")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("0-41", (0, 41)),
        ("11-0", (11, 0)),
        ("", None),
        ("1", None),
        ("a-1", None),
        ("-1-1", None),
        ("1-" + "9" * 30, None),
    ],
)
def test_an_id_is_a_partition_and_an_offset(text: str, place: tuple[int, int] | None) -> None:
    assert place_of(text) == place
