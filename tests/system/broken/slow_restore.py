"""A restore takes longer than a session. That is nothing broken, and must cost nothing but the time."""

import asyncio

from app.engine import number as number_module
from app.engine.services import Services

RESTORE_S = 9.0


def apply() -> None:
    restore = number_module.restore_number

    async def slowly(services: Services, number: int) -> None:
        await asyncio.sleep(RESTORE_S)
        await restore(services, number)

    number_module.restore_number = slowly
