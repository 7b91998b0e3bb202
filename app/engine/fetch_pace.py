"""How far apart fetches are: nothing waits while there is time, and under load each brings more at once.

A fetch, a slice, a batch of outputs and a checkpoint cost about the same whether they carry two records or fifty. A
worker that asks again as soon as it was answered is therefore the more busy the less it gets each time: at half of what
it can do, most of its time went into asking. Waiting a little makes it faster, and what it delivers sooner.

It waits as little as leaves its thread some time, whatever else the thread has to do: so what one receiver costs hardly
shows in how long the events of the others take.
"""

from __future__ import annotations

from typing import Final

__all__ = ["FetchPace"]

# The part of its thread's time that a worker may need before it begins to wait.
AIM_LOAD: Final = 0.7
# Each event is fetched twice, as itself and as a delivery.
LONGEST_S: Final = 0.06
# By how much longer or shorter fetches wait after a second of so much too much or too little load: at once when there
# is too much, before anything lies about; and slowly back, or it would swing.
LONGER_S: Final = 0.2
SHORTER_S: Final = 0.1
WINDOW_S: Final = 0.2
LONGEST_WINDOW_S: Final = 1.0
# Of the wait for a fetch: what is sent waits so long for what else is sent. The slices of a fetch come within it.
GATHER_SHARE: Final = 1 / 6
# A backlog is over after so many fetches that were not full: of several brokers not all have much at one time.
NOT_FULL: Final = 4


class FetchPace:
    """Says when the next fetch may be sent.

    The load is noted, and `gather_s` asked, by the thread that works; all else is for the one that fetches.
    """

    def __init__(self) -> None:
        self._apart_s = 0.0
        self._noted: tuple[float, float] | None = None
        self._next_s = 0.0
        self._since_full = NOT_FULL

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
        if (window_s := now_s - then_s) >= WINDOW_S:
            self._noted = now_s, worked_s
            excess = (worked_s - before_s) / window_s - AIM_LOAD
            change_s = (LONGER_S if excess > 0 else SHORTER_S) * excess * min(window_s, LONGEST_WINDOW_S)
            self._apart_s = min(LONGEST_S, max(0.0, self._apart_s + change_s))

    def wait_s(self, now_s: float) -> float:
        """How long the next fetch waits; 0 when it may be sent."""
        return max(0.0, self._next_s - now_s)

    def sent(self, now_s: float) -> None:
        """A fetch was sent."""
        self._next_s = now_s + self._apart_s
        self._since_full += 1

    def more(self) -> None:
        """An answer was as large as it may be, so that waiting would bring no more at once."""
        self._next_s = 0.0
        self._since_full = 0

    def gather_s(self) -> float:
        """How long what is to be sent should wait for more; not at all while fetches bring as much as they may."""
        return self._apart_s * GATHER_SHARE if self._since_full >= NOT_FULL else 0.0
