"""Is the audit chain as it was sealed? An export by itself, the topic against its sealed batches.

Nothing here has a key: whoever may rewrite a whole export, its trailers included, can make a sound one of other
entries. Against that helps a head that was noted elsewhere (`--head`), or the dashboard's own copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from app.integrations.audit import UnreadableAudit, read_audit_record
from app.integrations.chain import GENESIS, Batch, hash_of, make_entry
from app.integrations.recent import Recent
from app.integrations.verdicts import Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Finding", "TopicCheck", "Trailer", "Verdict", "verify"]

# The router repeats what it did since its last checkpoint, so that a repeat is never far behind.
_REMEMBERED_EVENTS: Final = 100_000
# What is exchanged or put between is chained to something near.
_REMEMBERED_ENTRIES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Trailer:
    """The end of one partition of an export, and what makes a cut show (contracts 4).

    Attributes:
        partition: Of the audit topic.
        sequence: Of the last entry in the export; -1 if there is none.
        hash: Of that entry; of the one before the export if there is none.
        entries: How many there are.
        previous_hash: Of the entry before the first one; None if other entries lie between, or nobody said. Of an empty
            part of an export: what it begins with, as `hash` is what it ends with.
        partitions: How many trailers the export has.
        resource: Only entries of it are in the export, so that they need not be chained to each other.
        unlinked: Records that are left out because retention took what they are chained to.
        assumed: The chain was begun anew at what retention left: no sealed batch said how it goes on there.
    """

    partition: int
    sequence: int
    hash: str
    entries: int | None = None
    previous_hash: str | None = None
    partitions: int | None = None
    resource: str | None = None
    unlinked: int | None = None
    assumed: bool | None = None

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Trailer:
        """What a line of an export says under `trailer`; fields that it does not know are passed over."""
        kinds = {"hash": str, "previous_hash": str, "resource": str, "assumed": bool}
        fields = {name: found.get(name) for name in cls.__slots__}
        known: dict[str, Any] = {
            name: value for name, value in fields.items() if isinstance(value, kinds.get(name, int))
        }
        return cls(**{"partition": -1, "sequence": -1, "hash": "", **known})

    def show(self) -> dict[str, Any]:
        """The line of an export."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {"trailer": {name: value for name, value in fields.items() if value is not None}}


def verify(
    entries: Iterable[Mapping[str, Any]],
    heads: Mapping[int, tuple[int, str]] | None = None,
    *,
    trailers: bool = False,
) -> list[Verdict]:
    """Check an export: AuditEvents with their hashes, in the order of each partition; a verdict for each partition.

    Args:
        entries: AuditEvents and, as `Trailer.show` writes them, trailers, which say where the export of a partition
            ends.
        heads: By partition, a sequence and its hash that somebody noted elsewhere.
        trailers: Whether a partition that has neither a trailer nor a noted head was cut.
    """
    checks: dict[int, _ExportCheck] = {}
    noted = heads or {}
    for entry in entries:
        said = entry.get("trailer")
        place = said if isinstance(said, Mapping) else entry
        partition = place.get("partition")
        partition = partition if isinstance(partition, int) else -1
        check = checks.setdefault(partition, _ExportCheck(partition, noted.get(partition)))
        if place is entry:
            check.add(entry)
        else:
            check.close(Trailer.read(place))
    expected = {*noted, *range(max((check.partitions for check in checks.values()), default=0))}
    closed = any(check.trailer for check in checks.values())
    for partition in expected:
        checks.setdefault(partition, _ExportCheck(partition, noted.get(partition)))
    return [
        check.end(closed=closed or (trailers and partition not in noted)) for partition, check in sorted(checks.items())
    ]


