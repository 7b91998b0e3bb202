"""The audit line of a partition, with crashes at any point and answers of every kind."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.integrations.audit import read_audit_record
from app.integrations.chain import Batch, ChainHead, hash_of
from app.integrations.governance import Fate, Flush, Line, Part, Reply
from app.integrations.verification import TopicCheck
from tests.support.audit_records import audit_value

PARTITION = 3
FLUSH = Flush(size=4, limit_bytes=4000, interval_s=5.0)


@dataclass
class State:
    """What a worker has merged, or what the changelog has."""

    head: ChainHead | None = None
    batches: dict[int, Batch] = field(default_factory=dict)
    position: int = 0

    def copy(self) -> State:
        return replace(self, batches=dict(self.batches))

    def line(self) -> Line:
        first = self.head.unaccepted if self.head else None
        return Line(PARTITION, FLUSH, self.head, None if first is None else self.batches[first])


class Dashboard:
    """Takes what is small and not poisoned, each id once."""

    def __init__(self) -> None:
        self.accepted: dict[str, list[int]] = {}
        self.bodies: dict[str, bytes] = {}
        self.limit = 4

    def post(self, part: Part) -> Reply:
        assert self.bodies.setdefault(part.id, part.body) == part.body
        entries = orjson.loads(part.body)
        assert [int(part.headers["X-Batch-First-Offset"]), int(part.headers["X-Batch-Last-Offset"])] == [
            entries[0]["sequence"],
            entries[-1]["sequence"],
        ]
        if part.id in self.accepted:
            return Reply.ACCEPTED
        if len(entries) > self.limit or any(entry["details"].get("poison") for entry in entries):
            return Reply.REFUSED
        assert all(hash_of(entry) == entry["hash"] for entry in entries)
        self.accepted[part.id] = [entry["sequence"] for entry in entries]
        return Reply.ACCEPTED


class AuditLine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[int, bytes]] = []
        self.poison: set[int] = set()
        self.quarantined: set[int] = set()
        self.merged = State()
        self.durable = State()
        self.line = self.merged.line()
        self.read = 0
        self.now_s = 0.0
        self.dashboard = Dashboard()

    @rule(kinds=st.lists(st.sampled_from(["good", "poison", "large", "unreadable"]), min_size=1, max_size=6))
    def append(self, kinds: list[str]) -> None:
        for kind in kinds:
            offset = len(self.log)
            details = {"poison": True} if kind == "poison" else {"text": "x" * (1500 if kind == "large" else 1)}
            value = b"not an event" if kind == "unreadable" else audit_value(offset, details=details)
            if kind == "poison":
                self.poison.add(offset)
            self.log.append((1_750_000_000_000 + offset, value))

    @rule(count=st.integers(1, 5))
    def deliver(self, count: int) -> None:
        for _ in range(min(count, len(self.log) - self.read)):
            timestamp_ms, value = self.log[self.read]
            if value.startswith(b"{"):
                fate = self.line.add(
                    self.read,
                    timestamp_ms,
                    read_audit_record(value, timestamp_ms),
                    size_bytes=len(value),
                    due_s=self.now_s + FLUSH.interval_s,
                )
                assert (fate is Fate.KNOWN) == (self.read < self.merged.position)
            self.read += 1

    @rule(seconds=st.sampled_from([1.0, 6.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @precondition(lambda self: self.line.batch is None)
    @rule()
    def seal(self) -> None:
        self._seal_next()

    @rule()
    def checkpoint(self) -> None:
        self.durable = self.merged.copy()

    @precondition(lambda self: self.line.sendable())
    @rule(answer=st.sampled_from(["real", "none", "lost"]), limit=st.integers(1, 4))
    def post(self, answer: str, limit: int) -> None:
        self.checkpoint()
        if answer == "none":
            return
        # An id that was seen is answered as it was: a dashboard that changes its mind about one is not ours to model.
        part = self.line.next_part()
        if part.id not in self.dashboard.bodies:
            self.dashboard.limit = limit
        reply = self.dashboard.post(part)
        if answer == "lost":
            return
        step = self.line.answered(part, reply)
        self.merged.batches[step.batch.first] = step.batch
        if step.rejected is not None:
            self.quarantined.add(step.rejected)
        self.line.settled(step)
        if step.done:
            self.merged.head = step.head
            self.merged.position = step.batch.last + 1
            self._seal_next()

    @rule()
    def crash(self) -> None:
        self.merged = self.durable.copy()
        self.line = self.merged.line()
        self.read = self.merged.position

    @invariant()
    def a_record_is_accepted_in_one_batch_at_most(self) -> None:
        accepted = [sequence for sequences in self.dashboard.accepted.values() for sequence in sequences]
        assert len(accepted) == len(set(accepted))
        assert not set(accepted) & self.poison
        assert self.line.broken is None

    def teardown(self) -> None:
        self.dashboard.limit = 4
        self.deliver(len(self.log))
        self.now_s += 10
        if self.line.batch is None:
            self._seal_next()
        while self.line.sendable():
            self.post("real", 4)
        accepted = {sequence for sequences in self.dashboard.accepted.values() for sequence in sequences}
        readable = {offset for offset, (_, value) in enumerate(self.log) if value.startswith(b"{")}
        assert accepted | self.quarantined == readable
        assert self.quarantined == self.poison & readable
        assert self.merged.position == max(readable, default=-1) + 1
        check = TopicCheck(PARTITION, self.merged.batches.values())
        for offset, (timestamp_ms, value) in enumerate(self.log):
            check.add(offset, timestamp_ms, value)
        verdict = check.end(len(self.log))
        assert verdict.ok, verdict.findings
        assert verdict.unsealed == 0
        assert verdict.checked == len(readable)

    def _seal_next(self) -> None:
        seal = self.line.propose(self.now_s)
        assert seal == self.line.propose(self.now_s)
        if seal is None:
            return
        assert seal.batch.count <= FLUSH.size
        self.merged.head = seal.head
        self.merged.batches[seal.batch.first] = seal.batch
        self.line.sealed(seal)


TestAuditLine = AuditLine.TestCase
TestAuditLine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
