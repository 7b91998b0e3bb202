"""The rows of one number of one agent, on disk.

One RocksDB. Its keys: `0x00 name` engine rows, `table byte + row key` rows, `0x80|table byte + index key` derived
index (the value is the key of its row), `0xff name` facts about this copy that no changelog has. It is written only
by a checkpoint or a restore, always as one write batch of rows, index and the changelog offsets they reach.

It has no write-ahead log: the changelogs are that. A process that dies loses what RocksDB had not flushed, whole
batches with their offsets, and reads it again; so whatever a disk loses (the end of a manifest, a log file in the
middle), what is left is how things stood at some offset, never a mixture of two.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import rocksdict

from app.engine.errors import StoreDamaged, StoreError, StoreFailed
from app.engine.table import Table
from app.observability import metrics, storage

__all__ = ["Store", "close_all"]

log = logging.getLogger("app.engine.store")

APPLIED = b"\xffapplied/"
# When, and with which indexes: one note, so that neither can move without the other.
LAST_USED = b"\xffused"
SOURCE = b"\xffsource/"
_TIME_BYTES = 8
_CACHE_BYTES = 64 << 20
_WRITE_BUFFER_BYTES = 8 << 20
# Most keys that are asked for are not there yet, and to look for one among those in memory costs four times what this
# filter does; ten bits or so for each of them.
_WRITE_BUFFER_FILTER = 0.01
_shared: list[rocksdict.Cache] = []
# Damage that comes back as often, in one process, is the disk's and not the file's.
DAMAGES_LIMIT = 5
# Not all of a batch, as their rows may be large.
READ_TOGETHER = 64
STALL_POLL_S = 0.002
STALL_LIMIT_S = 5.0
_STALLED = "Result incomplete"
# Removing a copy does not help against these; RocksDB gives their text only.
_DISK_ERRORS: Final = tuple(
    os.strerror(number)
    for number in (
        errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM,
        errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOTDIR,
    )
)  # fmt: skip

Rows = Mapping[bytes, bytes | None]
FULL_DISK_BYTES = 1 << 20
IndexKeys = Mapping[bytes, Sequence[bytes]]


def _options() -> rocksdict.Options:
    if not _shared:
        _shared.append(rocksdict.Cache(_CACHE_BYTES))
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_paranoid_checks(True)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_memtable_prefix_bloom_ratio(_WRITE_BUFFER_FILTER)
    options.set_memtable_whole_key_filtering(True)
    options.set_keep_log_file_num(1)
    options.set_max_open_files(64)
    blocks = rocksdict.BlockBasedOptions()
    blocks.set_block_cache(_shared[0])
    blocks.set_bloom_filter(10, False)
    options.set_block_based_table_factory(blocks)
    options.set_compression_type(rocksdict.DBCompressionType.lz4())
    return options


def _write_options() -> rocksdict.WriteOptions:
    options = rocksdict.WriteOptions()
    options.disable_wal = True
    # Else a full disk holds the write, and with it the event loop, until there is room again.
    options.no_slowdown = True
    return options


class Store:
    """A local copy of what the changelogs of one (agent, number) say.

    Attributes:
        tables: By their prefix.
        damage: What is wrong with this copy, once a read has found it; until `wipe` every call raises then.
        wiped: How often it was removed.

    Args:
        path: Its directory; created, and removed and created again when it cannot be opened.
        tables: The tables it holds; their indexes are kept in step with the rows.
        stale_after_s: A copy that was not up to date for longer may have missed tombstones that the broker has
            compacted away (`delete.retention.ms`), so it is removed.

    Raises:
        StoreFailed: The disk takes no store.
    """

    def __init__(self, path: Path, tables: Sequence[Table[Any]], stale_after_s: float) -> None:
        self.path = path
        self.tables: Mapping[int, Table[Any]] = {t.prefix: t for t in tables}
        self.wiped = 0
        self.damage = ""
        self._damages = 0
        self._write_options = _write_options()
        self._db: Any = None
        self._indexes = ",".join(f"{t.name}:{t.index_version}" for t in tables if t.index is not None).encode()
        try:
            self._db = self._create()
            used = self._read(LAST_USED)
        except StoreDamaged:
            self.wipe("damaged", self.damage)
            return
        if used is None:
            self.mark_current()
        elif used[_TIME_BYTES:] != self._indexes:
            # Keys that the index of today does not make would never be removed, and what it asks for not be found.
            self.wipe("reindexed", "its indexes are those of another release")
        elif time.time() - struct.unpack(">d", used[:_TIME_BYTES])[0] > stale_after_s:
            self.wipe("stale", "unused for too long to trust its tombstones")

    def _create(self) -> rocksdict.Rdict:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return rocksdict.Rdict(str(self.path), _options())
        except Exception as error:
            if isinstance(error, OSError) or _is_of_the_disk(error):
                raise self._failed(error) from error
            raise self._damaged(error) from error

    def wipe(self, reason: str, why: str) -> None:
        """Forget everything; the changelogs have it.

        Args:
            reason: damaged, stale, reindexed, recreated or ahead; the label of the metric.
            why: For the log.

        Raises:
            StoreFailed: The disk does not even take an empty store, or was at fault too often.
        """
        level = logging.WARNING if reason in {"stale", "reindexed"} else logging.ERROR
        log.log(level, "store %s: %s; it is removed and restored from the changelog", self.path, why)
        self.wiped += 1
        metrics.STORES_REMOVED.labels(reason=reason).inc()
        if reason == "damaged":
            self._damages += 1
            if self._damages > DAMAGES_LIMIT:
                raise StoreFailed(f"store {self.path}: damaged {self._damages} times since the start: {why}")
        try:
            if self._db is not None:
                self._db.close()
        except Exception as error:  # noqa: BLE001  # what it cannot flush is thrown away with the rest
            log.info("store %s: closed with %s", self.path, error)
        try:
            if self.path.exists():
                shutil.rmtree(self.path)
            self._db = self._create()
        except (OSError, StoreDamaged) as error:
            raise self._failed(error) from error
        self.damage = ""
        self.mark_current()

    # -- what the rest of the engine sees

    def check(self) -> None:
        """Nothing may be built on what a damaged copy said.

        Raises:
            StoreDamaged: A read has found damage, whoever got to hear of it.
        """
        if self.damage:
            raise StoreDamaged(f"store {self.path}: {self.damage}")

    def get(self, key: bytes) -> bytes | None:
        """The stored bytes of a key, or None.

        Raises:
            StoreDamaged: They cannot be read.
        """
        began_s = time.perf_counter()
        try:
            value = self._read(key)
        except StoreDamaged:
            storage.GETS.failed()
            raise
        storage.GETS.add(time.perf_counter() - began_s, 0 if value is None else len(value))
        return value

    def _read(self, key: bytes) -> bytes | None:
        if self.damage:
            self.check()
        try:
            value: bytes | None = self._db.get(key)
        except rocksdict.DbClosedError:
            raise
        except Exception as error:
            raise self._damaged(error) from error
        return value

    def _read_many(self, keys: list[bytes]) -> Iterator[tuple[bytes, bytes | None]]:
        """What is stored of each; a few in one call cost a third of what they cost one by one."""
        self.check()
        for at in range(0, len(keys), READ_TOGETHER):
            few = keys[at : at + READ_TOGETHER]
            try:
                values = self._db.get(few)
            except rocksdict.DbClosedError:
                raise
            except Exception as error:
                raise self._damaged(error) from error
            yield from zip(few, values, strict=True)

    def items(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Key order, `start` included, `stop` not.

        Raises:
            StoreDamaged: The rest cannot be read.
        """
        self.check()
        # A bound of the iterator, or it would walk the tombstones behind `stop` to the next live key.
        bounded = rocksdict.ReadOptions()
        bounded.set_iterate_upper_bound(stop)
        began_s, size_bytes = time.perf_counter(), 0
        rows = self._db.iter(bounded)
        try:
            rows.seek(start)
            while rows.valid():
                value = rows.value()
                size_bytes += len(value)
                yield rows.key(), value
                rows.next()
            # It ends the same way at the last row and at a block that it cannot read (as `Rdict.items` does for ever).
            rows.status()
        except rocksdict.DbClosedError:
            raise
        except Exception as error:
            storage.SCANS.failed()
            raise self._damaged(error) from error
        finally:
            # It keeps the database open, and a traceback would keep it.
            del rows
            if not self.damage:
                storage.SCANS.add(time.perf_counter() - began_s, size_bytes)

    def applied(self, changelog: str) -> int:
        """The next offset of a changelog that this copy has not applied."""
        data = self._read(APPLIED + changelog.encode())
        return 0 if data is None else int(struct.unpack(">q", data)[0])

    def source_of(self, changelog: str) -> str:
        """The topic id of the changelog that this copy is of; empty: not known."""
        return (self._read(SOURCE + changelog.encode()) or b"").decode()

    def note_sources(self, ids: Mapping[str, str]) -> None:
        """This copy is of the changelogs with these topic ids."""
        noted = {SOURCE + topic.encode(): id_.encode() for topic, id_ in ids.items() if self.source_of(topic) != id_}
        if noted:
            self.write(noted, {}, current=False)

    def write(
        self, rows: Rows, applied: Mapping[str, int], *, current: bool = True, index: IndexKeys | None = None
    ) -> None:
        """Apply rows (None deletes) with the changelog offsets that they reach, in one write batch.

        Args:
            rows: By store key.
            applied: By changelog topic.
            current: Whether this copy has everything then. While a restore is under way its age is that of its
                oldest row, however new the last one is: the tombstone of a row that it had before may be compacted
                away before the restore gets there, should it be interrupted.
            index: The index keys of rows, where they are known; of the others they are found here.

        Raises:
            StoreDamaged: What is there cannot be read.
            StoreFailed: The disk does not take it.
        """
        self.check()
        tally = storage.PUTS if current else storage.RESTORES
        began_s, give_up_at = time.perf_counter(), time.monotonic() + STALL_LIMIT_S
        while True:
            batch = self._batch(rows, applied, index or {})
            if current:
                batch.put(LAST_USED, struct.pack(">d", time.time()) + self._indexes)
            size_bytes = batch.size_in_bytes()
            try:
                self._db.write(batch, self._write_options)
            except rocksdict.DbClosedError:
                raise
            except Exception as error:
                if str(error).startswith("Corruption"):
                    tally.failed()
                    raise self._damaged(error) from error
                if not str(error).startswith(_STALLED) or time.monotonic() > give_up_at:
                    tally.failed()
                    raise self._failed(error) from error
            else:
                if rows:
                    tally.add(time.perf_counter() - began_s, size_bytes)
                return
            # Memory is full and the disk is behind. A batch is used up by a write that did not happen.
            time.sleep(STALL_POLL_S)

    def _batch(self, rows: Rows, applied: Mapping[str, int], index: IndexKeys) -> rocksdict.WriteBatch:
        batch = rocksdict.WriteBatch(raw_mode=True)
        indexed = [key for key in rows if (table := self.tables.get(key[0])) is not None and table.index is not None]
        for key, before in self._read_many(indexed):
            index_of, value = self.tables[key[0]].index_of, rows[key]
            after = index.get(key)
            if after is None:
                after = () if value is None else index_of(key, value)
            _reindex(batch, key, () if before is None else index_of(key, before), after)
        for key, value in rows.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        for changelog, offset in applied.items():
            batch.put(APPLIED + changelog.encode(), struct.pack(">q", offset))
        return batch

    def mark_current(self) -> None:
        """It has everything that its changelogs have now."""
        self.write({}, {})

    def close(self) -> None:
        """Write what is in memory, and release the directory's lock; a damaged copy is removed."""
        try:
            self._db.close()
        except Exception as error:  # noqa: BLE001  # it has the offsets that it has
            log.warning("store %s: its last rows are not on the disk, the changelog has them: %s", self.path, error)
        if self.damage:
            shutil.rmtree(self.path, ignore_errors=True)

    def _damaged(self, error: Exception) -> StoreError:
        self.damage = str(error)
        return StoreDamaged(f"store {self.path}: {error}")

    def _failed(self, error: Exception) -> StoreError:
        return StoreFailed(f"store {self.path} cannot be written: {error}")


def _reindex(batch: rocksdict.WriteBatch, key: bytes, before: Sequence[bytes], after: Sequence[bytes]) -> None:
    if before:
        old, new = set(before), set(after)
        for gone in old - new:
            batch.delete(gone)
        after = [added for added in new if added not in old]
    for added in after:
        batch.put(added, key)


def close_all(stores: Iterable[Store], disk: Path) -> bool:
    """Close the stores of a process that ends, unless their disk is full; whether they are closed.

    Each would take a second to find that out, on the loop that answers for liveness; the changelogs have its last rows.
    """
    try:
        full = shutil.disk_usage(disk).free < FULL_DISK_BYTES
    except OSError:
        # The directory was removed under us.
        full = False
    if full:
        log.warning("the disk is full: stores are left as they are, the changelogs have their last rows")
        return False
    for store in stores:
        store.close()
    return True


def _is_of_the_disk(error: Exception) -> bool:
    return any(text in str(error) for text in _DISK_ERRORS)
