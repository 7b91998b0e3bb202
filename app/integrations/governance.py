"""Audit batches without I/O: what is sealed, what is sent, and what an answer means (architecture 6).

`Line` is the state machine of one partition of the audit topic. It never changes by itself: `propose` and `answered`
say what should become of it, the caller makes that durable, and only then tells it (`sealed`, `settled`). So a caller
that dies in between has a line whose rows still tell the truth.

```
waiting ──size, bytes or age──► sealed ──2xx, 409──► accepted
                                  │ ▲
              413, 400, 422 ──────┘ └── the halves, in order; one record that is refused goes to quarantine
```

A sealed batch is constant: after a crash its records are read again and give the same hashes, or it is not sent at all.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from app.integrations.chain import GENESIS, Batch, ChainHead, Entry, batch_id, chain_id, make_entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Fate", "Flush", "Line", "Part", "Reply", "Seal", "Step"]

ACCEPTED: Final = "accepted"
REJECTED: Final = "rejected"
SPLIT: Final = "split"


class Fate(Enum):
    """What became of a record that was added to a line."""

    HELD = "held"
    """It leaves with a batch; its record is done when that is accepted."""
    KNOWN = "known"
    """It is in the chain and the dashboard has it: done."""


class Reply(Enum):
    """What the dashboard said of a part."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    """413, 400 or 422: the part is halved, or, if it is one record, given up."""


@dataclass(frozen=True, slots=True)
class Flush:
    """When a batch is sealed: whichever comes first.

    Attributes:
        size: Records, and the most that a batch holds.
        limit_bytes: Bytes of its entries; a batch exceeds it only if it is one record.
        interval_s: Age of its first record.
    """

    size: int = 100
    limit_bytes: int = 1024 * 1024
    interval_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Seal:
    """A batch that should be sealed.

    Attributes:
        batch: Its row.
        head: The head of the chain with it.
        entries: Its entries, in order.
        lost: A batch that was sealed before and whose records retention has taken: its row goes.
    """

    batch: Batch
    head: ChainHead
    entries: tuple[Entry, ...]
    lost: Batch | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """What is to be posted now: a batch, or a part of a split one.

    Attributes:
        id: Batch id and suffix: the idempotency key.
        suffix: Empty for the whole batch.
        entries: At least one.
    """

    id: str
    suffix: str
    entries: Sequence[Entry]

    @property
    def body(self) -> bytes:
        """The JSON array to post, the same bytes whenever it is made."""
        return b"[" + b",".join(entry.body for entry in self.entries) + b"]"

    @property
    def headers(self) -> dict[str, str]:
        """What identifies it to the dashboard (contracts 4)."""
        return {
            "Idempotency-Key": self.id,
            "X-Batch-First-Offset": str(self.entries[0].sequence),
            "X-Batch-Last-Offset": str(self.entries[-1].sequence),
        }


@dataclass(frozen=True, slots=True)
class Step:
    """What an answer changes.

    Attributes:
        batch: The new row.
        split: The part was halved.
        rejected: The sequence of the one record that was given up.
        head: The new head of the chain's row, if nothing of the batch is left to send.
    """

    batch: Batch
    split: bool = False
    rejected: int | None = None
    head: ChainHead | None = None

    @property
    def done(self) -> bool:
        """Whether nothing of the batch is left to send."""
        return self.batch.accepted


@dataclass(frozen=True, slots=True)
class _Waiting:
    offset: int
    timestamp_ms: int
    audit: dict[str, Any]
    size_bytes: int
    due_s: float


@dataclass(slots=True)
class Line:
    """The audit records of one partition on their way to the dashboard.

    Attributes:
        partition: Of the audit topic.
        flush: When to seal.
        head: Of the chain, with the sealed batch; None before the first entry.
        batch: The sealed batch that is not accepted; it is sent as soon as all its entries are there.
        entries: Its entries, empty until its records have been read again.
        broken: Why nothing of this line may be sent, if so.
    """

    partition: int
    flush: Flush
    head: ChainHead | None = None
    batch: Batch | None = None
    entries: tuple[Entry, ...] = ()
    broken: str | None = None
    _waiting: deque[_Waiting] = field(default_factory=deque)
    _waiting_bytes: int = 0
    _again: list[_Waiting] = field(default_factory=list)
    _lost: Batch | None = None
    _last_added: int = -1
    _first_held: int = 0

    def add(self, offset: int, timestamp_ms: int, audit: dict[str, Any], *, size_bytes: int, due_s: float) -> Fate:
        """Take the next record of the partition; one that was added before is taken for the same.

        Args:
            offset: Higher than that of the record before, or a repeat.
            timestamp_ms: The record's.
            audit: The AuditEvent in it.
            size_bytes: Of the record, by which batches are measured until they are sealed.
            due_s: When, on the caller's monotonic clock, a batch that begins with it is due.
        """
        if offset <= self._last_added:
            return Fate.HELD if offset >= self._first_held else Fate.KNOWN
        self._last_added = offset
        record = _Waiting(offset, timestamp_ms, audit, size_bytes, due_s)
        if self.batch is not None and not self.entries:
            return self._read_again(record, self.batch)
        if self.head is not None and offset <= self.head.sequence:
            if timestamp_ms <= self.head.newest_ms:
                self._first_held = offset + 1
                return Fate.KNOWN
            self.head = None  # A topic made anew under the old name: its chain begins here.
        return self._wait(record)

    def due_s(self) -> float | None:
        """When there is something to seal; None while nothing waits, or a batch is under way."""
        return None if self.batch is not None else self._due_s()

    def sendable(self) -> bool:
        """Whether there is a sealed batch with all its entries."""
        return self.batch is not None and bool(self.entries) and not self.broken

    def oldest_ms(self) -> int | None:
        """The timestamp of the oldest record that the dashboard has not accepted."""
        if self.batch is not None:
            return self.batch.oldest_ms
        return self._waiting[0].timestamp_ms if self._waiting else None

    @property
    def waiting(self) -> int:
        """Records that were read and are in no sealed batch."""
        return len(self._waiting)

    def propose(self, now_s: float) -> Seal | None:
        """The next batch, from what waits; None if none is due. Asked twice, it says the same.

        Also to be asked while the last batch is being accepted, so that one transaction holds both.
        """
        due_s = self._due_s()
        if due_s is None or due_s > now_s:
            return None
        previous = self.head.hash if self.head else GENESIS
        entries: list[Entry] = []
        total = 0
        for record in self._waiting:
            if entries and (len(entries) >= self.flush.size or total + record.size_bytes > self.flush.limit_bytes):
                break
            entry = self._entry(record, previous)
            entries.append(entry)
            previous = entry.hash
            total += record.size_bytes
        return self._seal(tuple(entries))

    def sealed(self, seal: Seal) -> None:
        """The proposal is durable, or will be before anything is sent."""
        for _ in seal.entries:
            self._waiting_bytes -= self._waiting.popleft().size_bytes
        self.head, self.batch, self.entries = seal.head, seal.batch, seal.entries
        self._lost = None

    def next_part(self) -> Part:
        """What to post now.

        Raises:
            ValueError: Nothing is sendable.
        """
        if self.batch is None or not self.entries:
            raise ValueError("there is no sealed batch with its entries")
        for suffix, low, high in _leaves(self.batch.parts, len(self.entries)):
            if suffix not in self.batch.parts:
                return Part(self.batch.id + suffix, suffix, self.entries[low:high])
        raise ValueError("nothing of the batch is left to send")

    def answered(self, part: Part, reply: Reply) -> Step:
        """What an answer to a part means."""
        if self.batch is None:
            raise ValueError("there is no sealed batch")
        single = len(part.entries) == 1
        refused = reply is Reply.REFUSED
        state = ACCEPTED if not refused else REJECTED if single else SPLIT
        parts = {**self.batch.parts, part.suffix: state}
        done = all(suffix in parts for suffix, _, _ in _leaves(parts, len(self.entries)))
        whole = parts == {"": ACCEPTED}
        batch = msgspec.structs.replace(self.batch, parts={} if whole else parts, accepted=done)
        rejected = part.entries[0].sequence if state == REJECTED else None
        head = msgspec.structs.replace(self.head, unaccepted=None) if self.head and done else None
        return Step(batch, split=state == SPLIT, rejected=rejected, head=head)

    def settled(self, step: Step) -> None:
        """The step is durable, or will be before anything more is sent."""
        if not step.done:
            self.batch = step.batch
            return
        self._first_held = step.batch.last + 1
        self.head, self.batch, self.entries = step.head, None, ()

    def _due_s(self) -> float | None:
        if self.broken or not self._waiting:
            return None
        full = len(self._waiting) >= self.flush.size or self._waiting_bytes >= self.flush.limit_bytes
        return float("-inf") if full else self._waiting[0].due_s

    def _wait(self, record: _Waiting) -> Fate:
        self._waiting.append(record)
        self._waiting_bytes += record.size_bytes
        return Fate.HELD

    def _read_again(self, record: _Waiting, batch: Batch) -> Fate:
        """A record read while the entries of a batch that an earlier owner sealed are not complete."""
        if record.timestamp_ms > batch.newest_ms and record.offset <= batch.last:
            self.head, self.batch, self._lost = None, None, batch
            return self._wait(record)
        if record.offset < batch.first:
            self._first_held = record.offset + 1
            return Fate.KNOWN
        if not self._again and record.offset > batch.first:
            self._rewind(batch)
            return self._wait(record)
        if record.offset > batch.last:
            self._break(batch)
            return self._wait(record)
        self._again.append(record)
        if record.offset == batch.last:
            self._complete(batch)
        return Fate.HELD

    def _complete(self, batch: Batch) -> None:
        previous = batch.previous_hash
        entries = []
        for record in self._again:
            entry = self._entry(record, previous)
            entries.append(entry)
            previous = entry.hash
        if len(entries) != batch.count or previous != batch.last_hash:
            self._break(batch)
            return
        self._again.clear()
        self.entries = tuple(entries)

    def _rewind(self, batch: Batch) -> None:
        """Retention took records of a batch that was never accepted: the chain goes on from before it."""
        newest_ms = self.head.newest_ms if self.head else batch.newest_ms
        self.head, self.batch, self._lost = None, None, batch
        if batch.previous_sequence >= 0:
            self.head = ChainHead(
                chain=batch.chain, sequence=batch.previous_sequence, hash=batch.previous_hash, newest_ms=newest_ms
            )

    def _break(self, batch: Batch) -> None:
        self.broken = (
            f"the records {batch.first} to {batch.last} of partition {batch.partition} no longer give the hash of the "
            f"sealed batch {batch.id}: check with `vault-stream audit verify --topic`"
        )

    def _entry(self, record: _Waiting, previous_hash: str) -> Entry:
        return make_entry(
            record.audit,
            partition=self.partition,
            sequence=record.offset,
            timestamp_ms=record.timestamp_ms,
            previous_hash=previous_hash,
        )

    def _seal(self, entries: tuple[Entry, ...]) -> Seal:
        first, last = entries[0], entries[-1]
        times = [entry.timestamp_ms for entry in entries]
        before = self.head
        chain = before.chain if before else chain_id(first.hash)
        batch = Batch(
            id=batch_id(chain, self.partition, first.sequence, last.sequence),
            partition=self.partition,
            first=first.sequence,
            last=last.sequence,
            count=len(entries),
            previous_hash=before.hash if before else GENESIS,
            last_hash=last.hash,
            previous_sequence=before.sequence if before else -1,
            oldest_ms=min(times),
            newest_ms=max(times),
        )
        newest = max(batch.newest_ms, before.newest_ms if before else 0)
        head = ChainHead(
            chain=chain, sequence=last.sequence, hash=last.hash, newest_ms=newest, unaccepted=first.sequence
        )
        return Seal(batch, head, entries, self._lost)


def _leaves(parts: dict[str, str], count: int) -> Iterator[tuple[str, int, int]]:
    """The parts that a batch of `count` entries has been split into, in order: suffix and half-open range."""
    pending = [("", 0, count)]
    while pending:
        suffix, low, high = pending.pop()
        if parts.get(suffix) != SPLIT:
            yield suffix, low, high
            continue
        middle = low + (high - low + 1) // 2
        pending += [(f"{suffix}.1", middle, high), (f"{suffix}.0", low, middle)]
