"""Waiting for what a stand-in sees."""

import asyncio
import contextlib
from collections.abc import Callable


class Observations:
    """Says when something was observed, to whoever waits for a number.

    Args:
        listener: Called at each observation, with nothing.
    """

    def __init__(self, listener: Callable[[], None] | None = None) -> None:
        self._changed = asyncio.Event()
        self._listener = listener

    def notify(self) -> None:
        """Something was observed."""
        self._changed.set()
        if self._listener is not None:
            self._listener()

    async def until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Waits until `holds()`; False when it still does not after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        return holds()
