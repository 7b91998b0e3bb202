"""Units over overlay, frozen rows and disk against plain dicts, whatever the checkpoint and the number are doing."""

import shutil
from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant

from app.engine import Message, Revoked, Table, Unit
from app.engine.staging import Changes, Staging
from app.engine.store import Store
from app.engine.unit import Mark, Scope
from tests.support.engine import RecordingOutputs, Row
from tests.support.machines import Machine, action, caught, new_folder, play


def _by_tag(key: bytes, row: Row) -> list[bytes]:
    """Several keys for a row, in no order."""
    return [b"tag/" + row.tag.encode() + b"/" + key, b"n/%d/" % row.n + key] if row.tag else []


# The last prefix, and keys and tags of bytes at the edges, so that a bound that is off by one meets a neighbour.
FIRST = Table("first", 1, Row, index=_by_tag)
SECOND = Table("second", 2, Row, index=lambda key, row: [b"\xff" + key] if row.n > 4 else [])
LAST = Table("last", 126, Row)
TABLES = [FIRST, SECOND, LAST]

# Most of it is about the index.
tables = st.sampled_from([FIRST, FIRST, FIRST, SECOND, LAST])
keys = st.sampled_from([b"a", b"a\x00", b"a\xff", b"a\xff\xff", b"ab", b"b", b"\xff", b"\xff\xff"])
PREFIXES = [b"", b"a", b"a\xff", b"b", b"\xff", b"c"]
INDEX_PREFIXES = [b"", b"tag/", b"tag/g", b"n/", b"n/5", b"\xff", b"\xff\xff", b"x"]
rows = st.builds(Row, n=st.integers(0, 9), tag=st.sampled_from(["", "blue", "green", "gray", "red"]))
limits = st.sampled_from([0, 1, 2, 1000])
# Or every history is nothing but openings.
OPENED_FOR = 8

Model = dict[tuple[str, bytes], Row]
Staged = dict[tuple[str, bytes], Row | None]
Read = tuple[dict, list, list]


def over(model: Model, staged: Staged) -> Model:
    return {at: row for at, row in {**model, **staged}.items() if row is not None}


