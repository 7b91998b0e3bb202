"""How far apart fetches are: nothing waits while there is time, and under load each brings more at once.

A fetch, a slice, a batch of outputs and a checkpoint cost about the same whether they carry two records or fifty. A
worker that asks again as soon as it was answered is therefore the more busy the less it gets each time: at half of what
it can do, most of its time went into asking. Waiting a little makes it faster, and what it delivers sooner.
"""

from __future__ import annotations

from typing import Final

__all__ = ["FetchPace"]

# Up to here there is time for everything; from the other one on fetches are as far apart as they may be.
FREE_LOAD: Final = 0.35
FULL_LOAD: Final = 0.7
# Each event is fetched twice, as itself and as a delivery.
LONGEST_S: Final = 0.06
WINDOW_S: Final = 0.2


class FetchPace:
    """Says when the next fetch may be sent.

    The load is noted by the thread that works, all else is asked by the one that fetches.
    """

    def __init__(self) -> None:
        self._load = 0.0
        self._noted: tuple[float, float] | None = None
        self._next_s = 0.0

    def note(self, now_s: float, worked_s: float) -> None:
        """Note the processor time that the thread has used in all; often.

        Args:
            now_s: The monotonic clock.
            worked_s: The thread's own clock.
        """
        if self._noted is None:
            self._noted = now_s, worked_s
            return
        then_s, before_s = self._noted
        if now_s - then_s >= WINDOW_S:
            self._noted = now_s, worked_s
            # One busy moment is no load.
            self._load = (self._load + (worked_s - before_s) / (now_s - then_s)) / 2

    def wait_s(self, now_s: float) -> float:
        """How long the next fetch waits; 0 when it may be sent."""
        return max(0.0, self._next_s - now_s)

    def sent(self, now_s: float) -> None:
        """A fetch was sent."""
        share = (self._load - FREE_LOAD) / (FULL_LOAD - FREE_LOAD)
        self._next_s = now_s + LONGEST_S * min(1.0, max(0.0, share))

    def more(self) -> None:
        """An answer was as large as it may be, so that waiting would bring no more at once."""
        self._next_s = 0.0
