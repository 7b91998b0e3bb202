"""Questions to the table of the audit chain: how far each partition is, and where its chain can be taken up.

`AuditReaders` is where the API finds the numbers that are open here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from app.integrations.export import Anchor
from tables.audit import AUDIT, batch_key
from tables.open_numbers import OpenNumbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from app.engine import Unit
    from app.integrations.chain import ChainHead

__all__ = ["AuditReader", "AuditReaders", "LineState", "anchors_near"]

T = TypeVar("T")

_BATCHES_AT_ONCE: Final = 1_000
# Beyond the largest batch that a setting allows.
_FIRST_WINDOW: Final = 10_000
_WIDER: Final = 16
_PARTITION_BYTES: Final = 5


@dataclass(frozen=True, slots=True)
class LineState:
    """How far the audit records of one partition are.

    Attributes:
        head: Of the chain, with the sealed batch; None before the first.
        waiting: Records that were read and are in no sealed batch.
        sealed: Records in the sealed batch that the dashboard has not accepted.
        next_offset: One beyond the last record that was read since the number was opened.
        oldest_unaccepted_s: Age of the oldest record that the dashboard does not have; None: it has all.
        broken: Why nothing more is sent, if so.
    """

    head: ChainHead | None
    waiting: int
    sealed: int
    next_offset: int
    oldest_unaccepted_s: float | None
    broken: str | None = None


class AuditReader(Protocol):
    """A number that is open here."""

    async def read(self, job: Callable[[Unit, Mapping[int, LineState]], T]) -> T:
        """Run a job between slices; its second argument is how far each partition of the number is.

        Raises:
            Revoked: The number closed first.
        """


class AuditReaders(OpenNumbers[AuditReader]):
    """The numbers of the audit table that are open in this process."""


def anchors_near(unit: Unit, partition: int, wanted: int, head: ChainHead | None) -> list[Anchor]:
    """Where the chain of a partition can be taken up: around an offset, and at its head.

    Args:
        wanted: The batch that has this offset is among them, or the first one behind it.
        head: Of the chain; only batches of it count.
    """
    if head is None:
        return []
    window, low = _FIRST_WINDOW, max(0, wanted - _FIRST_WINDOW)
    found = list(_anchors(unit, partition, low, wanted, head.chain))
    while low > 0 and not any(anchor.first <= wanted for anchor in found):
        window *= _WIDER
        low = max(0, wanted - window)
        found = list(_anchors(unit, partition, low, wanted, head.chain))
    return [*found, Anchor(head.sequence + 1, head.hash)]


def _anchors(unit: Unit, partition: int, low: int, wanted: int, chain: str) -> Iterator[Anchor]:
    """The last batch that begins in `low` to `wanted`, and the first one behind."""
    prefix = batch_key(partition, 0)[:_PARTITION_BYTES]
    start, best = batch_key(partition, low), None
    while True:
        rows = unit.scan(AUDIT, prefix, start=start, limit=_BATCHES_AT_ONCE)
        for _, row in rows:
            if row.batch is None or row.batch.chain != chain:
                continue
            anchor = Anchor(row.batch.first, row.batch.previous_hash)
            if anchor.first <= wanted:
                best = anchor
                continue
            yield anchor
            rows = []
            break
        if len(rows) < _BATCHES_AT_ONCE:
            break
        start = rows[-1][0] + b"\x00"
    if best is not None:
        yield best
