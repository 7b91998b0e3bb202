"""Receivers of one test, and a sender that may reach them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractResolver
from msgspec import structs

from app.webhooks.guard import TargetGuard
from app.webhooks.sender import AttemptOutcome, OutgoingRequest, Sender
from app.webhooks.signing import SignedHeaders

NOW_S = 1_700_000_000.0
BODY = b'{"id":"1"}'
SIGNED = SignedHeaders("sha256=00", "wh_1", "event-1", "a.b", "dlv_1", 1, 7, "v1,AA==")
LOOPBACK = TargetGuard(["127.0.0.0/8", "::1"], allow_http=True)

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def sender(guard: TargetGuard = LOOPBACK, *, resolver: AbstractResolver | None = None, **changes: Any) -> Sender:
    if resolver is not None:
        changes["resolve"] = partial(_ask, resolver)
    return Sender(guard, max_connections=8, max_connections_per_host=4, now_s=lambda: NOW_S, **changes)


async def _ask(resolver: AbstractResolver, host: str, port: int) -> list[str]:
    return [one["host"] for one in await resolver.resolve(host, port)]


def outgoing(url: str, **changes: Any) -> OutgoingRequest:
    request = OutgoingRequest(url=url, body=BODY, protected_headers=SIGNED, timeout_s=5)
    return structs.replace(request, **changes)


@asynccontextmanager
async def receiver(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A receiver that gives this answer; yields its URL."""
    server = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await server.setup()
    site = web.TCPSite(server, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = server.addresses[0][1]
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}/hook"
    finally:
        await server.cleanup()


@asynccontextmanager
async def raw_receiver(answer: bytes, *, then_hang: bool = False) -> AsyncIterator[str]:
    """A receiver that sends these bytes after the head of the request, and closes or hangs."""
    finished = asyncio.Event()

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if then_hang:
            await finished.wait()
        writer.close()

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        finished.set()
        server.close()
        await server.wait_closed()


async def post_to(answer: Answer, **changes: Any) -> AttemptOutcome:
    async with receiver(answer) as url, sender() as one:
        return await one.post(outgoing(url, **changes))


def answering(status: int = 200, **response: Any) -> Answer:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, **response)

    return answer
