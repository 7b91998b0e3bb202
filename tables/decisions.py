"""Table `decisions`: what the policy engine decided, for as long as that is kept.

Writer: decisions. Key: `p/`, principal, NUL, the key of the question (64 hex digits). Index: when rows expire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from app.engine import Table
from app.integrations.policy import Decision
from tables.open_numbers import OpenNumbers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.engine import Unit

__all__ = ["DECISIONS", "DecisionReader", "DecisionReaders", "decision_key", "expired_decisions", "next_expiry_ms"]

_PREFIX: Final = b"p/"
_TIME_BYTES: Final = 8


def decision_key(principal_id: str, key: str) -> bytes:
    """The row key of a decision."""
    return _PREFIX + principal_id.encode() + b"\x00" + key.encode()


def _index(key: bytes, row: Decision) -> Iterable[bytes]:
    return () if row.expires_ms is None else (_place(row.expires_ms) + key,)


def _place(at_ms: int) -> bytes:
    return max(0, at_ms).to_bytes(_TIME_BYTES, "big")


DECISIONS: Final = Table("decisions", prefix=5, row=Decision, index=_index)


def expired_decisions(unit: Unit, from_ms: int, now_ms: int, limit: int) -> list[bytes]:
    """Row keys of decisions whose time was over between the two, both included."""
    found = unit.scan_index(DECISIONS, start=_place(from_ms), stop=_place(now_ms + 1), limit=limit)
    return [key[_TIME_BYTES:] for key in found]


def next_expiry_ms(unit: Unit, from_ms: int) -> int | None:
    """When the next one's time is over, from a time on."""
    found = unit.scan_index(DECISIONS, start=_place(from_ms), limit=1)
    return int.from_bytes(found[0][:_TIME_BYTES], "big") if found else None


class DecisionReader(Protocol):
    """A number that is open here."""

    async def read(self, principal_id: str, key: str) -> Decision | None:
        """One row.

        Raises:
            Revoked: The number closed first.
        """


class DecisionReaders(OpenNumbers[DecisionReader]):
    """The numbers of the table that are open in this process."""
