"""An agent that does nothing in particular, for numbers whose life is what a test is about."""

import asyncio

from app.engine import Processor, Slice, Unit
from tests.support.engine import ROWS, Row


class Quiet(Processor):
    """Remembers that it was closed; takes its time about it."""

    closings: list[str]

    async def process(self, slice_: Slice, unit: Unit) -> None:
        for record in slice_.records:
            unit.put(ROWS, record.key, Row(n=record.offset))

    async def closed(self) -> None:
        await asyncio.sleep(0.1)
        self.closings.append(self.context.agent)
