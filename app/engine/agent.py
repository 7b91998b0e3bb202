"""What the author of an agent writes: a processor, and the agent's registration."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from app.engine.records import Slice
from app.engine.table import Table
from app.engine.unit import Unit

__all__ = ["Agent", "Clock", "Context", "Processor", "slice_handler"]

T = TypeVar("T")


class Clock:
    """The process's clocks; tests pass their own."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Never goes back; seconds."""
        return time.monotonic()


class Context(Protocol):
    """One opening of one number of one agent, as its processor sees it."""

    @property
    def number(self) -> int:
        """The number."""

    @property
    def agent(self) -> str:
        """The agent's name."""

    @property
    def clock(self) -> Clock:
        """The clocks."""

    async def submit(self, job: Callable[[Unit], T]) -> T:
        """Run a job strictly between slices, grouped with others; returns when it is merged.

        Raises:
            Revoked: The number closed first.
        """

    def tick_at(self, monotonic_s: float) -> None:
        """Have `Processor.tick` called at that time; of several wishes the earliest wins."""

    def tick_now(self) -> None:
        """Have `Processor.tick` called as soon as possible."""

    async def checkpoint(self) -> None:
        """Return when everything merged so far is in the changelog.

        Raises:
            Revoked: The number closed first, or the checkpoint has no known outcome.
        """

    def may_act(self) -> bool:
        """Whether something visible outside may start now: a recent heartbeat was answered, and we are not closing."""

    async def until_may_act(self) -> None:
        """Wait for `may_act`.

        Raises:
            Revoked: The number closed first.
        """

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work beside the slices; cancelled when the number closes."""


class Processor:
    """One number of one agent: slices, ticks and jobs, strictly one after another."""

    def __init__(self, context: Context) -> None:
        self.context = context

    async def opened(self, unit: Unit) -> None:
        """After the restore, before the first slice."""

    async def process(self, slice_: Slice, unit: Unit) -> None:
        """Add the effects of a slice to the unit.

        Returning means: every record that is not held is done, once what was sent is acknowledged.

        Raises:
            Retriable: The slice is run again, with back-off.
            Exception: Any other: the slice is run again record by record, and the poison is quarantined.
        """
        raise NotImplementedError

    async def tick(self, unit: Unit) -> None:
        """A timer's unit."""

    def holds_back_s(self) -> float:
        """How long the next slice should wait while jobs and ticks go on, in seconds; asked again after each of them.

        For an agent that can take a slice at any time but would rather work off a little of what it has.
        """
        return 0.0

    def takes(self, limit: int) -> int:
        """How many records the next slice should have, at most: from 1 to `limit`, the most that it ever has.

        For an agent that can take any slice but does better by one that is not longer than this.
        """
        return limit

    def begin_drain(self) -> None:
        """Start nothing new; what is under way may end."""

    def busy(self) -> bool:
        """Whether outcomes are still on their way."""
        return False

    async def closed(self) -> None:
        """The number is gone; release everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A registered agent.

    Attributes:
        topics: What it reads; a topic has one agent.
        follows: Tables of other agents whose replicas it reads: it handles nothing by an old one.
        home: The table whose changelog carries its positions.
        tables: All its tables, `home` included.
        room_records: A number is fetched while fewer of its records are unfinished.
        room_bytes: The same in bytes.
        slice_records: The largest slice.
    """

    name: str
    topics: tuple[str, ...]
    processor: Callable[[Context], Processor]
    home: Table[Any]
    tables: tuple[Table[Any], ...]
    follows: tuple[Table[Any], ...] = ()
    room_records: int = 768
    room_bytes: int = 16 << 20
    slice_records: int = 256


class _SliceProcessor(Processor):
    def __init__(self, context: Context, handle: Callable[[Slice, Unit], Awaitable[None]]) -> None:
        super().__init__(context)
        self._handle = handle

    async def process(self, slice_: Slice, unit: Unit) -> None:
        await self._handle(slice_, unit)


def slice_handler(handle: Callable[[Slice, Unit], Awaitable[None]]) -> Callable[[Context], Processor]:
    """A processor of a plain `async def handle(slice_, unit)`."""

    def make(context: Context) -> Processor:
        return _SliceProcessor(context, handle)

    return make
