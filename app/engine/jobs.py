"""Jobs of one runner: what HTTP outcomes and API calls want done between slices, committed in groups."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from app.engine.errors import OutputTooLarge, Revoked
from app.engine.unit import Mark, Scope, Unit

__all__ = ["JobQueue"]

JOBS_A_UNIT = 500

Job = Callable[[Unit], Any]
# Where it began, who awaits it, and what it returned.
_Ran = tuple[Mark, asyncio.Future[Any], Any]


class JobQueue:
    """Waiting jobs, in order.

    Args:
        scope: Of the runner.
        commit: Makes a unit real.
    """

    def __init__(self, scope: Scope, commit: Callable[[Unit], Awaitable[None]]) -> None:
        self._scope = scope
        self._commit = commit
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[Job, asyncio.Future[Any]]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, job: Job) -> asyncio.Future[Any]:
        """Its result, once it is merged."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append((job, future))
        return future

    def fail(self, error: Revoked) -> None:
        """Nobody will run them."""
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(error)
        self._waiting.clear()

    async def run(self) -> None:
        """Run those that wait, as one unit; one that throws takes nothing with it."""
        unit = Unit(self._scope)
        ran: list[_Ran] = []
        while self._waiting and len(ran) < JOBS_A_UNIT:
            job, future = self._waiting.popleft()
            start = unit.mark()
            try:
                result = job(unit)
            except Exception as error:  # noqa: BLE001  # it is the caller's, who awaits the job
                unit.rewind(start)
                if not future.done():
                    future.set_exception(error)
                continue
            ran.append((start, future, result))
        try:
            await self._commit_all(unit, ran)
        except BaseException:
            for _, future, _ in ran:
                if not future.done():
                    future.set_exception(Revoked(f"{self._scope.agent}: the number is closed"))
            raise

    async def _commit_all(self, unit: Unit, ran: list[_Ran]) -> None:
        try:
            await self._commit(unit)
        except OutputTooLarge:
            # However often it is sent, so the one job that sends it must not end the others, nor the process.
            stops = [*(start for start, _, _ in ran[1:]), unit.mark()]
            for (start, future, result), stop in zip(ran, stops, strict=True):
                try:
                    await self._commit(unit.part(start, stop))
                except OutputTooLarge as error:
                    if not future.done():
                        future.set_exception(error)
                else:
                    _succeed(future, result)
        else:
            for _, future, result in ran:
                _succeed(future, result)


def _succeed(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)
