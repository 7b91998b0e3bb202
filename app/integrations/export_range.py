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
        elif run.takes(str(entry.get("recorded_at")), from_at, to_at):
            run.last = entry
            yield entry


@dataclass(slots=True)
class _Run:
    """One partition's run of entries in a time."""

    begun: bool = False
    over: bool = False
    cut: bool = False
    last: Mapping[str, Any] | None = None

    def takes(self, at: str, from_at: str | None, to_at: str | None) -> bool:
        self.begun = self.begun or from_at is None or at >= from_at
        self.over = self.over or (to_at is not None and at >= to_at)
        taken = self.begun and not self.over
        self.cut = self.cut or not taken
        return taken

    def trailer(self, said: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self.cut:
            return {"trailer": said}
        kept = {name: said[name] for name in ("partition", "partitions", "resource") if name in said}
        if not self.over and self.begun:
            kept |= {name: said[name] for name in ("sequence", "hash") if name in said}
        elif self.last is not None:
            kept |= {"sequence": self.last.get("sequence"), "hash": self.last.get("hash")}
        return {"trailer": {"sequence": -1, "hash": GENESIS, **kept}}
