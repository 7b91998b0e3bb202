from pathlib import Path

import pytest

from app.engine import OutputFailed, Revoked, Slice, Table, Unit
from app.engine.errors import OutputTooLarge
from app.engine.quarantine import TRUNCATED_BYTES
from app.engine.staging import Staging
from app.engine.store import Store
from app.engine.tracker import Tracker
from app.engine.unit import Scope
from tests.support.engine import ROWS, FakeRecord, RecordingOutputs, Row, new_scope, new_store


def a_slice(*offsets: int) -> tuple[Slice, Tracker]:
    tracker = Tracker(offsets[0])
    span = tracker.deliver(list(offsets), 10, 0.0)
    return Slice(0, [FakeRecord(offset=o) for o in offsets], None, {("in", 0): (tracker, span)}), tracker


async def test_nothing_of_a_unit_is_real_before_it_is_done(tmp_path: Path) -> None:
    scope = new_scope(new_store(tmp_path))
    slice_, tracker = a_slice(3, 4)
    unit = Unit(scope, slice_)
    unit.put(ROWS, b"a", Row(n=1))

    assert Unit(scope).get(ROWS, b"a") is None
    assert tracker.position == 3

    await unit.flush()
    unit.done()

    assert Unit(scope).get(ROWS, b"a") == Row(n=1)
    assert tracker.position == 5


async def test_reads_see_own_rows_then_merged_ones_then_frozen_ones_then_the_disk(tmp_path: Path) -> None:
    scope = new_scope(new_store(tmp_path))
    for name in (b"disk", b"frozen", b"merged", b"own"):
        scope.staging.store.write({ROWS.store_key(name): ROWS.encode(Row(n=1))}, {})
    scope.staging.merge({ROWS.store_key(b"frozen"): ROWS.encode(Row(n=2))})
    scope.staging.freeze()
    scope.staging.merge({ROWS.store_key(b"merged"): ROWS.encode(Row(n=3)), ROWS.store_key(b"gone"): None})
    unit = Unit(scope)
    unit.put(ROWS, b"own", Row(n=4))

    assert [unit.get(ROWS, k).n for k in (b"disk", b"frozen", b"merged", b"own")] == [1, 2, 3, 4]
    assert unit.get(ROWS, b"gone") is None
    assert [(k, r.n) for k, r in unit.scan(ROWS)] == [(b"disk", 1), (b"frozen", 2), (b"merged", 3), (b"own", 4)]
    assert [k for k, _ in unit.scan(ROWS, start=b"frozen", limit=2)] == [b"frozen", b"merged"]
    assert [k for k, _ in unit.scan(ROWS, b"m")] == [b"merged"]


async def test_the_index_is_exact_before_any_checkpoint(tmp_path: Path) -> None:
    scope = new_scope(new_store(tmp_path))
    scope.staging.store.write({ROWS.store_key(k): ROWS.encode(Row(tag="red")) for k in (b"a", b"b")}, {})
    scope.staging.merge({ROWS.store_key(b"a"): ROWS.encode(Row(tag="blue")), ROWS.store_key(b"b"): None})
    unit = Unit(scope)
    unit.put(ROWS, b"c", Row(tag="green"))

    assert unit.scan_index(ROWS, b"tag/") == [b"tag/blue/a", b"tag/green/c"]
    assert unit.scan_index(ROWS, b"tag/", stop=b"tag/green/") == [b"tag/blue/a"]


async def test_index_keys_are_made_once_where_the_row_is_put(tmp_path: Path) -> None:
    made: list[Row] = []

    def index(key: bytes, row: Row) -> list[bytes]:
        made.append(row)
        return [row.tag.encode() + key]

    table = Table("counted", 1, Row, index=index)
    store = Store(tmp_path / "db", [table], 3600)
    staging = Staging(store)
    scope = Scope("agent", staging, RecordingOutputs(), "quarantine", lambda: None)
    unit = Unit(scope)
    unit.put(table, b"a", Row(tag="red"))
    unit.done()

    assert Unit(scope).scan_index(table, b"red") == [b"reda"]
    store.write(staging.freeze(), {}, index=staging.frozen_index)
    staging.thaw()

    assert made == [Row(tag="red")]
    assert Unit(scope).scan_index(table, b"red") == [b"reda"]


async def test_a_row_whose_index_keys_cannot_be_made_is_the_agents_failure_and_not_staged(tmp_path: Path) -> None:
    def index(key: bytes, row: Row) -> list[bytes]:
        raise ValueError("no index of it")

    table = Table("bad", 1, Row, index=index)
    unit = Unit(Scope("agent", Staging(Store(tmp_path / "db", [table], 3600)), RecordingOutputs(), "q", lambda: None))

    with pytest.raises(ValueError, match="no index"):
        unit.put(table, b"a", Row(n=1))

    assert unit.get(table, b"a") is None


async def test_a_held_record_holds_the_position_until_a_later_unit_finishes_it(tmp_path: Path) -> None:
    scope = new_scope(new_store(tmp_path))
    slice_, tracker = a_slice(3, 4, 5)
    unit = Unit(scope, slice_)
    unit.hold(slice_.records[1])
    unit.done()
    assert tracker.position == 4

    later = Unit(scope)
    later.finish(slice_.records[1])
    assert tracker.position == 4
    later.done()

    assert tracker.position == 6
    assert scope.held == {}


