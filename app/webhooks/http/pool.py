"""The connections that are in use or kept for the next request."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from app.webhooks.http.errors import HungUp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.webhooks.http.connection import Connection
    from app.webhooks.http.requests import Origin

__all__ = ["KEEP_ALIVE_S", "Pool"]

# Longer than a receiver's pause between two events of a steady stream, shorter than the idle limit of usual proxies.
KEEP_ALIVE_S: Final = 15.0
_CLOSE_S: Final = 1.0


class Pool:
    """Gives out connections, each to one user at a time, the one used last first: what is too many grows old.

    Args:
        dial: Makes one.
        max_connections: At one time; what is idle makes room for what is needed.
        max_per_origin: The same, to one origin.
        keep_alive_s: How long an idle one is kept.
    """

    def __init__(
        self,
        dial: Callable[[Origin], Awaitable[Connection]],
        *,
        max_connections: int,
        max_per_origin: int,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        self._dial = dial
        self._max_connections = max_connections
        self._max_per_origin = max_per_origin
        self._keep_alive_s = keep_alive_s
        self._loop = asyncio.get_running_loop()
        self._in_use: Counter[Origin] = Counter()
        self._in_use_count = 0
        self._waiting: deque[tuple[Origin, asyncio.Future[None]]] = deque()
        self._open: set[Connection] = set()
        # The longest idle first, with its origin and when it became idle.
        self._idle: dict[Connection, tuple[Origin, float]] = {}
        self._idle_of: dict[Origin, list[Connection]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self.closed = False

    def take_kept(self, origin: Origin) -> Connection | None:
        """A connection that was kept, as `take` has it; None without one, or without a place."""
        if self._has_place(origin) and (kept := self._kept(origin)) is not None:
            self._count(origin, 1)
            return kept
        return None

    async def take(self, origin: Origin, timeout_s: float, *, fresh: bool = False) -> Connection:
        """A connection, kept or new; `give_back` ends its use.

        Args:
            origin: To whom.
            timeout_s: For a place among the connections and for dialling together.
            fresh: Not one that was kept.

        Raises:
            TimeoutError: None was to be had in time.
            HungUp: The pool was closed meanwhile.
            Exception: As the dialler.
        """
        if not fresh and (kept := self.take_kept(origin)) is not None:
            return kept
        async with asyncio.timeout(timeout_s):
            await self._place(origin)
            try:
                if not fresh and (kept := self._kept(origin)) is not None:
                    return kept
                if self._in_use_count + len(self._idle) > self._max_connections and self._idle:
                    self._unkeep(next(iter(self._idle))).close()
                self._check_open()
                connection = await self._dial(origin)
                if self.closed:
                    connection.abort()
                self._check_open()
            except BaseException:
                self._leave(origin)
                raise
        if not connection.gone.done():
            connection.on_gone = self._forget
            self._open.add(connection)
        return connection

    def give_back(self, origin: Origin, connection: Connection) -> None:
        """The end of a connection's use; it is kept if it can be."""
        if connection.reusable and not self.closed:
            self._idle[connection] = (origin, self._loop.time())
            self._idle_of.setdefault(origin, []).append(connection)
            if self._sweeper is None:
                self._sweeper = self._loop.call_later(self._keep_alive_s, self._sweep)
        else:
            connection.abort()
        self._leave(origin)

    async def close(self) -> None:
        """Close all connections, those in use too."""
        self.closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in tuple(self._open):
            connection.abort()
        if self._open:
            await asyncio.wait([connection.gone for connection in self._open], timeout=_CLOSE_S)

    def _check_open(self) -> None:
        if self.closed:
            raise HungUp("closed by us")

    # -- places

    def _has_place(self, origin: Origin) -> bool:
        return self._in_use_count < self._max_connections and self._in_use[origin] < self._max_per_origin

    async def _place(self, origin: Origin) -> None:
        if self._has_place(origin):
            self._count(origin, 1)
            return
        place = self._loop.create_future()
        entry = (origin, place)
        self._waiting.append(entry)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._leave(origin)
            else:
                self._waiting.remove(entry)
            raise

    def _count(self, origin: Origin, change: int) -> None:
        self._in_use_count += change
        self._in_use[origin] += change

    def _leave(self, origin: Origin) -> None:
        self._count(origin, -1)
        if not self._in_use[origin]:
            del self._in_use[origin]
        if not self._waiting:
            return
        for entry in self._waiting:
            waits_for, place = entry
            if self._has_place(waits_for) and not place.done():
                self._waiting.remove(entry)
                self._count(waits_for, 1)
                place.set_result(None)
                return

    # -- idle connections

    def _kept(self, origin: Origin) -> Connection | None:
        while kept := self._idle_of.get(origin):
            connection = kept.pop()
            del self._idle[connection]
            if not kept:
                del self._idle_of[origin]
            if connection.reusable and not connection.unasked():
                return connection
            # Its end has come, or what nobody asked for, and is not announced yet.
            connection.abort()
        return None

    def _unkeep(self, connection: Connection) -> Connection:
        origin, _ = self._idle.pop(connection)
        kept = self._idle_of[origin]
        kept.remove(connection)
        if not kept:
            del self._idle_of[origin]
        return connection

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._unkeep(connection)

    def _sweep(self) -> None:
        self._sweeper = None
        now = self._loop.time()
        while self._idle:
            connection, (_, since) = next(iter(self._idle.items()))
            if (left_s := since + self._keep_alive_s - now) > 0:
                self._sweeper = self._loop.call_later(left_s, self._sweep)
                return
            self._unkeep(connection).close()
