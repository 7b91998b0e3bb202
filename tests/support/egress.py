"""An HTTP proxy on loopback: CONNECT for https, the whole URL in the request line for http."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

USER, PASSWORD = "egress-user", "egress-pass-4711-do-not-show"
_EXPECTED = b"basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).lower()


@dataclass
class EgressProxy:
    """See the module.

    Attributes:
        url: With its credentials.
        leads_to: Where a host leads, in place of itself.
        asked: Method and target of each request that had the credentials.
        refused: How many had not.
    """

    url: str = ""
    leads_to: dict[str, tuple[str, int]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    refused: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head[:-4].split(b"\r\n")
        method, target, _ = first.decode().split(" ")
        if not any(line.lower() == b"proxy-authorization: " + _EXPECTED for line in lines):
            self.refused += 1
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        self.asked.append((method, target))
        parts = urlsplit(target if "://" in target else f"//{target}")
        default = (parts.hostname or "", parts.port or 80)
        upstream = await asyncio.open_connection(*self.leads_to.get(parts.hostname or "", default))
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            kept = [line for line in lines if not line.lower().startswith((b"proxy-", b"connection:"))]
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            own = [f"{method} {path} HTTP/1.1".encode(), *kept, b"Connection: close", b"", b""]
            upstream[1].write(b"\r\n".join(own))
        async with asyncio.TaskGroup() as group:
            group.create_task(_pipe(reader, upstream[1]))
            group.create_task(_pipe(upstream[0], writer))


async def _pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    sink.close()


@asynccontextmanager
async def egress_proxy() -> AsyncIterator[EgressProxy]:
    """A proxy that listens while the block runs."""
    proxy = EgressProxy()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://{USER}:{PASSWORD}@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield proxy
