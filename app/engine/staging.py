"""What one number of one agent has merged but not yet checkpointed, over what is on disk.

*Overlay*: merged since the last freeze. *Frozen*: in the checkpoint that is running. Reads see overlay, then frozen,
then disk. Nothing here is on disk: if the checkpoint fails, both are dropped and the log is read again.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from app.engine.store import Store
from app.engine.table import Table

__all__ = ["Staging"]

Changes = dict[bytes, bytes | None]


class Staging:
    """Merged rows of one (agent, number)."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.overlay: Changes = {}
        self.frozen: Changes = {}
        self.overlay_bytes = 0

    def get(self, key: bytes) -> bytes | None:
        """The newest bytes of a key, or None."""
        if key in self.overlay:
            return self.overlay[key]
        if key in self.frozen:
            return self.frozen[key]
        return self.store.get(key)

    def merge(self, changes: Changes) -> None:
        """Take over the rows of a finished unit."""
        self.overlay.update(changes)
        self.overlay_bytes += sum(len(k) + len(v or b"") for k, v in changes.items())

    def freeze(self) -> Changes:
        """Move the overlay into the checkpoint that begins now."""
        self.frozen, self.overlay, self.overlay_bytes = self.overlay, {}, 0
        return self.frozen

    def thaw(self) -> None:
        """The checkpoint is on disk."""
        self.frozen = {}

    def items(self, start: bytes, stop: bytes, own: Changes) -> Iterator[tuple[bytes, bytes]]:
        """Rows in key order, with `own` (a unit's staged rows) over everything."""
        layers = self._layered(own)
        changed = sorted((k, v) for k, v in layers.items() if start <= k < stop and v is not None)
        disk = ((k, v) for k, v in self.store.items(start, stop) if k not in layers)
        yield from heapq.merge(changed, disk)

    def index_items(self, table: Table[object], start: bytes, stop: bytes, own: Changes) -> Iterator[bytes]:
        """Index keys in order, of disk rows that nothing newer replaces and of all newer rows."""
        layers = self._layered(own)
        mine = [(k, v) for k, v in layers.items() if k[0] == table.prefix and v is not None]
        changed = sorted(i for k, v in mine for i in table.index_of(k, v) if start <= i < stop)
        disk = (i for i, row_key in self.store.items(start, stop) if row_key not in layers)
        yield from heapq.merge(changed, disk)

    def _layered(self, own: Changes) -> Changes:
        return {**self.frozen, **self.overlay, **own}
