"""A time range of an export, as something that can be verified by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.integrations.chain import GENESIS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["between"]


def between(
    entries: Iterable[Mapping[str, Any]], from_at: str | None, to_at: str | None
) -> Iterator[Mapping[str, Any]]:
    """The part of an export that was recorded in a time: of each partition one run of entries, with its own trailer.

    The trailer says what the entries on both sides of the run are chained to, so that tampering at its edges shows.

    Args:
        entries: As `verify` takes them.
        from_at: As in `recorded_at`; the first entry of this time or later begins the run.
        to_at: The first entry of this time or later ends it.
    """
    runs: dict[Any, _Run] = {}
    for entry in entries:
        said = entry.get("trailer")
        place = said if isinstance(said, Mapping) else entry
        run = runs.setdefault(place.get("partition"), _Run())
        if place is not entry:
            yield run.trailer(place)
        elif run.takes(entry, from_at, to_at):
            yield entry


@dataclass(slots=True)
class _Run:
    """One partition's run of entries in a time, with its neighbours.

    Attributes:
        before: The last entry before the run.
        last: The last entry of it.
        after: The first entry behind it.
        left_out: How many entries are not in it.
    """

    begun: bool = False
    before: Mapping[str, Any] | None = None
    last: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    left_out: int = 0

    def takes(self, entry: Mapping[str, Any], from_at: str | None, to_at: str | None) -> bool:
        at = str(entry.get("recorded_at"))
        self.begun = self.begun or from_at is None or at >= from_at
        if self.after is None and to_at is not None and at >= to_at:
            self.after = entry
        taken = self.begun and self.after is None
        if taken:
            self.last = entry
            return True
        self.left_out += 1
        if self.after is None:
            self.before = entry
        return False

    def trailer(self, said: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self.left_out:
            return {"trailer": said}
        kept = {name: said[name] for name in ("partition", "partitions", "resource", "assumed") if name in said}
        if "resource" in said:
            return {"trailer": kept | self._end_of_chosen(said)}
        previous = said.get("previous_hash") if self.before is None else self.before.get("hash")
        return {"trailer": kept | {"previous_hash": previous} | self._end(said)}

    def _end(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Its last entry, by what comes behind it."""
        if self.after is None:
            sequence, digest = said.get("sequence"), said.get("hash")
        else:
            last, behind = self.last or {}, self.after.get("sequence")
            sequence, digest = last.get("sequence"), self.after.get("previous_hash")
            if last.get("hash") != digest and isinstance(behind, int):
                sequence = behind - 1
        return {"sequence": -1 if self.last is None else sequence, "hash": digest}

    def _end_of_chosen(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Entries of one resource have no neighbours: what shows a removed one is the number of all of them."""
        last = self.last
        end = {"sequence": -1, "hash": GENESIS}
        if last is not None:
            end = {"sequence": last.get("sequence"), "hash": last.get("hash")}
            end = end if self.after is not None else {name: said.get(name) for name in end}
        entries = said.get("entries")
        return end | ({"entries": entries - self.left_out} if isinstance(entries, int) else {})
