"""Where the threads of this process are, weighed by the processor time that each has really used.

A thread looks at the frames of the others some hundred times a second. It needs the interpreter's lock for that, and
would get it mostly where the others give it away (sockets, compression); so the switch interval is short meanwhile,
and a sample counts for the processor time of its thread since the last one, not for one.
"""

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Final

__all__ = ["Sampler"]

EVERY_S: Final = 0.003
SWITCH_INTERVAL_S: Final = 0.0005


class Sampler:
    """Between `start` and `stop`.

    Args:
        stage_of: Names what a thread is doing, from its innermost frame.

    Attributes:
        cpu_s: Processor time by (name of the thread, stage).
        lines: Processor time by (stage, function).
    """

    def __init__(self, stage_of: Callable[[FrameType], str]) -> None:
        self._stage_of = stage_of
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="sampler")
        self._random = random.Random(1)
        self._clocks: dict[int, tuple[int, float]] = {}
        self.cpu_s: Counter[tuple[str, str]] = Counter()
        self.lines: Counter[tuple[str, str]] = Counter()

    def start(self) -> None:
        """Begin to look."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it was started."""
        return self._thread.ident is not None

    def stop(self) -> None:
        """No more samples."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        me = threading.get_ident()
        while not self._stop.wait(self._random.uniform(0.5, 1.5) * EVERY_S):
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            for ident, frame in sys._current_frames().items():  # noqa: SLF001  # documented, and the only way
                if ident != me and ident in names:
                    self._sample(ident, names[ident], frame)

    def _sample(self, ident: int, name: str, frame: FrameType) -> None:
        clock, before_s = self._clocks.get(ident, (0, -1.0))
        if before_s < 0:
            clock = time.pthread_getcpuclockid(ident)
        now_s = time.clock_gettime(clock)
        self._clocks[ident] = (clock, now_s)
        if before_s < 0:
            return
        used_s = now_s - before_s
        stage = self._stage_of(frame)
        self.cpu_s[name, stage] += used_s
        self.lines[stage, frame.f_code.co_qualname] += used_s
