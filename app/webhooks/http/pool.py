"""The connections that are in use or kept for the next request."""

from __future__ import annotations

import asyncio
from collections import deque
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


class _Host:
    """The connections of one origin, while there are any.

    Attributes:
        in_use: How many are, those that are being dialled included.
        idle: Those that are kept, the longest idle first.
    """

    __slots__ = ("idle", "in_use")

    def __init__(self) -> None:
        self.in_use = 0
        self.idle: list[Connection] = []


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
        self._hosts: dict[Origin, _Host] = {}
        self._in_use_count = 0
        # Whose each that is kept is and since when, over all origins: the longest idle first.
        self._idle: dict[Connection, tuple[Origin, float]] = {}
        self._waiting: deque[tuple[Origin, asyncio.Future[_Host]]] = deque()
        self._open: dict[Connection, Origin] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self.closed = False

    def take_kept(self, origin: Origin) -> Connection | None:
        """A connection that was kept, as `take` has it; None without one, or without a place."""
        host = self._hosts.get(origin)
        if host is None or not host.idle or not self._has_place(host):
            return None
        kept = self._kept(host)
        if kept is None:
            self._forget_host(origin, host)
        else:
            host.in_use += 1
            self._in_use_count += 1
        return kept

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
            host = await self._place(origin)
            try:
                if not fresh and (kept := self._kept(host)) is not None:
                    return kept
                if self._in_use_count + len(self._idle) > self._max_connections and self._idle:
                    self._unkeep(next(iter(self._idle))).close()
                self._check_open()
                connection = await self._dial(origin)
                if self.closed:
                    connection.abort()
                self._check_open()
            except BaseException:
                self._leave(origin, host)
                raise
        if not connection.gone.done():
            connection.on_gone = self._forget
            self._open[connection] = origin
        return connection

    def give_back(self, origin: Origin, connection: Connection) -> None:
        """The end of a connection's use; it is kept if it can be."""
        host = self._hosts[origin]
        if connection.reusable and not self.closed:
            host.idle.append(connection)
            self._idle[connection] = origin, self._loop.time()
            if self._sweeper is None:
                self._sweeper = self._loop.call_later(self._keep_alive_s, self._sweep)
        else:
            connection.abort()
        self._leave(origin, host)

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

    def _has_place(self, host: _Host | None) -> bool:
        if self._in_use_count >= self._max_connections:
            return False
        return (0 if host is None else host.in_use) < self._max_per_origin

    async def _place(self, origin: Origin) -> _Host:
        if self._has_place(self._hosts.get(origin)):
            return self._enter(origin)
        place: asyncio.Future[_Host] = self._loop.create_future()
        entry = (origin, place)
        self._waiting.append(entry)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._leave(origin, place.result())
            else:
                self._waiting.remove(entry)
            raise

    def _enter(self, origin: Origin) -> _Host:
        host = self._hosts.setdefault(origin, _Host())
        host.in_use += 1
        self._in_use_count += 1
        return host

    def _leave(self, origin: Origin, host: _Host) -> None:
        host.in_use -= 1
        self._in_use_count -= 1
        self._forget_host(origin, host)
        if not self._waiting:
            return
        for entry in self._waiting:
            waits_for, place = entry
            if self._has_place(self._hosts.get(waits_for)) and not place.done():
                self._waiting.remove(entry)
                place.set_result(self._enter(waits_for))
                return

    def _forget_host(self, origin: Origin, host: _Host) -> None:
        if not host.in_use and not host.idle:
            del self._hosts[origin]

    # -- idle connections

    def _kept(self, host: _Host) -> Connection | None:
        while host.idle:
            connection = host.idle.pop()
            del self._idle[connection]
            if connection.reusable and not connection.unasked():
                return connection
            # Its end has come, or what nobody asked for, and is not announced yet.
            connection.abort()
        return None

    def _unkeep(self, connection: Connection) -> Connection:
        origin, _ = self._idle.pop(connection)
        host = self._hosts[origin]
        host.idle.remove(connection)
        self._forget_host(origin, host)
        return connection

    def _forget(self, connection: Connection) -> None:
        del self._open[connection]
        if connection in self._idle:
            self._unkeep(connection)

    def _sweep(self) -> None:
        self._sweeper = None
        over_s = self._loop.time() - self._keep_alive_s
        while self._idle:
            connection, (_, since_s) = next(iter(self._idle.items()))
            if since_s > over_s:
                self._sweeper = self._loop.call_later(since_s - over_s, self._sweep)
                return
            self._unkeep(connection).close()
