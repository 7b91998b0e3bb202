"""Ends tasks for certain.

aiokafka swallows a cancellation that comes while it stops something (it awaits tasks that it has cancelled itself), so
that its caller goes on as if nothing had been asked.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["cancelled"]

# Longer than what a cancelled task may need to clean up: a reader takes 3 s to stop at most.
CANCEL_AGAIN_S = 4.0


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, again and again, until all have ended; what they raise is not raised here."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)
