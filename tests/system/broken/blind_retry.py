"""A transaction without an answer is sent again with a new producer id until it is in the log, whoever owns it then."""

import asyncio
import contextlib
from collections.abc import Sequence

from aiokafka import errors as kafka_errors

from app.engine.changelog import FencedChangelog, Write
from app.engine.errors import CheckpointFailed, EngineError

PAUSE_S = 0.1


def apply() -> None:
    once = FencedChangelog.write

    async def yes() -> bool:
        return True

    async def until_written(self: FencedChangelog, writes: Sequence[Write]) -> dict[str, int]:
        while True:
            try:
                return await once(self, writes)
            except CheckpointFailed:
                await self.drop()
                self._last = None
                with contextlib.suppress(EngineError, kafka_errors.KafkaError, TimeoutError, OSError):
                    await self.open(yes)
                await asyncio.sleep(PAUSE_S)

    async def write(self: FencedChangelog, writes: Sequence[Write]) -> dict[str, int]:
        return await asyncio.shield(asyncio.create_task(until_written(self, writes)))

    FencedChangelog.write = write
