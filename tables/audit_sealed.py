"""The sealed batches of the audit chain, as the changelog of the table `audit` has them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from app.integrations.export import Anchor
from tables.audit import AUDIT, head_key, partition_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.integrations.chain import Batch, ChainHead

__all__ = ["Sealed", "kept_since_ms"]

_ENGINE_ROW: Final = b"\0"
_DAY_MS: Final = 24 * 60 * 60 * 1000
# By so much this clock and the brokers' may differ.
_CLOCKS_MS: Final = 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Sealed:
    """What the table `audit` says: heads, and the sealed batches of each partition's present chain.

    A year of batches is large: they stay as they came until a partition is asked for.

    Attributes:
        rows: By partition and key, the newest value of each row.
    """

    rows: dict[int, dict[bytes, bytes]] = field(default_factory=dict)

    def put(self, key: bytes | None, value: bytes | None) -> None:
        """The next record of the changelog."""
        if key is None or key.startswith(_ENGINE_ROW):
            return
        of_partition = self.rows.setdefault(partition_of(key), {})
        if value is None:
            of_partition.pop(key, None)
        else:
            of_partition[key] = value

    def head(self, partition: int) -> ChainHead | None:
        """The head of a partition's chain; None before its first batch."""
        found = self.rows.get(partition, {}).get(head_key(partition))
        return None if found is None else AUDIT.decode(found).head

    def batches(self, partition: int) -> list[Batch]:
        """The sealed batches of a partition's present chain, in no order."""
        head = self.head(partition)
        found = (AUDIT.decode(value).batch for value in self.rows.get(partition, {}).values())
        return [batch for batch in found if batch is not None and head is not None and batch.chain == head.chain]

    def anchors(self, partition: int) -> Iterable[Anchor]:
        """Where the chain of a partition can be taken up."""
        for batch in self.batches(partition):
            yield Anchor(batch.first, batch.previous_hash)
        if (head := self.head(partition)) is not None:
            yield Anchor(head.sequence + 1, head.hash)


def kept_since_ms(now_ms: int, retention_d: int) -> int:
    """Retention has taken nothing of this time or later."""
    return now_ms - retention_d * _DAY_MS + _CLOCKS_MS