async def test_a_unit_of_a_number_taken_away_changes_nothing(tmp_path: Path) -> None:
    scope = new_scope(new_store(tmp_path))
    slice_, tracker = a_slice(3)
    unit = Unit(scope, slice_)
    unit.put(ROWS, b"a", Row(n=1))
    scope.valid = False

    with pytest.raises(Revoked):
        unit.done()

    assert tracker.position == 3
    assert scope.staging.overlay == {}


async def test_a_unit_is_not_done_while_its_outputs_are_not_acknowledged(tmp_path: Path) -> None:
    outputs = RecordingOutputs(failures=[OutputFailed("no")])
    scope = new_scope(new_store(tmp_path), outputs)
    unit = Unit(scope)
    unit.send("out", b"k", b"v")

    with pytest.raises(OutputFailed):
        await unit.flush()
    with pytest.raises(RuntimeError, match="acknowledged"):
        unit.done()

    await unit.flush()
    await unit.flush()
    unit.done()
    assert [m.value for m in outputs.sent] == [b"v"]


class Jobs:
    """A group of jobs that each add one of everything, and what became real of it."""

    def __init__(self, path: Path) -> None:
        self.outputs = RecordingOutputs()
        self.scope = new_scope(new_store(path), self.outputs)
        self.called: list[int] = []
        slice_, self.tracker = a_slice(1, 2, 3)
        self.records = slice_.records
        before = Unit(self.scope, slice_)
        for record in self.records:
            before.hold(record)
        before.done()
        self.unit = Unit(self.scope)

    def run(self, job: int) -> None:
        self.unit.put(ROWS, b"a", Row(n=job, tag=str(job)))
        self.unit.put(ROWS, b"b%d" % job, Row(n=job))
        self.unit.send("out", b"k", b"%d" % job)
        self.unit.send_late("late", b"k", b"%d" % job)
        self.unit.quarantine(FakeRecord(value=b"%d" % job), "handler_error", "")
        self.unit.finish(self.records[job - 1])
        self.unit.on_done(lambda: self.called.append(job))

    async def commit(self, unit: Unit) -> list[object]:
        """Rows, index keys, outputs, late ones, reasons of quarantine, unfinished records, and calls."""
        await unit.flush()
        unit.done()
        real = Unit(self.scope)
        return [
            [(key, row.n) for key, row in real.scan(ROWS)],
            real.scan_index(ROWS),
            [(message.topic, message.value) for message in self.outputs.sent],
            [message.value for message in self.scope.staging.late],
            list(unit.quarantined),
            self.tracker.unfinished,
            self.called,
        ]


async def test_a_failed_job_of_a_group_leaves_the_others_whole(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    jobs.run(1)
    failed = jobs.unit.mark()
    jobs.run(2)
    jobs.unit.rewind(failed)

    assert jobs.unit.get(ROWS, b"a") == Row(n=1, tag="1")
    assert jobs.unit.get(ROWS, b"b2") is None
    jobs.run(3)

    assert await jobs.commit(jobs.unit) == [
        [(b"a", 3), (b"b1", 1), (b"b3", 3)],
        [b"tag/3/a"],
        [("out", b"1"), ("quarantine", b"1"), ("out", b"3"), ("quarantine", b"3")],
        [b"1", b"3"],
        ["handler_error"] * 2,
        1,
        [1, 3],
    ]


async def test_what_one_job_of_a_group_has_added_can_be_a_unit_of_its_own(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    marks = [jobs.unit.mark()]
    for job in (1, 2, 3):
        jobs.run(job)
        marks.append(jobs.unit.mark())

    assert await jobs.commit(jobs.unit.part(marks[1], marks[2])) == [
        [(b"a", 2), (b"b2", 2)],
        [b"tag/2/a"],
        [("out", b"2"), ("quarantine", b"2")],
        [b"2"],
        ["handler_error"],
        2,
        [2],
    ]


async def test_what_must_start_after_the_merge_starts_after_the_merge(tmp_path: Path) -> None:
    scope = new_scope(new_store(tmp_path))
    unit = Unit(scope)
    unit.put(ROWS, b"a", Row(n=1))
    seen: list[object] = []
    unit.on_done(lambda: seen.append(Unit(scope).get(ROWS, b"a")))

    unit.done()

    assert seen == [Row(n=1)]


async def test_what_quarantine_refuses_whole_goes_there_cut_and_everything_else_as_it_was(tmp_path: Path) -> None:
    outputs = RecordingOutputs(failures=[OutputTooLarge("quarantine", 0)])
    unit = Unit(new_scope(new_store(tmp_path), outputs))
    unit.send("out", b"k", b"x" * 300_000)
    unit.quarantine(FakeRecord(value=b"v" * 300_000), "too_large", "")

    await unit.flush()

    assert [(m.topic, len(m.value)) for m in outputs.sent] == [("out", 300_000), ("quarantine", TRUNCATED_BYTES)]
    assert dict(outputs.sent[1].headers)["vs-truncated"] == b"300000"


async def test_a_quarantine_that_takes_not_even_the_cut_record_is_tried_again_for_ever(tmp_path: Path) -> None:
    refusals = [OutputTooLarge("quarantine", 0), OutputTooLarge("quarantine", 0)]
    outputs = RecordingOutputs(failures=list(refusals))
    unit = Unit(new_scope(new_store(tmp_path), outputs))
    unit.quarantine(FakeRecord(value=b"v"), "handler_error", "")

    with pytest.raises(OutputFailed) as failed:
        await unit.flush()
    await unit.flush()

    assert not isinstance(failed.value, OutputTooLarge)
    assert [m.topic for m in outputs.sent] == ["quarantine"]
