"""Receivers on loopback that answer as a test wants it, and a pool of connections to them."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from app.webhooks.http import Answer, Dialler, Origin, Pool
from app.webhooks.http.connection import Connection

DEADLINE_S = 30.0
REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
ORIGIN = Origin(secure=False, host="127.0.0.1", port=1)


class Peer:
    """A receiver: what it was asked, on which connections, and what it does about it.

    Attributes:
        heads: Of the requests, by the number of the connection.
        open: Connections that are open now.
        over: The test is.
    """

    def __init__(self, serve: Callable[[Peer, int, StreamReader, StreamWriter], Awaitable[None]]) -> None:
        self.heads: list[tuple[int, bytes]] = []
        self.open: set[int] = set()
        self.writers: list[StreamWriter] = []
        self.port = 0
        self.over = asyncio.Event()
        self._serve = serve
        self._count = 0

    @property
    def origin(self) -> Origin:
        return Origin(secure=False, host="127.0.0.1", port=self.port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._count += 1
        number = self._count
        self.open.add(number)
        self.writers.append(writer)
        try:
            await self._serve(self, number, reader, writer)
            await reader.read()
        except (OSError, EOFError):
            pass
        finally:
            self.open.discard(number)
            writer.close()

    async def next_head(self, number: int, reader: StreamReader) -> None:
        self.heads.append((number, await reader.readuntil(b"\r\n\r\n")))


async def answering(peer: Peer, number: int, reader: StreamReader, writer: StreamWriter) -> None:
    while True:
        await peer.next_head(number, reader)
        writer.write(NO_CONTENT)


async def answers_the_first(peer: Peer, number: int, reader: StreamReader, writer: StreamWriter) -> None:
    await peer.next_head(number, reader)
    writer.write(NO_CONTENT)
    await peer.next_head(number, reader)


async def silent(peer: Peer, number: int, reader: StreamReader, writer: StreamWriter) -> None:
    await peer.next_head(number, reader)


@asynccontextmanager
async def peering(serve: Callable[[Peer, int, StreamReader, StreamWriter], Awaitable[None]]) -> AsyncIterator[Peer]:
    peer = Peer(serve)
    server = await asyncio.start_server(peer.accept, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        peer.over.set()
        for writer in peer.writers:
            writer.transport.abort()
        await until(lambda: not peer.open)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


def admit_all(address: str, host: str) -> None:
    pass


async def unresolved(host: str, port: int) -> list[str]:
    raise OSError(host)


@asynccontextmanager
async def pooling(
    max_connections: int = 8, max_per_origin: int = 8, keep_alive_s: float = DEADLINE_S
) -> AsyncIterator[Pool]:
    dialler = Dialler(admit_all, tls=ssl.create_default_context(), proxy=None, resolve=unresolved)
    pool = Pool(dialler.dial, max_connections=max_connections, max_per_origin=max_per_origin, keep_alive_s=keep_alive_s)
    try:
        yield pool
    finally:
        await pool.close()
        await dialler.close()


async def ask(pool: Pool, origin: Origin, timeout_s: float = DEADLINE_S) -> Answer:
    connection = await pool.take(origin, timeout_s)
    try:
        return await connection.exchange(REQUEST, timeout_s)
    finally:
        pool.give_back(origin, connection)


def kept(pool: Pool) -> list[Connection]:
    """The connections that wait for a request."""
    return [connection for host in pool._hosts.values() for connection in host.idle]


def come_unread(pool: Pool, peer: Peer, data: bytes) -> None:
    """Let bytes of the peer, or with none its end, reach the kept connection's socket while the loop does not run."""
    (connection,) = kept(pool)
    transport = connection._transport
    assert transport is not None
    fd = peer.writers[0].get_extra_info("socket").fileno()
    if data:
        os.write(fd, data)
    else:
        with socket.socket(fileno=os.dup(fd)) as end:
            end.shutdown(socket.SHUT_WR)
    come, _, _ = select.select([transport.get_extra_info("socket").fileno()], [], [], DEADLINE_S)
    assert come