class _ExportCheck:
    """One partition of an export, entry by entry.

    Args:
        noted: A head that somebody noted elsewhere.
    """

    def __init__(self, partition: int, noted: tuple[int, str] | None) -> None:
        self.verdict = Verdict(partition)
        self.trailer: Trailer | None = None
        self._first_previous: str | None = None
        self._noted = noted
        # Entries by their hashes: those of late, and for good where somebody asks for them at the end.
        self._places: Recent[str, int] = Recent(_REMEMBERED_ENTRIES)
        self._kept: dict[str, int] = {}
        self._seen: Recent[int, bool] = Recent(_REMEMBERED_EVENTS)
        self._suspect: tuple[int, int] | None = None
        self._gaps: list[Finding] = []

    @property
    def partitions(self) -> int:
        return (self.trailer.partitions if self.trailer else None) or 0

    def add(self, entry: Mapping[str, Any]) -> None:
        verdict = self.verdict
        sequence, digest = entry.get("sequence"), entry.get("hash")
        previous = entry.get("previous_hash")
        if not isinstance(sequence, int) or not isinstance(digest, str) or not isinstance(previous, str):
            verdict.findings.append(Finding("unreadable", "an entry has no sequence, hash or previous_hash"))
            return
        if self.trailer is not None:
            self._say("inserted", sequence, f"entry {sequence} stands behind the trailer")
        if hash_of(entry) != digest:
            self._say("edited", sequence, f"entry {sequence} does not give its hash")
        if self._places.get(digest) == sequence:
            # What comes next is chained to what was before it.
            self._say("repeated", sequence, f"entry {sequence} stands there more than once")
            return
        _count(verdict, self._seen, entry)
        if verdict.head is not None:
            self._link(verdict.head, sequence, previous)
        if verdict.first is None or sequence < verdict.first:
            # By its number, not its place: the first two may be exchanged, and nothing is missing then.
            verdict.first, verdict.from_start = sequence, previous == GENESIS
            self._first_previous = previous
        self._places.put(digest, sequence)
        if self._noted is not None and digest == self._noted[1]:
            self._kept[digest] = sequence
        verdict.head = (sequence, digest)

    def close(self, trailer: Trailer) -> None:
        """The partition's trailer; a second one speaks of what somebody put behind the first."""
        if self.trailer is not None:
            self._say("inserted", trailer.sequence, f"partition {trailer.partition} has two trailers")
        elif (place := self._places.get(trailer.hash)) is not None:
            self._kept[trailer.hash] = place
        self.trailer = self.trailer or trailer

    def end(self, *, closed: bool) -> Verdict:
        """No more entries.

        Args:
            closed: Whether it has to have a trailer.
        """
        self._settle(None)
        filtered = self.trailer is not None and self.trailer.resource is not None
        # In what was chosen by resource, the entries between are elsewhere; its count speaks for it.
        self.verdict.findings += [] if filtered else self._gaps
        self.verdict.ended = self.trailer is not None or self._noted is not None
        self.verdict.filtered = filtered
        if self.trailer is not None:
            self._compare(self.trailer)
            self.verdict.from_start = self.verdict.from_start and not self.trailer.assumed
        elif closed and self.verdict.partition >= 0:
            self._say("truncated", self.verdict.head[0] if self.verdict.head else None, "its trailer is missing")
        if self._noted is not None:
            self._expect(*self._noted)
        return self.verdict

    def _compare(self, trailer: Trailer) -> None:
        head, checked = self.verdict.head, self.verdict.checked
        if trailer.sequence >= 0:
            self._expect(trailer.sequence, trailer.hash)
        if head is not None and head[0] > trailer.sequence:
            self._say("inserted", head[0], f"ends at {head[0]}, its trailer says {trailer.sequence}")
        before = trailer.previous_hash
        if head is not None and before is not None and before != self._first_previous:
            first = self.verdict.first
            self._say("removed", first, f"entry {first} is not the first one: what was before it is missing")
        if head is None and trailer.sequence < 0 and before is not None and before != trailer.hash:
            self._say("removed", None, "no entries, and what is behind them is not chained to what is before")
        if trailer.entries is not None and checked != trailer.entries and self.verdict.ok:
            kind = "removed" if checked < trailer.entries else "inserted"
            self._say(kind, None, f"{checked} entries, its trailer says {trailer.entries}")

    def _expect(self, sequence: int, digest: str) -> None:
        found = self._kept.get(digest, self._places.get(digest))
        reached = self.verdict.head[0] if self.verdict.head else -1
        if found is None and reached < sequence:
            self._say("truncated", sequence, f"ends at {reached}, its head is {sequence}")
        elif found != sequence:
            self._say("edited", sequence, f"entry {sequence} does not have the hash that was noted for it")

    def _link(self, head: tuple[int, str], sequence: int, previous: str) -> None:
        self._settle(sequence)
        if previous == head[1]:
            if sequence <= head[0]:
                self._say("inserted", sequence, f"entry {sequence} is chained to entry {head[0]}, which comes later")
            return
        place = self._places.get(previous)
        if sequence <= head[0]:
            self._say("swapped", sequence, f"entry {sequence} stands after entry {head[0]}")
        elif place is not None and place <= head[0]:
            self._say("inserted", head[0], f"entry {head[0]} stands between {place} and {sequence}, which are chained")
        elif place is None:
            self._suspect = (head[0], sequence)

    def _settle(self, following: int | None) -> None:
        """Name a broken link by what came after it: a lower sequence means an exchange."""
        if self._suspect is None:
            return
        before, after = self._suspect
        self._suspect = None
        if following is not None and following < after:
            self._say("swapped", after, f"entry {after} stands before entry {following}")
        elif after == before + 1:
            self._say("edited", before, f"entry {after} is not chained to it: it was edited and hashed anew")
        else:
            detail = f"an entry between {before} and {after} was removed, or {before} was edited"
            self._gaps.append(Finding("removed", detail, after))

    def _say(self, kind: str, sequence: int | None, detail: str) -> None:
        self.verdict.findings.append(Finding(kind, detail, sequence))


