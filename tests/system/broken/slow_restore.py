"""A restore takes longer than a session. That is nothing broken, and must cost nothing but the time."""

import asyncio

from app.engine.number import Number

RESTORE_S = 9.0


def apply() -> None:
    restore = Number._restore

    async def slowly(self: Number) -> None:
        await asyncio.sleep(RESTORE_S)
        await restore(self)

    Number._restore = slowly
