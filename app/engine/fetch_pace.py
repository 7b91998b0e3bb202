"""How far apart fetches are: nothing waits while there is time, and under load each brings more at once.

A fetch, a slice, a batch of outputs and a checkpoint cost about the same whether they carry two records or fifty. A
worker that asks again as soon as it was answered is therefore the more busy the less it gets each time: at half of what
it can do, most of its time went into asking. Waiting a little makes it faster, and what it delivers sooner.

It waits about as little as leaves its thread some time, whatever else the thread has to do: so what one receiver costs
hardly shows in how long the events of the others take.
"""

from __future__ import annotations

import os
import time
from typing import Final

__all__ = ["FetchPace", "ThreadClock"]

# The part of its thread's time that a worker may need before it begins to wait.
AIM_LOAD: Final = 0.7
# Paced as it is, only one that has more to do than time needs so much.
BUSY_LOAD: Final = 0.85
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
# A backlog is over when no answer was full for so long.
BACKLOG_S: Final = 1.0
SCHEDSTAT: Final = "/proc/thread-self/schedstat"


class ThreadClock:
    """The time that the thread which made it needed: at work, or ready for it while others had the processor.

    Where processors are shared, a thread that never rests may get half of one, and is not half idle.
    """

    def __init__(self) -> None:
        try:
            self._file: int | None = os.open(SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = None
        if self._file is not None and not self._needed_ns(self._file):
            # A kernel that does not count says 0, and nothing would ever wait.
            os.close(self._file)
            self._file = None

    def now_s(self) -> float:
        """Seconds in all; without Linux's statistics those at work."""
        return time.thread_time() if self._file is None else self._needed_ns(self._file) / 1e9

    @staticmethod
    def _needed_ns(file: int) -> int:
        worked_ns, waited_ns, _ = os.pread(file, 64, 0).split()
        return int(worked_ns) + int(waited_ns)


class FetchPace:
    """Says when the next fetch may be sent.

    The load is noted, and `busy` and `gather_s` asked, by the thread that works; all else is for the one that fetches.
    """

    def __init__(self) -> None:
        self._apart_s = 0.0
        self._noted: tuple[float, float] | None = None
        self._next_s = 0.0
        self._load = 0.0
        self._now_s = 0.0
        self._full_s: float | None = None

    def note(self, now_s: float, worked_s: float) -> None:
        """Note the time that the thread has needed in all; often.

        Args:
            now_s: The monotonic clock.
            worked_s: The thread's own clock, `ThreadClock`.
        """
        self._now_s = now_s
        if self._noted is None:
            self._noted = now_s, worked_s
            return
        then_s, before_s = self._noted
        if (window_s := now_s - then_s) >= WINDOW_S:
            self._noted = now_s, worked_s
            # One busy moment is no load, and noise is none either.
            self._load = (self._load + (worked_s - before_s) / window_s) / 2
            excess = self._load - AIM_LOAD
            change_s = (LONGER_S if excess > 0 else SHORTER_S) * excess * min(window_s, LONGEST_WINDOW_S)
            self._apart_s = min(LONGEST_S, max(0.0, self._apart_s + change_s))

    @property
    def busy(self) -> bool:
        """Whether the thread has had more to do than time for some tenths of a second."""
        return self._load >= BUSY_LOAD

    def wait_s(self, now_s: float) -> float:
        """How long the next fetch waits; 0 when it may be sent."""
        return max(0.0, self._next_s - now_s)

    def sent(self, now_s: float) -> None:
        """A fetch was sent."""
        self._next_s = now_s + self._apart_s

    def more(self) -> None:
        """An answer was as large as it may be, so that waiting would bring no more at once."""
        self._next_s = 0.0
        self._full_s = self._now_s

    def gather_s(self) -> float:
        """How long what is to be sent should wait for more; not at all while fetches bring as much as they may."""
        backlog = self._full_s is not None and self._now_s < self._full_s + BACKLOG_S
        return 0.0 if backlog else self._apart_s * GATHER_SHARE
