"""How many intents a busy worker takes at once, where one webhook gets more than it has slots for.

What finds a slot starts from its record. What does not must wait, be looked for and be taken out again, which costs
about a tenth of all that a delivery does. So where most of a slice is of a webhook that was short of slots, the next
slices are as long as it has slots. What comes for others of the number waits for that, too, some twenty milliseconds.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.webhooks.scheduler import Now, Room, Scheduler

__all__ = ["FEWEST", "HOLD_S", "LEAST", "WORK_OFF_S", "Appetite"]

LEAST: Final = 24
"""Records, as each slice has costs of its own; or a quarter of the webhook's slots, so that the others stay in use."""
FEWEST: Final = 8
"""What is less than this costs more than it saves."""
WORK_OFF_S: Final = 0.02
"""So long a slice waits for those that wait already: they have every slot that comes free meanwhile."""
HOLD_S: Final = 0.003
"""So long it waits, then, for slots that nobody uses; where attempts end more slowly, slots are what is scarce."""


class Appetite:
    """One number's.

    Args:
        scheduler: Knows the slots.
        busy: Whether the worker has more to do than time.
    """

    def __init__(self, scheduler: Scheduler, busy: Callable[[], bool]) -> None:
        self._scheduler = scheduler
        self._busy = busy
        self._met: list[str] = []
        self._waited: set[str] = set()
        self._short: str | None = None
        self._ended_s = 0.0
        self._worked_off_s = 0.0

    def begins(self) -> None:
        """A slice begins."""
        self._met.clear()
        self._waited.clear()

    def meets(self, webhook_id: str) -> None:
        """It has an intent of this webhook."""
        self._met.append(webhook_id)

    def waits(self, webhook_id: str) -> None:
        """One of this webhook had to wait for a slot."""
        self._waited.add(webhook_id)

    def ends(self, now: Now) -> None:
        """The slice is over."""
        before, self._short, self._ended_s = self._short, None, now.monotonic_s
        if self._waited or before is not None:
            for webhook_id, count in Counter(self._met).most_common(1):
                if 2 * count >= len(self._met) and (webhook_id in self._waited or webhook_id == before):
                    self._short = webhook_id

    def takes(self, limit: int, now: Now) -> int:
        """Of how many records the next slice should be; where too few slots came free, of as many as ever."""
        room = self._room(now)
        return limit if room is None or room.free < _least(room) else min(limit, room.free)

    def holds_back_s(self, now: Now) -> float:
        """How long it should wait for slots; 0: no longer."""
        room = self._room(now)
        if room is None or room.free >= _least(room):
            return 0.0
        if room.waits:
            self._worked_off_s = now.monotonic_s
            return max(0.0, self._ended_s + WORK_OFF_S - now.monotonic_s)
        return max(0.0, max(self._ended_s, self._worked_off_s) + HOLD_S - now.monotonic_s)

    def _room(self, now: Now) -> Room | None:
        room = self._scheduler.room(self._short, now) if self._short is not None and self._busy() else None
        return room if room is not None and room.slots >= 4 * FEWEST else None


def _least(room: Room) -> int:
    return min(LEAST, room.slots // 4)
