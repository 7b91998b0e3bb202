"""Lives of a number, each from a restore by the log to the crash that ends it."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

from app.engine import Agent, Clock, Table, Unit, slice_handler
from app.engine.checkpoint import AgentState, Checkpointer
from app.engine.late_outputs import LateOutputs
from app.engine.positions import META_KEY, POSITIONS_KEY, decode_positions
from app.engine.records import cut
from app.engine.restore import apply_records
from app.engine.staging import Staging
from app.engine.store import Store
from app.engine.tracker import Tracker
from app.engine.unit import Scope
from tests.support.engine import ROWS, FakeRecord, RecordingOutputs, Row
from tests.support.number import PLACES, MemoryChangelog, MemoryLog

IN = ("in", 0)
RELAY = ("relay", 0)
KEYS = 3
DELETES_EACH = 5


async def _nothing(*_: object) -> None: ...


def _agent(name: str, *tables: Table) -> Agent:
    """Its home is shared with the other agent."""
    return Agent(name=name, topics=(), processor=slice_handler(_nothing), home=PLACES, tables=(PLACES, *tables))


AGENTS = {"fold": (_agent("fold", ROWS), IN), "relay": (_agent("relay"), RELAY)}


def fold_one(rows: dict[bytes, Row], offset: int) -> tuple[bytes, Row | None]:
    """What the record at this offset does; doing it twice, or not at all, shows."""
    key = b"k%d" % (offset % KEYS)
    if offset % DELETES_EACH == DELETES_EACH - 1:
        return key, None
    n = (rows.get(key) or Row()).n + 1
    return key, Row(n=n, tag="odd" if n % 2 else "")


def fold(count: int) -> dict[bytes, Row]:
    rows: dict[bytes, Row] = {}
    for offset in range(count):
        key, row = fold_one(rows, offset)
        if row is None:
            rows.pop(key, None)
        else:
            rows[key] = row
    return rows


class SteppedClock(Clock):
    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s


class Life:
    """Two agents of one number, from a restore by the log to the crash that ends it."""

    def __init__(self, path: Path, log: MemoryLog, sources: tuple[tuple[str, int], ...] = (IN, RELAY)) -> None:
        self.log = log
        self.changelog = MemoryChangelog(log)
        self.committed: dict[tuple[str, int], int] = {}
        self.stores: dict[str, Store] = {}
        self.scopes: dict[str, Scope] = {}
        self.outputs = RecordingOutputs()
        self.ours = True
        self.woken = 0
        late = LateOutputs(0, self.outputs, Clock(), lambda: self.ours, lambda: True)
        self.checkpointer = Checkpointer(
            0, 4, self.changelog, lambda table: table, self.copy, lambda: True, late, self.wake
        )
        for name, (agent, tp) in AGENTS.items():
            self.stores[name] = store = Store(path / name, agent.tables, 1e9)
            for table in agent.tables:
                self._restore(store, agent, table)
            logged = decode_positions(store.get(POSITIONS_KEY + name.encode()))
            trackers = {tp: Tracker(logged[tp].offset if tp in logged else 0)} if tp in sources else {}
            staging = Staging(store)
            meta = store.get(META_KEY + name.encode()) is not None
            self.checkpointer.states.append(AgentState(agent, staging, trackers, {tp[0]: "id"}, logged, meta))
            self.scopes[name] = Scope(name, staging, RecordingOutputs(), "quarantine", lambda: None)

    def _restore(self, store: Store, agent: Agent, table: Table) -> None:
        end = self.log.ends[table.name, 0]
        assert store.applied(table.name) <= end, "the disk is beyond the log"
        missing = [r for r in self.log.records[table.name, 0] if r.offset >= store.applied(table.name)]
        asyncio.run(apply_records(store, agent.name, table, table.name, missing, end))

    def wake(self) -> None:
        self.woken += 1

    async def copy(self, offsets: dict[tuple[str, int], int]) -> None:
        self.committed |= offsets

    def tracker(self, name: str) -> Tracker:
        (state,) = [state for state in self.checkpointer.states if state.agent.name == name]
        return state.trackers[AGENTS[name][1]]

    def handle(self, name: str, count: int) -> None:
        """One unit over the next records."""
        tracker, tp = self.tracker(name), AGENTS[name][1]
        records = [FakeRecord(*tp, offset=o) for o in range(tracker.position, tracker.position + count)]
        (slice_,) = cut(0, records, count, {tp: tracker}, None, 0.0)
        unit = Unit(self.scopes[name], slice_)
        for record in records if name == "fold" else ():
            unit.send_late("told", b"k", b"%d" % record.offset)
            key, row = fold_one(dict(unit.scan(ROWS)), record.offset)
            if row is None:
                unit.delete(ROWS, key)
            else:
                unit.put(ROWS, key, row)
        unit.done()

    def checkpoint(self) -> bool:
        return asyncio.run(self.checkpointer.run())

    def position(self, name: str) -> int:
        """As the disk has it."""
        row = self.stores[name].get(POSITIONS_KEY + name.encode())
        found = decode_positions(row).get(AGENTS[name][1])
        return 0 if found is None else found.offset

    def on_disk(self) -> dict[bytes, Row]:
        return {key[1:]: ROWS.decode(value) for key, value in self.stores["fold"].items(b"\x01", b"\x02")}

    def index_on_disk(self) -> list[bytes]:
        return [key for key, _ in self.stores["fold"].items(b"\x81", b"\x82")]

    def end(self) -> None:
        for store in self.stores.values():
            store.close()


@contextlib.contextmanager
def lived(path: Path, log: MemoryLog, **kwargs: tuple) -> Iterator[Life]:
    life = Life(path, log, **kwargs)
    try:
        yield life
    finally:
        life.end()
