"""Merging what was fetched of many partitions, whatever a fetch brings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.engine.log_stream import TimeMerge
from tests.support.memory_unit import FakeRecord

TP = tuple[str, int]


@st.composite
def logs(draw: st.DrawFn) -> dict[TP, list[FakeRecord]]:
    """Partitions with holes (control records, compaction), some of them at their ends."""
    found = {}
    for partition in range(draw(st.integers(1, 5))):
        offsets = sorted(draw(st.sets(st.integers(0, 30), max_size=20)))
        clock = draw(st.lists(st.integers(-2, 10), min_size=31, max_size=31))
        found["t", partition] = [
            FakeRecord("t", partition, offset, sum(clock[: offset + 1]), None, b"v") for offset in offsets
        ]
    return found


@given(
    logs=logs(),
    end=st.integers(1, 31),
    sizes=st.lists(st.integers(0, 4), min_size=1),
    limit=st.integers(1, 5),
)
def test_every_record_before_the_end_comes_once_in_the_order_of_its_partition(
    logs: dict[TP, list[FakeRecord]], end: int, sizes: list[int], limit: int
) -> None:
    merge = TimeMerge(dict.fromkeys(logs, end))
    position = dict.fromkeys(logs, 0)
    taken: list[FakeRecord] = []
    for turn in range(10_000):
        if got := merge.take(limit):
            taken += got  # type: ignore[arg-type]
        elif not merge.hungry:
            break
        for place, tp in enumerate(merge.hungry):
            # A fetch may bring nothing, some, or what lies beyond the end.
            size = sizes[(turn + place) % len(sizes)]
            records = [record for record in logs[tp] if record.offset >= position[tp]][:size]
            position[tp] = records[-1].offset + 1 if records else position[tp] + 1
            if not records and any(record.offset == position[tp] - 1 for record in logs[tp]):
                position[tp] -= 1
            merge.add(tp, records, position[tp])
        if not any(sizes):
            sizes = [1]
    expected = {tp: [record for record in records if record.offset < end] for tp, records in logs.items()}
    assert {tp: [r for r in taken if r.partition == tp[1]] for tp in logs} == expected


@given(st.lists(st.lists(st.integers(0, 50)).map(sorted), min_size=1, max_size=5), st.integers(1, 7))
def test_the_records_of_partitions_that_keep_time_come_in_its_order(times: list[list[int]], size: int) -> None:
    logs = {
        ("t", partition): [FakeRecord("t", partition, offset, at, None, b"v") for offset, at in enumerate(ats)]
        for partition, ats in enumerate(times)
        if ats
    }
    merge = TimeMerge({tp: len(records) for tp, records in logs.items()})
    at = dict.fromkeys(logs, 0)
    taken: list[int] = []
    while True:
        if got := merge.take(3):
            taken += [record.timestamp for record in got]
        elif not merge.hungry:
            break
        for tp in merge.hungry:
            records = logs[tp][at[tp] : at[tp] + size]
            at[tp] += len(records)
            merge.add(tp, records, at[tp])
    assert taken == sorted(record.timestamp for records in logs.values() for record in records)
