"""Records are done before what was sent for them is acknowledged; it is sent a little later."""

import asyncio

from app.engine.unit import Unit

LATER_S = 3.0
sending: set[asyncio.Task[None]] = set()


def apply() -> None:
    async def flush(unit: Unit) -> None:
        messages, unit._messages = unit._messages, []

        async def later() -> None:
            await asyncio.sleep(LATER_S)
            await unit._scope.outputs.send_many(messages)

        sending.add(asyncio.create_task(later()))

    Unit.flush = flush
