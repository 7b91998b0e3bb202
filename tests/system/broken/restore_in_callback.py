"""An assignment is answered when its numbers are restored, and until then no heartbeat goes out."""

import asyncio
from typing import Any

from app.engine.consumer import SliceConsumer


def apply() -> None:
    assigned = SliceConsumer.on_partitions_assigned

    async def and_restored(self: SliceConsumer, *args: Any) -> None:
        await assigned(self, *args)
        numbers = self.engine.numbers
        while not (numbers and all(number.ready for number in numbers.values())):
            await asyncio.sleep(0.05)
            numbers = self.engine.numbers

    SliceConsumer.on_partitions_assigned = and_restored
