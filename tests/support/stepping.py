"""An event loop that a test turns by hand, one callback at a time; its clock moves only when nothing else is left.

So a process may be killed or frozen between any two steps of anything, and hours pass in no time.
"""

import asyncio
import heapq
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from app.engine import Clock


class _NeverWaits(selectors.SelectSelector):
    def select(self, timeout: float | None = None) -> list[Any]:
        return []


class SteppedLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        super().__init__(_NeverWaits())
        self._now_s = 0.0

    def time(self) -> float:
        return self._now_s

    def pass_time(self, seconds: float) -> None:
        self._now_s += seconds

    def step(self) -> bool:
        """Run the next callback, whenever it is due; False when nothing waits for anything but the test."""
        if not self._ready and not self._turn_the_clock():
            return False
        later = deque(list(self._ready)[1:])
        while len(self._ready) > 1:
            self._ready.pop()
        self.stop()
        self.run_forever()
        self._ready.extendleft(reversed(later))
        return True

    def _turn_the_clock(self) -> bool:
        while self._scheduled and self._scheduled[0].cancelled():
            # As BaseEventLoop does it.
            self._timer_cancelled_count -= 1
            heapq.heappop(self._scheduled)._scheduled = False
        if not self._scheduled:
            return False
        self._now_s = max(self._now_s, self._scheduled[0].when())
        return True

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task that goes on as the test steps."""
        return self.create_task(work)

    def finish(self, work: Coroutine[Any, Any, Any], steps: int = 20_000) -> Any:
        """Step until it has ended."""
        task = self.start(work)
        for _ in range(steps):
            if task.done():
                return task.result()
            self.step()
        raise AssertionError(f"{task!r} is stuck")

    def end(self) -> None:
        """Cancel whatever is left; nothing of it may matter any more."""
        for _ in range(100):
            left = [task for task in asyncio.all_tasks(self) if not task.done()]
            if not left:
                break
            for task in left:
                task.cancel()
            for _ in range(50):
                if not self.step():
                    break
        self.close()


class SteppedClock(Clock):
    """The loop's time, for the engine."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s

    def now_ms(self) -> int:
        return int(1e12 + self._now_s() * 1000)

    def monotonic_s(self) -> float:
        return self._now_s()
