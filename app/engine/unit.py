"""The unit of work: what an agent adds to, and what becomes real in one fixed order.

1. `flush`: everything sent is acknowledged by Kafka.
2. `done`, without an await inside: is the assignment still ours; staged rows are merged; records are marked done.
3. Later the checkpoint logs the rows with the positions, and only then are they on disk.

A unit that is dropped before `done` has changed nothing (its outputs may be in Kafka, and will be sent again with the
same ids).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from app.engine.errors import OutputFailed, OutputTooLarge, Revoked
from app.engine.outputs import Message, Outputs
from app.engine.quarantine import cut_message, quarantine_message
from app.engine.records import Header, Record, Slice
from app.observability import metrics

if TYPE_CHECKING:
    from app.engine.staging import Changes, IndexKeys, Staging
    from app.engine.table import Table
    from app.engine.tracker import Span, Tracker

__all__ = ["Scope", "Unit"]

R = TypeVar("R")

Mark = tuple[int, int, int, int, int, int]
_Write = tuple[bytes, bytes | None, Sequence[bytes]]


@dataclass(slots=True, eq=False)
class Scope:
    """What a unit needs of its runner; one for each opening of a number.

    Attributes:
        held: Records that their slice left unfinished, by (topic, partition, offset).
        valid: False once the number was dropped.
    """

    agent: str
    staging: Staging
    outputs: Outputs
    quarantine_topic: str
    touched: Callable[[], None]
    valid: bool = True
    held: dict[tuple[str, int, int], tuple[Tracker, Span]] = field(default_factory=dict)


class Unit:
    """Reads tables, stages rows, collects records to send, and marks source records done.

    An agent never calls `flush` or `done`; the runner does.
    """

    __slots__ = (
        "_after", "_cuts", "_finished", "_held", "_late", "_messages", "_rows", "_scope", "_slice", "_whole", "_writes",
        "quarantined",
    )  # fmt: skip

    def __init__(self, scope: Scope, slice_: Slice | None = None, *, whole: bool = True) -> None:
        self._scope = scope
        self._slice = slice_
        self._whole = whole
        self._rows: Changes = {}
        # All of them in order, each with its index keys.
        self._writes: list[_Write] = []
        self._messages: list[Message] = []
        self._late: list[Message] = []
        self._cuts: list[tuple[Message, Callable[[], Message]]] = []
        self._held: dict[tuple[str, int], set[int]] = {}
        self._finished: list[tuple[str, int, int]] = []
        self._after: list[Callable[[], None]] = []
        self.quarantined: list[str] = []

    def get(self, table: Table[R], key: bytes) -> R | None:
        """The row, own writes included, or None."""
        store_key = table.store_key(key)
        rows = self._rows
        data = rows[store_key] if store_key in rows else self._scope.staging.get(store_key)
        return None if data is None else table.decode(data)

    def scan(
        self, table: Table[R], prefix: bytes = b"", *, start: bytes | None = None, limit: int = 1000
    ) -> list[tuple[bytes, R]]:
        """Rows whose key begins with `prefix`, in key order, from `start` (included), own writes included."""
        low = table.prefix_byte + max(prefix, start or b"")
        found = self._scope.staging.items(low, _after_prefix(table.prefix_byte + prefix), self._rows)
        return [(key[1:], table.decode(data)) for key, data in islice(found, limit)]

    def scan_index(
        self,
        table: Table[R],
        prefix: bytes = b"",
        *,
        start: bytes | None = None,
        stop: bytes | None = None,
        limit: int = 1000,
    ) -> list[bytes]:
        """Index keys with `prefix`, in order, from `start` (included) to `stop` (not), own writes included."""
        mark = table.index_byte
        low = mark + max(prefix, start or b"")
        high = _after_prefix(mark + prefix)
        if stop is not None:
            high = min(high, mark + stop)
        found = self._scope.staging.index_items(low, high, self._rows, self._index())
        return [key[1:] for key in islice(found, limit)]

    def put(self, table: Table[R], key: bytes, row: R) -> None:
        """Stage a row.

        Raises:
            RowTooLarge: Beyond 512 KiB.
        """
        store_key, data = table.store_key(key), table.encode(row)
        self._writes.append((store_key, data, table.keys_of(key, row)))
        self._rows[store_key] = data

    def delete(self, table: Table[R], key: bytes) -> None:
        """Stage a tombstone."""
        store_key = table.store_key(key)
        self._writes.append((store_key, None, ()))
        self._rows[store_key] = None

    def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[Header] = ()) -> None:
        """Add a record to send; its partition is murmur2 of its key."""
        self._messages.append(Message(topic, key, value, headers))

    def send_late(self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[Header] = ()) -> None:
        """Add a record that the unit does not wait for: it is acknowledged before the unit's rows are logged.

        For what tells of rows that are there already, as a log of attempts does. Nothing may follow from its being
        there; after a crash it is sent again with the unit that is run again.
        """
        self._late.append(Message(topic, key, value, headers))

    def quarantine(self, record: Record, reason: str, detail: str) -> None:
        """Put a record, byte for byte, into the quarantine topic with its origin and the reason (contracts 9.2)."""
        topic, agent = self._scope.quarantine_topic, self._scope.agent
        message = quarantine_message(topic, agent, record, reason, detail)
        self._messages.append(message)
        self._cuts.append((message, partial(cut_message, topic, agent, record, reason, detail)))
        self.quarantined.append(reason)

    def hold(self, record: Record) -> None:
        """Leave this record of the slice unfinished; a later unit calls `finish`."""
        self._held.setdefault((record.topic, record.partition), set()).add(record.offset)

    def finish(self, record: Record) -> None:
        """Mark a held record done with this unit; a record that is not held is done with its slice anyway."""
        self._finished.append((record.topic, record.partition, record.offset))

    def on_done(self, call: Callable[[], None]) -> None:
        """Call this, synchronously, once the unit is merged: the place to start what must not start before."""
        self._after.append(call)

    async def flush(self) -> None:
        """Send everything and wait for every acknowledgement; a second call sends nothing again.

        Raises:
            OutputFailed: Something was not acknowledged.
            StoreDamaged: What the unit was made from cannot be trusted, whether or not its agent went on.
            OutputTooLarge: A topic other than quarantine does not take one of them.
        """
        self._scope.staging.store.check()
        if self._messages:
            try:
                await self._scope.outputs.send_many(self._messages)
            except OutputTooLarge as refused:
                if refused.topic != self._scope.quarantine_topic:
                    raise
                await self._send_cut()
            self._messages = []
            for reason in self.quarantined:
                metrics.QUARANTINED.labels(agent=self._scope.agent, reason=reason).inc()

    async def _send_cut(self) -> None:
        """What quarantine does not carry whole goes there cut; it must go there, whatever it is."""
        cut = {id(whole): make for whole, make in self._cuts}
        try:
            await self._scope.outputs.send_many(
                [cut[id(message)]() if id(message) in cut else message for message in self._messages]
            )
        except OutputTooLarge as refused:
            if refused.topic != self._scope.quarantine_topic:
                raise
            raise OutputFailed(f"{refused}, though it was cut to a part of it") from refused

    def done(self) -> Exception | None:
        """Make it real: one synchronous step.

        Returns:
            What a call of `on_done` raised, if any did: the unit is real all the same, and must not be run again.

        Raises:
            Revoked: The number was dropped meanwhile; nothing changed.
        """
        scope = self._scope
        if not scope.valid:
            raise Revoked(f"{scope.agent}: the number was taken away")
        if self._messages:
            raise RuntimeError("a unit is done only after its outputs are acknowledged")
        if self._rows or self._late:
            scope.staging.merge(self._rows, self._late, self._index())
        if self._slice is not None:
            self._finish_slice(self._slice)
        for key in self._finished:
            found = scope.held.pop(key, None)
            if found is not None:
                found[0].finish(found[1], key[2])
        scope.touched()
        failed: Exception | None = None
        for call in self._after:
            try:
                call()
            except Exception as error:  # noqa: BLE001  # the others have something to start too
                failed = failed or error
        return failed

    def mark(self) -> Mark:
        """Where a job of a group begins: what it adds can be taken back from here on, or be a unit of its own."""
        return (
            len(self._writes),
            len(self._messages),
            len(self._late),
            len(self._finished),
            len(self._after),
            len(self.quarantined),
        )

    def rewind(self, mark: Mark) -> None:
        """Take back everything that was added since."""
        writes, messages, late, finished, after, quarantined = mark
        if len(self._writes) > writes:
            del self._writes[writes:]
            self._rows = _rows_of(self._writes)
        del self._messages[messages:]
        del self._late[late:]
        del self._finished[finished:]
        del self._after[after:]
        del self._cuts[quarantined:]
        del self.quarantined[quarantined:]

    def part(self, start: Mark, stop: Mark) -> Unit:
        """What was added between the two, as a unit."""
        part = Unit(self._scope)
        writes, messages, late, finished, after, quarantined = map(slice, start, stop)
        part._writes = self._writes[writes]  # of the same class
        part._messages = self._messages[messages]
        part._late = self._late[late]
        part._finished = self._finished[finished]
        part._after = self._after[after]
        part._cuts = self._cuts[quarantined]
        part.quarantined = self.quarantined[quarantined]
        part._rows = _rows_of(part._writes)
        return part

    @property
    def progressed(self) -> bool:
        """Whether any source record is done by this unit."""
        held = sum(map(len, self._held.values()))
        return bool(self._finished) or (self._slice is not None and held < len(self._slice.records))

    def _index(self) -> IndexKeys:
        return {store_key: keys for store_key, _, keys in self._writes}

    def _finish_slice(self, slice_: Slice) -> None:
        held = self._scope.held
        for tp, (tracker, span) in slice_.parts.items():
            mine = self._held.get(tp, set())
            for offset in mine:
                held[(*tp, offset)] = (tracker, span)
            if self._whole:
                tracker.finish_rest(span, mine)
        if not self._whole:
            for record in slice_.records:
                tp = (record.topic, record.partition)
                if record.offset not in self._held.get(tp, ()):
                    tracker, span = slice_.parts[tp]
                    tracker.finish(span, record.offset)


def _rows_of(writes: list[_Write]) -> Changes:
    return {store_key: data for store_key, data, _ in writes}


def _after_prefix(prefix: bytes) -> bytes:
    """The first key beyond every key that begins with `prefix`."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1])
