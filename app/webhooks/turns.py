"""Whose turn it is: a ring of webhooks that may have something to start, and timers that bring others into it."""

from __future__ import annotations

import heapq
from collections import deque
from typing import Final

__all__ = ["Turns"]

# Timers that an earlier one replaced stay in the heap until there are more of them than this.
STALE_TIMERS: Final = 32


class Turns:
    """Those of one scheduler. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._ring: deque[str] = deque()
        self._in_ring: set[str] = set()
        self._timers: list[tuple[float, str]] = []
        self._timer_of: dict[str, float] = {}

    def __len__(self) -> int:
        """How many are in the ring."""
        return len(self._ring)

    def join(self, webhook_id: str) -> None:
        """It is in the ring, behind those that are there."""
        if webhook_id not in self._in_ring:
            self._in_ring.add(webhook_id)
            self._ring.append(webhook_id)

    def leave(self) -> str:
        """The first in the ring, which leaves it."""
        webhook_id = self._ring.popleft()
        self._in_ring.discard(webhook_id)
        return webhook_id

    def sleep(self, webhook_id: str, until_s: float) -> None:
        """It joins at this time, or at an earlier one that it has."""
        known_s = self._timer_of.get(webhook_id)
        if known_s is None or until_s < known_s:
            self._timer_of[webhook_id] = until_s
            heapq.heappush(self._timers, (until_s, webhook_id))
            if len(self._timers) > 2 * len(self._timer_of) + STALE_TIMERS:
                self._timers = sorted((at_s, of) for of, at_s in self._timer_of.items())

    def sleeps_until_s(self, webhook_id: str) -> float | None:
        """When its timer fires; None: it has none."""
        return self._timer_of.get(webhook_id)

    def wake_up(self, now_s: float) -> None:
        """Those whose time has come join."""
        while self._timers and self._timers[0][0] <= now_s:
            at_s, webhook_id = heapq.heappop(self._timers)
            if self._timer_of.get(webhook_id) == at_s:
                del self._timer_of[webhook_id]
                self.join(webhook_id)

    def next_at_s(self) -> float | None:
        """When the next timer fires, or one that was replaced would have."""
        return self._timers[0][0] if self._timers else None