class TopicCheck:
    """One partition of the audit topic against its sealed batches; records are added in the order of the log.

    The records carry no hash, so a difference shows in the batch that it lies in, by its range. The check begins with
    the first batch that is there from its first entry on: what retention took cannot be told from what was never there.
    Of a batch before that, which retention cannot have reached yet, the records were removed.

    Args:
        partition: Of the audit topic.
        batches: The sealed batches of its present chain.
        noted: A sequence and its hash that somebody kept elsewhere.
        kept_since_ms: Retention has taken nothing of this time or later; None: that is not known.
    """

    def __init__(
        self,
        partition: int,
        batches: Iterable[Batch],
        noted: tuple[int, str] | None = None,
        kept_since_ms: int | None = None,
    ) -> None:
        self._kept_since_ms = kept_since_ms
        self._verdict = Verdict(partition)
        self._batches = sorted(batches, key=lambda batch: batch.first, reverse=True)
        self._previous = None if self._batches else GENESIS
        self._noted = noted
        self._count = 0
        self._seen: Recent[int, bool] = Recent(_REMEMBERED_EVENTS)

    def add(self, offset: int, timestamp_ms: int, value: bytes | None) -> None:
        """The next record."""
        while self._batches and offset > self._batches[-1].last:
            self._close()
        try:
            audit = read_audit_record(value, timestamp_ms)
        except UnreadableAudit:
            return
        batch = self._batches[-1] if self._batches else None
        if batch is None:
            self._verdict.unsealed += 1
        elif offset < batch.first:
            if self._previous is not None or batch.previous_hash == GENESIS:
                self._say("inserted", batch, f"record {offset} before it is in no sealed batch", offset)
            return
        elif offset == batch.first:
            self._open(batch)
        if self._previous is not None:
            self._fold(audit, offset, timestamp_ms)

    def end(self, end_offset: int) -> Verdict:
        """No more records.

        Args:
            end_offset: Of the partition: one beyond its last record.
        """
        while self._batches:
            batch = self._batches[-1]
            if end_offset <= batch.last:
                self._say("truncated", batch, f"the topic ends at {end_offset - 1}")
                self._batches.pop()
            else:
                self._close()
        if self._noted is not None:
            reached = self._verdict.head[0] if self._verdict.head else -1
            kind = "truncated" if reached < self._noted[0] else "removed"
            self._say(kind, None, f"no entry {self._noted[0]} was reached, for which a hash was noted", self._noted[0])
        return self._verdict

    def _open(self, batch: Batch) -> None:
        if self._previous is not None and self._previous != batch.previous_hash:
            self._say("removed", batch, "it is not chained to the sealed batch before it: one is missing")
        self._previous = batch.previous_hash
        self._count = 0

    def _fold(self, audit: dict[str, Any], offset: int, timestamp_ms: int) -> None:
        verdict = self._verdict
        previous = self._previous or GENESIS
        entry = make_entry(
            audit, partition=verdict.partition, sequence=offset, timestamp_ms=timestamp_ms, previous_hash=previous
        )
        if verdict.first is None:
            verdict.first, verdict.from_start = offset, previous == GENESIS
        _count(verdict, self._seen, audit)
        self._count += 1
        self._previous = entry.hash
        verdict.head = (offset, entry.hash)
        if self._noted is not None and offset == self._noted[0]:
            if entry.hash != self._noted[1]:
                self._say("edited", None, f"entry {offset} does not have the hash that was noted for it", offset)
            self._noted = None

    def _close(self) -> None:
        """Compare the batch that ended, and go on from what was sealed, so that later ones are judged alone."""
        batch = self._batches.pop()
        if self._verdict.first is not None:
            self._verdict.batches += 1
            missing = batch.count - self._count
            if missing > 0:
                self._say("removed", batch, f"{missing} of its {batch.count} records are missing")
            elif missing < 0:
                self._say("inserted", batch, f"{-missing} records were added to its {batch.count}")
            elif self._previous != batch.last_hash:
                self._say("edited", batch, "a record was edited, or two were exchanged")
        elif self._kept_since_ms is not None and batch.oldest_ms >= self._kept_since_ms:
            self._say("removed", batch, "its first records are missing, though they are younger than the retention")
        if self._verdict.first is not None or not self._batches:
            self._previous = batch.last_hash
        self._count = 0

    def _say(self, kind: str, batch: Batch | None, detail: str, sequence: int | None = None) -> None:
        text = f"batch {batch.id} ({batch.first} to {batch.last}): {detail}" if batch else detail
        self._verdict.findings.append(Finding(kind, text, sequence, batch.id if batch else None))


def _count(verdict: Verdict, seen: Recent[int, bool], audit: Mapping[str, Any]) -> None:
    verdict.checked += 1
    event = hash((audit.get("source"), audit.get("id")))
    if seen.get(event):
        verdict.repeats += 1
    seen.put(event, True)
