"""A DNS server on loopback that is told what to answer, and a resolver that asks it over UDP."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

from aiohttp.abc import AbstractResolver

A, AAAA = 1, 28
_ANSWERED_NO_ERROR = 0x8180
_NO_SUCH_NAME = 0x8183
_DEADLINE_S = 5.0


class NameServer(asyncio.DatagramProtocol):
    """See the module.

    Attributes:
        names: What each name leads to; may be changed between two questions.
        asked: How often each name was asked for.
    """

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.asked: defaultdict[str, int] = defaultdict(int)
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        name, end = _read_name(data, 12)
        (kind,) = struct.unpack_from(">H", data, end)
        self.asked[name] += 1
        known = self.names.get(name)
        packed = [ip_address(one).packed for one in known or ()]
        found = [one for one in packed if len(one) == (4 if kind == A else 16)]
        flags = _NO_SUCH_NAME if known is None else _ANSWERED_NO_ERROR
        head = data[:2] + struct.pack(">5H", flags, 1, len(found), 0, 0)
        answers = [struct.pack(">HHHIH", 0xC00C, kind, 1, 0, len(one)) + one for one in found]
        assert self._transport is not None
        self._transport.sendto(head + data[12 : end + 4] + b"".join(answers), addr)


class StubResolver(AbstractResolver):
    """Asks one server, each time anew."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """As `TargetGuard.check` asks."""
        found = [address for kind in (A, AAAA) for address in await self._ask(host, kind)]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return found

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[Any]:
        """As aiohttp asks."""
        return [
            {"hostname": host, "host": address, "port": port, "family": _family(address), "proto": 0, "flags": 0}
            for address in await self.addresses(host, port)
        ]

    async def close(self) -> None:
        """Nothing is kept open."""

    async def _ask(self, host: str, kind: int) -> list[str]:
        labels = b"".join(bytes([len(label)]) + label.encode() for label in host.rstrip(".").split("."))
        question = struct.pack(">6H", kind, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", self._port))
            async with asyncio.timeout(_DEADLINE_S):
                await loop.sock_sendall(sock, question)
                answer = await loop.sock_recv(sock, 4096)
        return _addresses(answer)


@asynccontextmanager
async def name_server() -> AsyncIterator[tuple[NameServer, StubResolver]]:
    """A server that listens while the block runs, and a resolver of it."""
    server = NameServer()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: server, local_addr=("127.0.0.1", 0)
    )
    try:
        yield server, StubResolver(transport.get_extra_info("sockname")[1])
    finally:
        transport.close()


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    labels = []
    while length := data[at]:
        labels.append(data[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels), at + 1


def _addresses(answer: bytes) -> list[str]:
    (count,) = struct.unpack_from(">H", answer, 6)
    at = _read_name(answer, 12)[1] + 4
    found = []
    for _ in range(count):
        (size,) = struct.unpack_from(">H", answer, at + 10)
        found.append(str(ip_address(answer[at + 12 : at + 12 + size])))
        at += 12 + size
    return found


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
