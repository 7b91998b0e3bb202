"""An export of the audit chain: entries with their hashes, chosen by time and resource, and a trailer a partition.

The topic carries no hashes; they are folded here as governance folds them, from the last sealed batch that begins
before the first record that is asked for. What a record is chained to is the same wherever batches are cut.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from app.integrations.audit import UnreadableAudit, read_audit_record
from app.integrations.chain import GENESIS, Entry, make_entry
from app.integrations.verification import Trailer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "CSV_COLUMNS",
    "FORMATS",
    "Anchor",
    "CsvWriter",
    "JsonLinesWriter",
    "PartitionExport",
    "Span",
    "Writer",
    "choose_anchor",
    "writer_of",
]

FORMATS: Final = ("jsonl", "csv")
CSV_COLUMNS: Final = (
    "kind", "partition", "sequence", "recorded_at", "occurred_at", "id", "source", "event_type", "category",
    "actor_id", "actor_type", "actor_ip_address", "resource_type", "resource_id", "resource_name", "dataset_id",
    "action", "outcome", "severity", "tenant_id", "correlation_id", "trace_id", "details", "previous_hash", "hash",
)  # fmt: skip
_NESTED: Final = {
    "actor_id": ("actor", "id"),
    "actor_type": ("actor", "type"),
    "actor_ip_address": ("actor", "ip_address"),
    "resource_type": ("resource", "type"),
    "resource_id": ("resource", "id"),
    "resource_name": ("resource", "name"),
    "dataset_id": ("resource", "dataset_id"),
}
# A spreadsheet takes a cell that begins so for a formula, and what stands in an event is its publisher's.
_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r", "'")


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where the chain of a partition can be taken up.

    Attributes:
        first: The offset of the first record to fold.
        previous_hash: Of the entry before it.
        assumed: Retention took what is before it, and no sealed batch says its hash.
    """

    first: int = 0
    previous_hash: str = GENESIS
    assumed: bool = False


def choose_anchor(anchors: Iterable[Anchor], begin: int, wanted: int) -> Anchor:
    """Where to begin: as near before the first record wanted as the topic allows.

    Args:
        anchors: The beginnings of the sealed batches that are known, and the end of the last one, in any order.
        begin: The first offset that the topic still has.
        wanted: The first offset to export.
    """
    best: Anchor | None = None
    after: Anchor | None = None
    sealed = False
    for anchor in anchors:
        sealed = True
        if anchor.first < begin:
            continue
        if anchor.first <= wanted:
            best = anchor if best is None or anchor.first > best.first else best
        else:
            after = anchor if after is None or anchor.first < after.first else after
    if best is not None:
        return best
    # Retention cut into the first batch: what is left of it can be linked to nothing.
    return after if sealed and begin > 0 and after is not None else Anchor(begin, assumed=begin > 0)


@dataclass(frozen=True, slots=True)
class Span:
    """What of a partition is exported.

    Attributes:
        partition: Of the audit topic.
        wanted: The first offset of it.
        until: The offset behind the last.
        anchor: Where the fold begins.
    """

    partition: int
    wanted: int
    until: int
    anchor: Anchor

    @property
    def start(self) -> int:
        """The first offset to read."""
        return min(self.anchor.first, self.wanted, self.until)


@dataclass(slots=True)
class PartitionExport:
    """The fold of one partition; records are added in the order of the log."""

    span: Span
    resource: str | None = None
    entries: int = 0
    unlinked: int = 0
    _hash: str = ""
    _before: str | None = None
    _last: tuple[int, str] | None = None

    def __post_init__(self) -> None:
        self._hash = self.span.anchor.previous_hash

    def add(self, offset: int, timestamp_ms: int, value: bytes | None) -> Entry | None:
        """The record's entry, if it belongs to the export."""
        if offset < self.span.anchor.first:
            self.unlinked += 1
            return None
        try:
            audit = read_audit_record(value, timestamp_ms)
        except UnreadableAudit:
            return None
        before = self._hash
        entry = make_entry(
            audit,
            partition=self.span.partition,
            sequence=offset,
            timestamp_ms=timestamp_ms,
            previous_hash=before,
        )
        self._hash = entry.hash
        if not self.span.wanted <= offset < self.span.until or not self._concerns(audit):
            return None
        if self._before is None:
            self._before = before
        self.entries += 1
        self._last = (offset, entry.hash)
        return entry

    def trailer(self, partitions: int) -> Trailer:
        """What ends it.

        Args:
            partitions: How many trailers there are in all.
        """
        sequence, digest = self._last or (-1, self._hash)
        return Trailer(
            self.span.partition,
            sequence,
            digest,
            entries=self.entries,
            previous_hash=self._before,
            partitions=partitions,
            resource=self.resource,
            unlinked=self.unlinked or None,
            assumed=self.span.anchor.assumed or None,
        )

    def _concerns(self, audit: Mapping[str, Any]) -> bool:
        wanted, resource = self.resource, audit["resource"]
        return wanted is None or wanted in {resource.get("id"), resource.get("dataset_id")}


class Writer(Protocol):
    """Turns entries and trailers into the bytes of a format."""

    kind: str
    """Its media type."""

    def head(self) -> bytes:
        """What comes first."""

    def entry(self, entry: Entry) -> bytes:
        """One entry."""

    def trailer(self, trailer: Trailer) -> bytes:
        """One trailer."""


class JsonLinesWriter:
    """One canonical JSON object a line: what `audit verify` reads."""

    kind = "application/x-ndjson"

    def head(self) -> bytes:
        """Nothing."""
        return b""

    def entry(self, entry: Entry) -> bytes:
        """The entry as the dashboard has it."""
        return entry.body + b"\n"

    def trailer(self, trailer: Trailer) -> bytes:
        """`{"trailer": {…}}`."""
        return orjson.dumps(trailer.show()) + b"\n"


@dataclass(slots=True)
class CsvWriter:
    """RFC 4180, for spreadsheets: objects are JSON, and what would be a formula has a quote before it."""

    kind: str = "text/csv"
    _buffer: io.StringIO = field(default_factory=io.StringIO)

    def head(self) -> bytes:
        """The names of the columns."""
        return self._row(CSV_COLUMNS)

    def entry(self, entry: Entry) -> bytes:
        """One row."""
        found = orjson.loads(entry.body)
        return self._row([_cell(_value(found, name)) for name in CSV_COLUMNS])

    def trailer(self, trailer: Trailer) -> bytes:
        """One row of the kind `trailer`; all of it is under `details`."""
        cells: dict[str, Any] = {
            "kind": "trailer",
            "partition": trailer.partition,
            "sequence": trailer.sequence,
            "hash": trailer.hash,
            "details": trailer.show()["trailer"],
        }
        return self._row([_cell(cells.get(name)) for name in CSV_COLUMNS])

    def _row(self, cells: Sequence[str]) -> bytes:
        self._buffer.seek(0)
        self._buffer.truncate()
        csv.writer(self._buffer).writerow(cells)
        return self._buffer.getvalue().encode()


def writer_of(format_: str) -> Writer:
    """The writer of a format, one of `FORMATS`."""
    return CsvWriter() if format_ == "csv" else JsonLinesWriter()


def _value(found: Mapping[str, Any], name: str) -> Any:
    if name == "kind":
        return "entry"
    path = _NESTED.get(name)
    return found.get(name) if path is None else found[path[0]].get(path[1])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return str(value)
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return f"'{text}" if text.startswith(_FORMULAS) else text
