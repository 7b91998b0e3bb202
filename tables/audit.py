"""Table `audit`: where the chain of each partition of the audit topic stands, and every batch that was sealed.

Writer: governance. Two kinds of keys, big-endian so that they sort by number:

- head: `h`, partition (4 bytes);
- batch: `b`, partition (4 bytes), first sequence (8 bytes).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import msgspec

from app.engine import Table
from app.integrations.chain import Batch, ChainHead

if TYPE_CHECKING:
    from app.engine import Unit

__all__ = ["AUDIT", "AuditRow", "audit_lines", "batch_key", "forget_batches", "head_key", "partition_of"]

_HEAD: Final = struct.Struct(">cI")
_BATCH: Final = struct.Struct(">cIQ")
_HEADS: Final = b"h"
_BATCHES: Final = b"b"
_FORGOTTEN_AT_ONCE: Final = 8


class AuditRow(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One of the two: a table has one kind of row."""

    head: ChainHead | None = None
    batch: Batch | None = None


AUDIT: Final = Table("audit", prefix=3, row=AuditRow)


def head_key(partition: int) -> bytes:
    """The key of a partition's head."""
    return _HEAD.pack(_HEADS, partition)


def batch_key(partition: int, first: int) -> bytes:
    """The key of the batch that begins at `first`."""
    return _BATCH.pack(_BATCHES, partition, first)


def partition_of(key: bytes) -> int:
    """The partition that a head or a batch belongs to."""
    partition: int = _HEAD.unpack_from(key)[1]
    return partition


def audit_lines(unit: Unit) -> dict[int, tuple[ChainHead, Batch | None]]:
    """By partition: the head, and the sealed batch that the dashboard has not accepted, if there is one."""
    lines: dict[int, tuple[ChainHead, Batch | None]] = {}
    for key, row in unit.scan(AUDIT, _HEADS):
        if row.head is None:
            continue
        partition = partition_of(key)
        first = row.head.unaccepted
        found = unit.get(AUDIT, batch_key(partition, first)) if first is not None else None
        lines[partition] = (row.head, found.batch if found else None)
    return lines


def forget_batches(unit: Unit, partition: int, before_ms: int) -> None:
    """Delete a few of the partition's oldest accepted batches, all of whose records are older than `before_ms`."""
    prefix = batch_key(partition, 0)[: _HEAD.size]
    for key, row in unit.scan(AUDIT, prefix, limit=_FORGOTTEN_AT_ONCE):
        if row.batch is None or not row.batch.accepted or row.batch.newest_ms >= before_ms:
            return
        unit.delete(AUDIT, key)
