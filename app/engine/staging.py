"""What one number of one agent has merged but not yet checkpointed, over what is on disk.

*Overlay*: merged since the last freeze. *Frozen*: in the checkpoint that is running. Reads see overlay, then frozen,
then disk. Nothing here is on disk: if the checkpoint fails, both are dropped and the log is read again.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.engine.outputs import Message
from app.engine.store import Store
from app.engine.table import Table

__all__ = ["Changes", "IndexKeys", "Staging"]

Changes = dict[bytes, bytes | None]
IndexKeys = Mapping[bytes, Sequence[bytes]]
# To sort all is quicker than to find the places of more than a sixteenth of them one by one.
MANY = 16
_UNKNOWN: IndexKeys = {}


class _Layer:
    """Rows by store key, and the index keys that follow from them.

    These are put in order only when somebody looks through them: most rows that a busy agent writes are on disk, and
    another layer begun, before anybody does.
    """

    def __init__(self, tables: Mapping[int, Table[Any]]) -> None:
        self.rows: Changes = {}
        self.late: list[Message] = []
        self.late_bytes = 0
        self.bytes_ = 0
        self._tables = tables
        self.keys_of: dict[bytes, Sequence[bytes]] = {}
        # In order, and of which rows, but for rows that were put since.
        self._ordered: list[bytes] = []
        self._row_of: dict[bytes, bytes] = {}
        self._placed: dict[bytes, Sequence[bytes]] = {}
        self._unplaced: set[bytes] = set()

    def put(self, key: bytes, value: bytes | None, keys: Sequence[bytes] | None) -> None:
        self.rows[key] = value
        self.bytes_ += len(key) if value is None else len(key) + len(value)
        table = self._tables.get(key[0])
        if table is None or table.index is None:
            return
        if keys is None:
            keys = () if value is None else table.index_of(key, value)
        self.keys_of[key] = keys
        self._unplaced.add(key)

    def send(self, message: Message) -> None:
        size_bytes = len(message.key or b"") + len(message.value or b"")
        self.late.append(message)
        self.late_bytes += size_bytes
        self.bytes_ += size_bytes

    def index(self, start: bytes, stop: bytes, *newer: Changes) -> Iterator[bytes]:
        """Index keys in order, without those of rows that a newer layer has."""
        if self._unplaced:
            self._place()
        ordered, row_of = self._ordered, self._row_of
        layers = [rows for rows in newer if rows]
        for at in range(bisect_left(ordered, start), bisect_left(ordered, stop)):
            row = row_of[ordered[at]]
            for rows in layers:
                if row in rows:
                    break
            else:
                yield ordered[at]

    def _place(self) -> None:
        rows, self._unplaced = self._unplaced, set()
        ordered = self._ordered
        for row in rows:
            for gone in self._placed.pop(row, ()):
                del ordered[bisect_left(ordered, gone)]
                del self._row_of[gone]
        added: list[bytes] = []
        for row in rows:
            self._placed[row] = keys = self.keys_of[row]
            self._row_of.update(dict.fromkeys(keys, row))
            added += keys
        if len(added) * MANY > len(ordered):
            ordered += added
            ordered.sort()
        else:
            for key in added:
                insort(ordered, key)


class Staging:
    """Merged rows of one (agent, number)."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._overlay = _Layer(store.tables)
        self._frozen = _Layer(store.tables)

    @property
    def overlay(self) -> Changes:
        """Rows merged since the last freeze."""
        return self._overlay.rows

    @property
    def overlay_bytes(self) -> int:
        """Their size, with what was sent late; over a limit they ask for a checkpoint."""
        return self._overlay.bytes_

    def get(self, key: bytes) -> bytes | None:
        """The newest bytes of a key, or None."""
        for layer in (self._overlay.rows, self._frozen.rows):
            if key in layer:
                return layer[key]
        return self.store.get(key)

    def merge(self, changes: Changes, late: Sequence[Message] = (), index: IndexKeys = _UNKNOWN) -> None:
        """Take over the rows of a finished unit.

        Args:
            changes: The rows.
            late: What must be acknowledged before they are logged.
            index: The index keys of rows, where they are known; of the others they are found here.
        """
        for key, value in changes.items():
            self._overlay.put(key, value, index.get(key))
        for message in late:
            self._overlay.send(message)

    @property
    def late(self) -> Sequence[Message]:
        """What units merged since the last freeze have sent late."""
        return self._overlay.late

    @property
    def frozen_late(self) -> Sequence[Message]:
        """Of the checkpoint that is running: to be acknowledged before its rows are logged."""
        return self._frozen.late

    @property
    def late_bytes(self) -> int:
        """Their size together."""
        return self._overlay.late_bytes + self._frozen.late_bytes

    def freeze(self) -> Changes:
        """Move the overlay into the checkpoint that begins now."""
        self._frozen, self._overlay = self._overlay, _Layer(self.store.tables)
        return self._frozen.rows

    @property
    def frozen_index(self) -> IndexKeys:
        """The index keys of frozen rows, by store key."""
        return self._frozen.keys_of

    def thaw(self) -> None:
        """The checkpoint is on disk."""
        self._frozen = _Layer(self.store.tables)

    def items(self, start: bytes, stop: bytes, own: Changes) -> Iterator[tuple[bytes, bytes]]:
        """Rows in key order, with `own` (a unit's staged rows) over everything."""
        layers = {**self._frozen.rows, **self._overlay.rows, **own}
        changed = sorted((k, v) for k, v in layers.items() if start <= k < stop and v is not None)
        disk = ((k, v) for k, v in self.store.items(start, stop) if k not in layers)
        yield from heapq.merge(changed, disk)

    def index_items(self, start: bytes, stop: bytes, own: Changes, own_index: IndexKeys) -> Iterator[bytes]:
        """Index keys in order, of disk rows that nothing newer replaces and of all newer rows."""
        mine = sorted(key for row in own for key in own_index.get(row, ()) if start <= key < stop)
        overlay, frozen = self._overlay.rows, self._frozen.rows
        disk = (
            key
            for key, row_key in self.store.items(start, stop)
            if row_key not in own and row_key not in overlay and row_key not in frozen
        )
        yield from heapq.merge(
            mine, self._overlay.index(start, stop, own), self._frozen.index(start, stop, overlay, own), disk
        )
