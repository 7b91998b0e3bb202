"""The group's offsets: a copy of the positions, for tools that know Kafka and not us.

Twelve numbers that are busy make sixty checkpoints a second. One commit for each cost a third of what the checkpoints
cost, so there is one a second for all numbers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from app.brokers import REFUSALS

__all__ = ["OffsetCopies"]

log = logging.getLogger("app.engine.offset_copies")

TP = tuple[str, int]

EVERY_S = 1.0
LAST_DEADLINE_S = 2.0


class OffsetCopies:
    """Collects positions that are in the changelog, and commits them to the group.

    Args:
        commit: One request; may raise anything, for the copy is not what anybody starts from.
    """

    def __init__(self, commit: Callable[[Mapping[TP, int]], Awaitable[None]]) -> None:
        self._commit = commit
        self._pending: dict[TP, int] = {}
        self._finished = 0
        self._added = asyncio.Event()
        self._one = asyncio.Lock()

    def add(self, offsets: Mapping[TP, int]) -> None:
        """Have these copied soon."""
        self._pending.update(offsets)
        self._added.set()

    async def run(self) -> None:
        """Copy until cancelled."""
        while True:
            await self._added.wait()
            await asyncio.sleep(EVERY_S)
            self._added.clear()
            await self._copy()

    async def finish(self, *, lost: bool) -> None:
        """The numbers are closed: copy what is left, or forget it when somebody else may own them."""
        if not lost:
            try:
                async with asyncio.timeout(LAST_DEADLINE_S):
                    await self._copy()
            except TimeoutError:
                log.warning("group offsets were not copied within %.0f s", LAST_DEADLINE_S)
        self._pending = {}
        self._finished += 1

    async def _copy(self) -> None:
        # One at a time, or an older copy may overtake a newer one.
        async with self._one:
            offsets, self._pending = self._pending, {}
            finished = self._finished
            if not offsets:
                return
            try:
                await self._commit(offsets)
            except Exception as error:  # noqa: BLE001  # a copy for tools; the positions are in the changelog
                if REFUSALS.met(error, "Read") is None:
                    log.warning("group offsets were not copied: %r", error)
                # Those of an assignment that is over would be refused, and with them all others.
                if finished == self._finished:
                    self._pending = {**offsets, **self._pending}
                    self._added.set()