class StagingMachine(Machine):
    staging_class = Staging

    def __init__(self) -> None:
        super().__init__()
        self.path = new_folder()
        self.on_disk: Model = {}
        self.merged: Model = {}
        self.sent: list[bytes] = []
        self.called: list[int] = []
        self.calls = 0

    # A history has few rows, or no row is ever written twice.
    @initialize(
        places=st.lists(st.tuples(tables, keys), min_size=2, max_size=4, unique_by=lambda at: (at[0].name, at[1]))
    )
    def begin_with(self, places: list[tuple[Table, bytes]]) -> None:
        self.places = places
        self.open()

    def open(self) -> None:
        """Whatever was not on disk is gone."""
        self.store = Store(self.path / "db", TABLES, 1e9)
        self.outputs = RecordingOutputs()
        self.scope = Scope("agent", self.staging_class(self.store), self.outputs, "quarantine", lambda: None)
        self.merged = dict(self.on_disk)
        self.pending: tuple[Changes, Model] | None = None
        self.steps = 0
        self.begin()

    def begin(self) -> None:
        self.unit = Unit(self.scope)
        self.staged: Staged = {}
        self.sends: list[bytes] = []
        self.after: list[int] = []
        self.job: Mark | None = None

    # -- what an agent does

    @property
    def seen(self) -> Model:
        return over(over(self.merged, self.staged), self.job_staged if self.job else {})

    @action(6)
    def write(self, data: st.DataObject) -> None:
        table, key = data.draw(st.sampled_from(self.places))
        row = data.draw(st.none() | rows)
        if row is None:
            self.unit.delete(table, key)
        else:
            self.unit.put(table, key, row)
        (self.job_staged if self.job else self.staged)[table.name, key] = row

    @action()
    def send(self, data: st.DataObject) -> None:
        value = data.draw(st.binary(max_size=3))
        self.unit.send("out", b"k", value)
        (self.job_sends if self.job else self.sends).append(value)

    @action()
    def ask_for_a_call(self, data: st.DataObject) -> None:
        self.calls += 1
        call = self.calls
        self.unit.on_done(lambda: self.called.append(call))
        (self.job_after if self.job else self.after).append(call)

    @action(2, when=lambda self: self.job is None)
    def a_job_begins(self, data: st.DataObject) -> None:
        self.job = self.unit.mark()
        self.job_staged: Staged = {}
        self.job_sends: list[bytes] = []
        self.job_after: list[int] = []

    @action(2, when=lambda self: self.job is not None)
    def a_job_ends(self, data: st.DataObject) -> None:
        if data.draw(st.booleans(), label="succeeds"):
            self.staged |= self.job_staged
            self.sends += self.job_sends
            self.after += self.job_after
        else:
            self.unit.rewind(self.job)
        self.job = None

    # -- what the runner does

    @action(2)
    def done(self, data: st.DataObject) -> None:
        if self.job is not None:
            self.unit.rewind(self.job)
        self._flush()
        before = list(self.called)
        self.unit.done()
        self.merged = over(self.merged, self.staged)
        assert self.called == before + self.after
        self.begin()

    def _flush(self) -> None:
        before = list(self.outputs.sent)
        _run(self.unit.flush)
        assert self.outputs.sent == before + [Message("out", b"k", value) for value in self.sends]

    @action()
    def thrown_away(self, data: st.DataObject) -> None:
        self.begin()

    @action(when=lambda self: self.sends)
    def not_acknowledged(self, data: st.DataObject) -> None:
        """It stays as it was, and may not be done."""
        self.outputs.failures = [OSError("no answer")]
        with pytest.raises(OSError, match="no answer"):
            _run(self.unit.flush)
        with pytest.raises(RuntimeError, match="acknowledged"):
            self.unit.done()

    # -- what the number does

    @action(2, when=lambda self: self.pending is None)
    def checkpoint_begins(self, data: st.DataObject) -> None:
        self.pending = (self.scope.staging.freeze(), dict(self.merged))
        assert not self.scope.staging.overlay

    @action(when=lambda self: self.pending is not None)
    def checkpoint_ends(self, data: st.DataObject) -> None:
        changes, self.on_disk = self.pending
        self.store.write(changes, {}, index=self.scope.staging.frozen_index)
        self.scope.staging.thaw()
        self.pending = None

    @action(when=lambda self: self.steps > OPENED_FOR)
    def dropped_and_opened_again(self, data: st.DataObject) -> None:
        """A late unit of the opening gone by changes nothing, wherever its checkpoint was."""
        if self.pending is not None and data.draw(st.booleans(), label="logged"):
            changes, self.on_disk = self.pending
            self.store.write(changes, {}, index=self.scope.staging.frozen_index)
        late, calls = self.unit, list(self.called)
        self.scope.valid = False
        self.sends = []
        late._messages = []
        with pytest.raises(Revoked):
            late.done()
        assert self.called == calls
        self.store.close()
        self.open()

    # -- what must hold

    @action(3)
    def scan(self, data: st.DataObject) -> None:
        table, start, limit = data.draw(st.tuples(tables, st.none() | keys, limits))
        mine = [(key, row) for (name, key), row in sorted(self.seen.items()) if name == table.name]
        for prefix in PREFIXES:
            found = [(key, row) for key, row in mine if key.startswith(prefix) and (start is None or key >= start)]
            assert self.unit.scan(table, prefix, start=start, limit=limit) == found[:limit]

    @action(3)
    def scan_index(self, data: st.DataObject) -> None:
        table, prefix, limit = data.draw(st.tuples(tables, st.sampled_from(INDEX_PREFIXES), limits))
        bounds = [None, *INDEX_PREFIXES, *self._index(table)]
        start = data.draw(st.sampled_from(bounds))
        mine = [key for key in self._index(table) if key.startswith(prefix) and (start is None or key >= start)]
        for stop in bounds:
            found = [key for key in mine if stop is None or key < stop]
            assert self.unit.scan_index(table, prefix, start=start, stop=stop, limit=limit) == found[:limit]

    def _index(self, table: Table) -> list[bytes]:
        if table.index is None:
            return []
        mine = {key: row for (name, key), row in self.seen.items() if name == table.name}
        return sorted(found for key, row in mine.items() for found in table.index(key, row))

    @invariant()
    def a_unit_reads_its_own_writes_over_everything(self) -> None:
        self.steps += 1
        seen = self.seen
        for table in TABLES:
            mine = {key: row for (name, key), row in sorted(seen.items()) if name == table.name}
            assert dict(self.unit.scan(table)) == mine
            assert all(self.unit.get(table, key) == row for key, row in mine.items())
            assert self.unit.get(table, b"absent") is None
        for name, key in {**self.merged, **self.staged}.keys() - seen.keys():
            (table,) = [table for table in TABLES if table.name == name]
            assert self.unit.get(table, key) is None
        assert self.unit.scan_index(FIRST) == self._index(FIRST)
        assert self.unit.scan_index(SECOND) == self._index(SECOND)

    @invariant()
    def others_see_only_what_is_merged(self) -> None:
        other = Unit(self.scope)
        for table in TABLES:
            mine = {key: row for (name, key), row in self.merged.items() if name == table.name}
            assert dict(other.scan(table)) == mine

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.path)


def _run(work: Callable) -> None:
    """Nothing in it waits."""
    try:
        work().send(None)
    except StopIteration:
        return
    raise AssertionError("it waits for something")


@pytest.mark.parametrize(
    "histories", [pytest.param(100, id="short"), pytest.param(2_000, id="full", marks=pytest.mark.prove)]
)
def test_a_unit_reads_its_own_writes_and_a_thrown_one_leaves_no_trace(histories: int) -> None:
    play(StagingMachine, histories, 40, "Model: units over overlay, frozen rows and disk")


class Forgetful(Staging):
    """Forgets, as the checkpoint ends, what was merged while it ran."""

    def thaw(self) -> None:
        self.freeze()
        super().thaw()


class Stale(Staging):
    """Reads frozen rows before those merged later."""

    def get(self, key: bytes) -> bytes | None:
        if key in self._frozen.rows:
            return self._frozen.rows[key]
        return super().get(key)


@pytest.mark.parametrize("broken", [Forgetful, Stale])
def test_a_staging_that_forgets_or_reads_old_rows_is_caught(broken: type[Staging]) -> None:
    machine = type("Broken", (StagingMachine,), {"staging_class": broken})

    assert caught(machine, 100, 40) is not None
