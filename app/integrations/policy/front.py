"""Decisions in memory, the least recently used forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from app.integrations.policy.decisions import Decision

__all__ = ["Front"]

CAPACITY: Final = 10_000
# A few large ones must not be all that fits into memory; those are kept by their owner's table.
LARGEST_BYTES: Final = 16 * 1024

_encoded: Final = msgspec.msgpack.Encoder().encode


class Front:
    """By the key of their questions; whoever takes one asks whether it still counts.

    Args:
        capacity: How many.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[str, tuple[Decision, float]] = OrderedDict()

    def put(self, decision: Decision, until_s: float) -> None:
        """Keep it until a monotonic time; one that began later is not replaced."""
        known = self._kept.get(decision.key)
        if known is not None and known[0].began_ms > decision.began_ms:
            return
        if len(_encoded(decision)) > LARGEST_BYTES:
            self._kept.pop(decision.key, None)
            return
        self._kept[decision.key] = decision, until_s
        self._kept.move_to_end(decision.key)
        if len(self._kept) > self._capacity:
            self._kept.popitem(last=False)

    def get(self, key: str, now_s: float) -> Decision | None:
        """The one that is kept, None once its time is over."""
        known = self._kept.get(key)
        if known is None:
            return None
        if now_s >= known[1]:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return known[0]

    def drop(self, key: str) -> None:
        """It does not count any more."""
        self._kept.pop(key, None)
