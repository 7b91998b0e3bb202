"""What was sent late is acknowledged some time after the rows and positions are logged."""

import asyncio
from collections.abc import Sequence

from app.engine.late_outputs import LateOutputs
from app.engine.outputs import Message

LATER_S = 3.0
sending: set[asyncio.Task[None]] = set()


def apply() -> None:
    send = LateOutputs.send

    async def send_later(late: LateOutputs, messages: Sequence[Message]) -> None:
        async def later() -> None:
            await asyncio.sleep(LATER_S)
            await send(late, messages)

        sending.add(asyncio.create_task(later()))

    LateOutputs.send = send_later
