"""One number and the processes that fight for it, with a crash, a freeze or a failure between any two steps.

Each transaction that becomes readable holds a state and the positions that made it, exactly; and no row of an opening
gone by. Whatever happened, in the end every record has its effects once, and its outputs at least once.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant

from app.engine import changelog, faults
from app.engine import number as number_module
from app.engine.changelog import FencedChangelog
from app.engine.checkpoint import Checkpointer
from app.engine.errors import CheckpointFailed
from app.engine.number import State
from app.engine.positions import POSITIONS_KEY, decode_positions
from app.engine.producer import ProducerId
from tests.support import process as process_module
from tests.support.cluster import Cluster, MemoryProducer, Transaction
from tests.support.engine import ROWS, FakeRecord, Row
from tests.support.machines import Machine, action, caught, new_folder, play
from tests.support.process import COUNTED, LASTS, RELAYED, Process

KEYS = 3
SOURCES = [*COUNTED, RELAYED]
# Not where nothing but the end of the process may follow.
RAISED = [p for p in faults.POINTS if not p.startswith("unit:") and p != "revoke:dropped"]
# Of the requests: most go well.
BAD_FATES = ["refused", "lost", "unanswered", "late"]
FATES = ["well", "well", "well", *BAD_FATES]
JOB = b"job/"


class NumberMachine(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = new_folder()
        self.cluster = Cluster()
        self.cluster.sources = {tp: [] for tp in SOURCES}
        self.cluster.on_commit = self.committed
        self.wrong: list[str] = []
        self.positions: dict[tuple[str, int], int] = {}
        self.disks = 0
        self.jobs = 0
        self.made_by: dict[bytes, ProducerId] = {}
        self.promised: set[bytes] = set()
        self.processes: list[Process] = []

    @initialize()
    def begin(self) -> None:
        self.processes = [self._process(self._new_disk()), self._process(self._new_disk())]
        self._give_to(self.processes[0])

    def _new_disk(self) -> Path:
        self.disks += 1
        return self.folder / f"disk-{self.disks}"

    def _process(self, disk: Path) -> Process:
        return Process(self.cluster, disk, self.opened)

    # -- what must hold, whenever somebody else could see it

    def committed(self, transaction: Transaction) -> None:
        """Called by the broker: what is readable now."""
        positions = decode_positions(self.cluster.rows(("places", 0)).get(POSITIONS_KEY + b"count"))
        relayed = decode_positions(self.cluster.rows(("places", 0)).get(POSITIONS_KEY + b"relay"))
        now = {tp: position.offset for tp, position in {**positions, **relayed}.items()}
        for tp in SOURCES:
            if now.get(tp, 0) < self.positions.get(tp, 0):
                self.wrong.append(f"the position of {tp} went back from {self.positions[tp]} to {now.get(tp)}")
        self.positions = now
        rows = {key: ROWS.decode(value) for key, value in self.cluster.rows(("rows", 0)).items()}
        counts = {key: row for key, row in rows.items() if not key.startswith(JOB)}
        if counts != self._counts():
            self.wrong.append(f"rows {counts} at {now}, not {self._counts()}")
        lasts = {key: LASTS.decode(value).n for key, value in self.cluster.rows(("lasts", 0)).items()}
        if lasts != {topic.encode(): now[topic, 0] - 1 for topic, _ in COUNTED if now.get((topic, 0))}:
            self.wrong.append(f"the last records are {lasts} at {now}")
        sent = {message.value for message in self.cluster.outputs}
        if missing := {b"%d" % offset for offset in range(now.get(RELAYED, 0))} - sent:
            self.wrong.append(f"the position passes records whose outputs are not sent: {missing}")
        for _, (key, _) in transaction.writes:
            if key.startswith(JOB) and self.made_by[key] != transaction.producer:
                self.wrong.append(f"{key!r} of {self.made_by[key]} was written by {transaction.producer}")

    def _counts(self) -> dict[bytes, Row]:
        """What the records below the positions make."""
        counts = Counter(r.key for tp in COUNTED for r in self.cluster.sources[tp][: self.positions.get(tp, 0)])
        return {key: Row(n=n, tag="odd" if n % 2 else "") for key, n in counts.items()}

    def opened(self, process: Process) -> None:
        """Called by the agent, before it does anything: the disk is what the changelog says."""
        if process.number._changelog._producer.producer_id != self.cluster.producer:
            return
        self._compare_disk(process)

    def _compare_disk(self, process: Process) -> None:
        store = process.stores["count"]
        for table in (ROWS, LASTS):
            disk = {k[1:]: v for k, v in store.items(table.prefix_byte, bytes([table.prefix + 1]))}
            if disk != self.cluster.rows((table.name, 0)):
                self.wrong.append(f"the disk says {disk}, the log {self.cluster.rows((table.name, 0))}")
        index = [key[1:] for key, _ in store.items(b"\x81", b"\x82")]
        rows = {key: ROWS.decode(value) for key, value in self.cluster.rows(("rows", 0)).items()}
        if index != sorted(b"tag/odd/" + key for key, row in rows.items() if row.tag):
            self.wrong.append(f"the index says {index}, the rows {rows}")

    @invariant()
    def nothing_is_wrong(self) -> None:
        for process in self.processes:
            self.wrong += process.deaths
            if process.number is not None and process.number.state is State.REFUSED:
                self.wrong.append(process.number.reason)
        assert not self.wrong, self.wrong[0]
        readable = self.cluster.rows(("rows", 0))
        assert self.promised <= readable.keys()
        assert all(self.positions.get(tp, 0) >= offset for tp, offset in self.cluster.offsets.items())

    # -- what a process does

    @property
    def awake(self) -> list[Process]:
        return [process for process in self.processes if not process.frozen]

    def _draw(self, data: st.DataObject, processes: list[Process]) -> Process:
        """Mostly the owner: there is not much to see of the others."""
        owner = [process for process in processes if process is self.cluster.owner]
        return data.draw(st.sampled_from([*owner, *owner, *processes]), label="process")

    @action()
    def records_are_produced(self, data: st.DataObject) -> None:
        for tp in SOURCES:
            for key in data.draw(st.lists(st.integers(0, KEYS - 1), max_size=4), label=tp[0]):
                offset = len(self.cluster.sources[tp])
                self.cluster.sources[tp].append(FakeRecord(*tp, offset=offset, timestamp=offset, key=b"k%d" % key))

    @action(6, when=lambda self: self.awake)
    def steps_are_taken(self, data: st.DataObject) -> None:
        process = self._draw(data, self.awake)
        process.run(data.draw(st.integers(1, 25), label="steps"))

    @action(14, when=lambda self: self.awake)
    def it_works_for_a_while(self, data: st.DataObject) -> None:
        """A consumer takes its time too: another opening may come between its steps."""
        self.records_are_produced(data)
        process = self._draw(data, self.awake)
        for go_on in (lambda: process.fetch(3), process.take, process.hand_over):
            go_on()
            if process.open and data.draw(st.integers(0, 7), label="reopened at 0") == 0:
                process.number.reopen("an offset is gone")
                process.run(data.draw(st.sampled_from([20, 100, 400]), label="steps between"))
        process.run(data.draw(st.sampled_from([20, 60, 120, 200, 400]), label="steps"))

    @action(when=lambda self: self.awake)
    def what_was_fetched_is_lost(self, data: st.DataObject) -> None:
        process = self._draw(data, self.awake)
        process.fetch(data.draw(st.integers(1, 3)))
        process.fetch_fails()

    @action(3, when=lambda self: self.awake)
    def a_job_is_submitted(self, data: st.DataObject) -> None:
        process = self._draw(data, self.awake)
        self.jobs += 1
        key, number = JOB + b"%d" % self.jobs, process.number

        def job(unit: object) -> None:
            self.made_by[key] = number._changelog._producer.producer_id
            unit.put(ROWS, key, Row(n=1))

        process.submit(job, lambda: self.promised.add(key))

    @action(when=lambda self: self.awake)
    def an_agent_fails_once(self, data: st.DataObject) -> None:
        self._draw(data, self.awake).fail_next = True

    @action()
    def a_disk_is_written(self, data: st.DataObject) -> None:
        """Rows are in memory until then, and a crash forgets them."""
        for store in self._draw(data, self.processes).stores.values():
            store._db.flush()

    # -- what goes wrong

    @action(5)
    def a_request_fails(self, data: st.DataObject) -> None:
        process = self._draw(data, self.processes)
        kind = data.draw(st.sampled_from(["init", "produce", "end", "end", "output"]), label="kind")
        process.wire.fate_of[kind] = data.draw(st.sampled_from(BAD_FATES), label="fate")

    @action(2)
    def requests_fail(self, data: st.DataObject) -> None:
        process = self._draw(data, self.processes)
        process.wire.fates.extend(data.draw(st.lists(st.sampled_from(FATES), max_size=8), label="fates"))

    @action(2, when=lambda self: self.cluster.late or any(p.wire.sending for p in self.processes))
    def a_request_arrives(self, data: st.DataObject) -> None:
        """Of one who sleeps; or late."""
        sending = [sent for process in self.processes for sent in process.wire.sending]
        data.draw(st.sampled_from([*self.cluster.late, *sending]), label="request").arrive()
        self.cluster.late = [sent for sent in self.cluster.late if not sent.arrived]

    @action()
    def a_step_fails(self, data: st.DataObject) -> None:
        faults.arm(faults.parse(data.draw(st.sampled_from(RAISED), label="point") + ":raise"))

    @action()
    def a_process_is_killed_and_another_begins(self, data: st.DataObject) -> None:
        old = self._draw(data, self.processes)
        at = self.processes.index(old)
        if data.draw(st.booleans(), label="what it sent arrives"):
            for sent in list(old.wire.sending):
                sent.arrive()
        left = old.kill(self._new_disk())
        disk = data.draw(st.sampled_from([left, left, self._new_disk()]), label="disk")
        self.processes[at] = self._process(disk)
        self._give_to(data.draw(st.sampled_from([p for p in self.processes if not p.frozen]), label="to"))

    @action(when=lambda self: len(self.awake) > 1)
    def a_process_freezes(self, data: st.DataObject) -> None:
        """Its session ends; a request of its may be on its way."""
        process = self._draw(data, self.awake)
        process.frozen = True
        if process is self.cluster.owner:
            self._give_to(self.awake[0])

    @action(2, when=lambda self: len(self.awake) < len(self.processes))
    def a_process_wakes(self, data: st.DataObject) -> None:
        """Believing that it owns what it owned."""
        (process,) = [process for process in self.processes if process.frozen]
        process.frozen = False
        process.loop.pass_time(data.draw(st.sampled_from([0.0, 30.0])))

    @action(when=lambda self: self.awake)
    def a_process_hears_that_it_lost(self, data: st.DataObject) -> None:
        for process in self.awake:
            if process is not self.cluster.owner:
                process.give_up(lost=True)

    @action(3, when=lambda self: len(self.awake) > 1 and self.cluster.owner in self.awake)
    def the_group_goes_on_without_one_who_does_not_hear_of_it(self, data: st.DataObject) -> None:
        """Both write for a while."""
        self.records_are_produced(data)
        former = self.cluster.owner
        (heir,) = [process for process in self.awake if process is not former]
        former.work(3)
        former.run(data.draw(st.integers(0, 60), label="steps of the former owner"))
        self._assign(heir)
        for steps in data.draw(st.lists(st.integers(1, 12), min_size=2, max_size=12), label="steps in turn"):
            heir.run(steps)
            former.run(steps)
        heir.work(3)

    @action(when=lambda self: self.awake)
    def it_fails_while_the_group_rebalances(self, data: st.DataObject) -> None:
        self.a_request_fails(data)
        self._give_to(data.draw(st.sampled_from(self.awake), label="to"))

    @action(when=lambda self: self.awake)
    def the_group_rebalances(self, data: st.DataObject) -> None:
        self._give_to(data.draw(st.sampled_from(self.awake), label="to"))

    def _give_to(self, process: Process) -> None:
        for other in self.awake:
            other.give_up(lost=other is not self.cluster.owner)
        self._assign(process)

    def _assign(self, process: Process) -> None:
        self.cluster.generation += 1
        self.cluster.owner = process
        process.assign(self.cluster.generation)

    # -- the end

    def teardown(self) -> None:
        try:
            if self.processes and not self.wrong:
                self._settle()
        finally:
            faults.arm(None)
            for process in self.processes:
                process.close()
            shutil.rmtree(self.folder)

    def _settle(self) -> None:
        """Left alone, it comes to an end: everything is done, once, and nothing is stuck."""
        faults.arm(None)
        for process in self.processes:
            process.frozen = False
            process.wire.fates.clear()
            process.wire.fate_of.clear()
            if process is not self.cluster.owner:
                process.give_up(lost=True)
        owner = self.cluster.owner
        ends = {tp: len(records) for tp, records in self.cluster.sources.items()}
        for _ in range(300):
            if {tp: self.positions.get(tp, 0) for tp in SOURCES} == ends and owner.open:
                break
            owner.work(3)
            owner.run(60)
        else:
            raise AssertionError(f"stuck at {self.positions} of {ends}: {owner.number.state} {owner.number.reason}")
        owner.give_up(lost=False)
        assert owner.left_over() == []
        self.nothing_is_wrong()
        self._compare_disk(owner)
        self.nothing_is_wrong()


@pytest.fixture(autouse=True)
def _memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(changelog, "FencedProducer", MemoryProducer)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(
    "histories", [pytest.param(70, id="short"), pytest.param(2_000, id="full", marks=pytest.mark.prove)]
)
def test_state_and_positions_agree_in_every_transaction_whatever_dies_or_fails_between_two_steps(
    histories: int,
) -> None:
    play(NumberMachine, histories, 50, "Model: a number, its checkpoints and its openings")


class Eager(Checkpointer):
    """Writes rows to the disk before they are logged."""

    def _writes(self, frozen: list) -> list:
        for part in frozen:
            part.state.staging.store.write(part.rows, {})
        return super()._writes(frozen)


class Trusting(FencedChangelog):
    """Takes a transaction whose outcome is unknown for one that was committed."""

    async def write(self, writes: list) -> dict[str, int]:
        try:
            return await super().write(writes)
        except CheckpointFailed:
            return {}


class Hasty(Checkpointer):
    """Logs rows and positions without what was sent late for them."""

    async def _sent(self, frozen: list, patience_s: float) -> list:
        sent = await super()._sent(frozen, patience_s)
        left, self._unsent = self._unsent, []
        return sent + left


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ((number_module, "Checkpointer"), Hasty),
        ((number_module, "Checkpointer"), Eager),
        ((process_module, "FencedChangelog"), Trusting),
    ],
)
def test_an_engine_that_writes_or_logs_too_early_or_trusts_an_unknown_outcome_is_caught(
    where: tuple[object, str], what: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*where, what)

    assert caught(NumberMachine, 40, 50) is not None
