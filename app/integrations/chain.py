"""The audit chain: entries that each carry the hash of the one before (contracts 9.4, architecture 6).

An entry is an AuditEvent with its place: `partition`, `sequence` (the record's offset), `recorded_at` (the record's
timestamp), `previous_hash` and `hash`, the SHA-256 of the canonical JSON of everything else. It is a pure fold over one
partition of the audit topic, so a restart finds the same bytes again. A record of the topic that is no AuditEvent has
no entry: the next one is chained to the last one that has, and sequences have a hole there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from app.events import canonical_json, format_time

__all__ = [
    "GENESIS",
    "Batch",
    "ChainHead",
    "Entry",
    "batch_id",
    "chain_id",
    "hash_of",
    "make_entry",
]

GENESIS: Final = "0" * 64
"""The `previous_hash` of a partition's first entry."""

_CHAIN_ID_CHARS: Final = 12
_HASH: Final = "hash"


class ChainHead(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Where the chain of one partition stands.

    Attributes:
        chain: First 12 hex digits of the hash of the partition's first entry.
        sequence: Of the newest entry; -1 before the first.
        hash: Of the newest entry.
        newest_ms: The largest record timestamp so far.
        unaccepted: First sequence of the sealed batch that the dashboard has not accepted, if there is one.
    """

    chain: str
    sequence: int
    hash: str
    newest_ms: int
    unaccepted: int | None = None


class Batch(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A sealed batch: from the moment it is sealed, its range, id and bytes are constant.

    Attributes:
        id: `{chain}-{partition}-{first}-{last}`; parts of a split one append `.0`, `.1`.
        partition: Of the audit topic.
        first: Sequence of its first entry.
        last: Sequence of its last entry.
        count: Entries in it.
        previous_hash: Of the entry before the first.
        last_hash: Of the last entry.
        previous_sequence: Of the entry before the first; -1 if there is none.
        oldest_ms: The smallest record timestamp in it.
        newest_ms: The largest record timestamp in it.
        accepted: The dashboard has all of it, but for entries in quarantine.
        parts: What became of the parts of a split batch, by suffix (`""` is the whole): `split`, `accepted` or
            `rejected`.
    """

    id: str
    partition: int
    first: int
    last: int
    count: int
    previous_hash: str
    last_hash: str
    previous_sequence: int = -1
    oldest_ms: int = 0
    newest_ms: int = 0
    accepted: bool = False
    parts: dict[str, str] = {}

    @property
    def chain(self) -> str:
        """The chain that it belongs to."""
        return self.id.partition("-")[0]


@dataclass(frozen=True, slots=True)
class Entry:
    """One link.

    Attributes:
        sequence: The record's offset.
        timestamp_ms: The record's timestamp.
        hash: Lower-case hex SHA-256.
        body: The whole AuditEvent, `hash` included, in canonical JSON.
    """

    sequence: int
    timestamp_ms: int
    hash: str
    body: bytes


def make_entry(
    audit: Mapping[str, Any], *, partition: int, sequence: int, timestamp_ms: int, previous_hash: str
) -> Entry:
    """The entry of an AuditEvent; fields of the same names in `audit` are overwritten."""
    placed = {
        **audit,
        "partition": partition,
        "sequence": sequence,
        "recorded_at": format_time(timestamp_ms),
        "previous_hash": previous_hash,
    }
    # `hash` stands between these two in the canonical order, so that one pass gives what is hashed and what is sent.
    before = canonical_json({name: value for name, value in placed.items() if name < _HASH})[:-1]
    after = canonical_json({name: value for name, value in placed.items() if name > _HASH})[1:]
    before += b"," if len(before) > 1 else b""
    digest = hashlib.sha256(before + after).hexdigest()
    return Entry(sequence, timestamp_ms, digest, b'%b"hash":"%b",%b' % (before, digest.encode(), after))


def hash_of(entry: Mapping[str, Any]) -> str:
    """The hash that an AuditEvent should carry; a `hash` in it is left out."""
    return hashlib.sha256(canonical_json({k: v for k, v in entry.items() if k != "hash"})).hexdigest()


def chain_id(first_hash: str) -> str:
    """The name of a chain, by the hash of its first entry."""
    return first_hash[:_CHAIN_ID_CHARS]


def batch_id(chain: str, partition: int, first: int, last: int) -> str:
    """The id, and idempotency key, of a batch."""
    return f"{chain}-{partition}-{first}-{last}"
