"""A reopening takes the producer id from whoever has it, as a first opening does."""

from collections.abc import Awaitable, Callable

from app.engine.changelog import FencedChangelog


def apply() -> None:
    opened = FencedChangelog.open

    async def plainly(self: FencedChangelog, may: Callable[[], Awaitable[bool]]) -> None:
        self._last = None
        await opened(self, may)

    FencedChangelog.open = plainly
