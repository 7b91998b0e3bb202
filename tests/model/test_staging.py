"""Reads through overlay, frozen rows and disk against one plain dict, whatever the checkpoint is doing."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.engine import Unit
from app.engine.unit import Scope
from tests.support.engine import ROWS, Row, new_scope, new_store

keys = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
tags = st.sampled_from(["", "blue", "green", "red"])


class StagingMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp())
        self.store = new_store(self.path)
        self.scope: Scope = new_scope(self.store)
        self.unit = Unit(self.scope)
        self.merged: dict[bytes, Row] = {}
        self.staged: dict[bytes, Row | None] = {}
        self.frozen = False

    @rule(key=keys, tag=tags, n=st.integers(0, 9))
    def put(self, key: bytes, tag: str, n: int) -> None:
        self.unit.put(ROWS, key, Row(n=n, tag=tag))
        self.staged[key] = Row(n=n, tag=tag)

    @rule(key=keys)
    def delete(self, key: bytes) -> None:
        self.unit.delete(ROWS, key)
        self.staged[key] = None

    @rule()
    def done(self) -> None:
        self.unit.done()
        for key, row in self.staged.items():
            if row is None:
                self.merged.pop(key, None)
            else:
                self.merged[key] = row
        self.throw_away()

    @rule()
    def throw_away(self) -> None:
        self.unit, self.staged = Unit(self.scope), {}

    @rule()
    def checkpoint_begins(self) -> None:
        if not self.frozen:
            self.pending = self.scope.staging.freeze()
            self.frozen = True

    @rule()
    def checkpoint_ends(self) -> None:
        if self.frozen:
            self.store.write(self.pending, {})
            self.scope.staging.thaw()
            self.frozen = False

    @rule()
    def opened_again(self) -> None:
        """Everything that was checkpointed is there, with its index."""
        self.checkpoint_ends()
        self.checkpoint_begins()
        self.checkpoint_ends()
        self.store.close()
        self.store = new_store(self.path)
        self.scope = new_scope(self.store)
        self.throw_away()

    @invariant()
    def reads_scans_and_index_agree_with_the_dict(self) -> None:
        rows = {**self.merged, **self.staged}
        expected = {key: row for key, row in sorted(rows.items()) if row is not None}
        assert {key: self.unit.get(ROWS, key) for key in expected} == expected
        assert dict(self.unit.scan(ROWS)) == expected
        index = sorted(b"tag/" + row.tag.encode() + b"/" + key for key, row in expected.items() if row.tag)
        assert self.unit.scan_index(ROWS, b"tag/") == index
        assert self.unit.scan_index(ROWS, b"tag/green") == [key for key in index if key.startswith(b"tag/green")]

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.path)


StagingMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestStaging = StagingMachine.TestCase
