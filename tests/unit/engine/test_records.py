from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from app.engine.records import cut, fit_first, merge_by_time
from app.engine.tracker import Tracker
from tests.support.engine import FakeRecord

runs = st.lists(st.lists(st.integers(0, 50), max_size=12), max_size=4)


def records_of(timestamps: list[list[int]]) -> list[list[FakeRecord]]:
    return [
        [FakeRecord("t", partition, offset, at) for offset, at in enumerate(run)]
        for partition, run in enumerate(timestamps)
    ]


@given(runs)
def test_merging_never_changes_the_order_inside_a_partition(timestamps: list[list[int]]) -> None:
    merged = merge_by_time(records_of(timestamps))

    for partition, run in enumerate(timestamps):
        assert [r.offset for r in merged if r.partition == partition] == list(range(len(run)))


def test_the_earliest_next_record_goes_first() -> None:
    merged = merge_by_time(records_of([[1, 9], [5]]))

    assert [(r.partition, r.timestamp) for r in merged] == [(0, 1), (1, 5), (0, 9)]


@given(runs, st.integers(1, 5))
def test_slices_are_short_whole_and_registered_with_their_trackers(timestamps: list[list[int]], limit: int) -> None:
    merged = merge_by_time(records_of(timestamps))
    trackers = {("t", p): Tracker(0) for p in range(len(timestamps))}

    slices = cut(3, merged, limit, trackers, "epoch", 0.0)

    assert [r for s in slices for r in s.records] == merged
    assert all(len(s.records) <= limit and s.number == 3 and s.epoch == "epoch" for s in slices)
    for s in slices:
        for tracker, span in s.parts.values():
            tracker.finish_rest(span, set())
    for partition, run in enumerate(timestamps):
        assert trackers["t", partition].position == len(run)
        assert trackers["t", partition].unfinished == trackers["t", partition].unfinished_bytes == 0


@given(runs, st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1))
def test_the_first_slice_is_as_long_as_it_may_be_and_nothing_is_lost_or_turned_round(
    timestamps: list[list[int]], limit: int, wanted: list[int]
) -> None:
    merged = merge_by_time(records_of(timestamps))
    trackers = {("t", p): Tracker(0) for p in range(len(timestamps))}
    slices = deque(cut(3, merged, limit, trackers, "epoch", 0.0))
    taken = []

    for turn in range(len(merged)):
        if not slices:
            break
        left, most = sum(len(s.records) for s in slices), wanted[turn % len(wanted)]
        fit_first(slices, most)
        first = slices.popleft()
        assert len(first.records) <= most
        assert len(first.records) == min(most, left) or len(first.records) + len(slices[0].records) > most
        assert (first.number, first.epoch) == (3, "epoch")
        assert sum(last - begin + 1 for begin, last in first.spans.values()) == len(first.records)
        for tracker, span in first.parts.values():
            tracker.finish_rest(span, set())
        taken += first.records

    assert taken == merged
    for partition, run in enumerate(timestamps):
        tracker = trackers["t", partition]
        assert (tracker.position, tracker.unfinished, tracker.unfinished_bytes) == (len(run), 0, 0)
