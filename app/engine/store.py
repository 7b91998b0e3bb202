"""The rows of one number of one agent, on disk.

One RocksDB. Its keys: `0x00 name` engine rows, `table byte + row key` rows, `0x80|table byte + index key` derived
index (the value is the key of its row), `0xff name` facts about this copy that no changelog has. It is written only
by a checkpoint or a restore, always as one write batch of rows, index and the changelog offsets they reach.
"""

from __future__ import annotations

import logging
import shutil
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import rocksdict

from app.engine.table import Table

__all__ = ["Store"]

log = logging.getLogger("app.engine.store")

APPLIED = b"\xffapplied/"
LAST_USED = b"\xffused"
_CACHE_BYTES = 64 << 20
_WRITE_BUFFER_BYTES = 8 << 20
_shared: list[rocksdict.Cache] = []

Rows = Mapping[bytes, bytes | None]


def _options() -> rocksdict.Options:
    if not _shared:
        _shared.append(rocksdict.Cache(_CACHE_BYTES))
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_max_total_wal_size(4 * _WRITE_BUFFER_BYTES)
    options.set_keep_log_file_num(1)
    options.set_max_open_files(64)
    blocks = rocksdict.BlockBasedOptions()
    blocks.set_block_cache(_shared[0])
    blocks.set_bloom_filter(10, False)
    options.set_block_based_table_factory(blocks)
    options.set_compression_type(rocksdict.DBCompressionType.lz4())
    return options


class Store:
    """A local copy of what the changelogs of one (agent, number) say.

    Attributes:
        tables: By their prefix.

    Args:
        path: Its directory; created, and removed and created again when it cannot be opened.
        tables: The tables it holds; their indexes are kept in step with the rows.
        stale_after_s: A copy unused for longer may have missed tombstones that the broker has compacted away
            (`delete.retention.ms`), so it is removed.
    """

    def __init__(self, path: Path, tables: Sequence[Table[Any]], stale_after_s: float) -> None:
        self.path = path
        self.tables: Mapping[int, Table[Any]] = {t.prefix: t for t in tables}
        path.parent.mkdir(parents=True, exist_ok=True)
        self.wiped = 0
        self._db = self._open()
        used = self._db.get(LAST_USED)
        if used is not None and time.time() - struct.unpack(">d", used)[0] > stale_after_s:
            log.warning("store %s was unused for too long to trust its tombstones; restoring from the changelog", path)
            self.wipe()

    def _open(self) -> rocksdict.Rdict:
        try:
            return rocksdict.Rdict(str(self.path), _options())
        except Exception:
            log.exception("store %s does not open; restoring from the changelog", self.path)
            shutil.rmtree(self.path, ignore_errors=True)
            self.wiped += 1
            return rocksdict.Rdict(str(self.path), _options())

    def wipe(self) -> None:
        """Forget everything; the changelogs have it."""
        self._db.close()
        shutil.rmtree(self.path, ignore_errors=True)
        self._db = rocksdict.Rdict(str(self.path), _options())
        self.wiped += 1

    def get(self, key: bytes) -> bytes | None:
        """The stored bytes of a key, or None."""
        value: bytes | None = self._db.get(key)
        return value

    def items(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Key order, `start` included, `stop` not."""
        # A bound of the iterator, or it would walk the tombstones behind `stop` to the next live key.
        bounded = rocksdict.ReadOptions()
        bounded.set_iterate_upper_bound(stop)
        yield from self._db.items(from_key=start, read_opt=bounded)

    def applied(self, changelog: str) -> int:
        """The next offset of a changelog that this copy has not applied."""
        data = self._db.get(APPLIED + changelog.encode())
        return 0 if data is None else int(struct.unpack(">q", data)[0])

    def write(self, rows: Rows, applied: Mapping[str, int]) -> None:
        """Apply rows (None deletes) with the changelog offsets that they reach, in one write batch."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in rows.items():
            table = self.tables.get(key[0])
            if table is not None and table.index is not None:
                self._reindex(batch, table, key, value)
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        for changelog, offset in applied.items():
            batch.put(APPLIED + changelog.encode(), struct.pack(">q", offset))
        batch.put(LAST_USED, struct.pack(">d", time.time()))
        self._db.write(batch)

    def _reindex(self, batch: rocksdict.WriteBatch, table: Table[Any], key: bytes, value: bytes | None) -> None:
        before = self._db.get(key)
        old = set() if before is None else set(table.index_of(key, before))
        new = set() if value is None else set(table.index_of(key, value))
        for gone in old - new:
            batch.delete(gone)
        for added in new - old:
            batch.put(added, key)

    def close(self) -> None:
        """Release the directory's lock."""
        self._db.close()
