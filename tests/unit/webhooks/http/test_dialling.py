"""Names and addresses: each is asked for once at a time, and none is dialled that was not admitted."""

from __future__ import annotations

import asyncio
import socket
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.webhooks.http import Dialler, NameNotResolved, NotConnected, Origin
from app.webhooks.http.connection import Connection

DEADLINE_S = 30.0


class Names:
    """A resolver: what it knows, and what it was asked for.

    Attributes:
        answer: Set while it answers; else it keeps them waiting.
    """

    def __init__(self, **known: list[str]) -> None:
        self.known = {f"{name}.example": addresses for name, addresses in known.items()}
        self.asked: list[str] = []
        self.answer = asyncio.Event()
        self.answer.set()

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        await self.answer.wait()
        if host not in self.known:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return self.known[host]


class Admitted:
    """A check that refuses some addresses and remembers what it was asked about."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.asked: list[tuple[str, str]] = []

    def __call__(self, address: str, host: str) -> None:
        self.asked.append((address, host))
        if address in self.refused:
            raise PermissionError(address)


@asynccontextmanager
async def dialling(names: Names, admitted: Admitted) -> AsyncIterator[Dialler]:
    dialler = Dialler(admitted, tls=ssl.create_default_context(), proxy=None, resolve=names)
    try:
        yield dialler
    finally:
        await dialler.close()


@asynccontextmanager
async def listening() -> AsyncIterator[int]:
    async def accept(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def hang_up(*connections: Connection) -> None:
    for connection in connections:
        connection.abort()
        await connection.gone


async def dial(dialler: Dialler, name: str, port: int) -> str:
    """Connect, and say to which address."""
    connection = await dialler.dial(Origin(secure=False, host=name, port=port))
    assert connection._transport is not None
    address: str = connection._transport.get_extra_info("peername")[0]
    await hang_up(connection)
    return address


class TestNames:
    async def test_a_burst_asks_once_and_the_answer_is_kept_for_a_moment(self) -> None:
        names, admitted = Names(a=["127.0.0.1"]), Admitted()
        names.answer.clear()
        async with listening() as port, dialling(names, admitted) as dialler:
            burst = [asyncio.create_task(dial(dialler, "a.example", port)) for _ in range(20)]
            while not names.asked:
                await asyncio.sleep(0)
            names.answer.set()
            await asyncio.gather(*burst)
            await dial(dialler, "a.example", port)

        assert names.asked == ["a.example"]
        # Asked from memory or not: each socket is admitted.
        assert admitted.asked == [("127.0.0.1", "a.example")] * 21

    async def test_who_gives_up_waiting_does_not_take_it_from_the_others(self) -> None:
        names = Names(a=["127.0.0.1"])
        names.answer.clear()
        async with listening() as port, dialling(names, Admitted()) as dialler:
            first, second = (asyncio.create_task(dial(dialler, "a.example", port)) for _ in range(2))
            while not names.asked:
                await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            names.answer.set()

            assert await second == "127.0.0.1"
        assert names.asked == ["a.example"]

    async def test_a_failure_is_not_kept(self) -> None:
        names = Names()
        async with listening() as port, dialling(names, Admitted()) as dialler:
            with pytest.raises(NameNotResolved):
                await dial(dialler, "a.example", port)
            names.known["a.example"] = []
            with pytest.raises(NameNotResolved):
                await dial(dialler, "a.example", port)
            names.known["a.example"] = ["127.0.0.1"]

            assert await dial(dialler, "a.example", port) == "127.0.0.1"

    async def test_one_that_cannot_be_written_is_not_resolved(self) -> None:
        async def system(host: str, port: int) -> list[str]:
            found = await asyncio.get_running_loop().getaddrinfo(host, port)
            return [str(one[4][0]) for one in found]

        dialler = Dialler(Admitted(), tls=ssl.create_default_context(), proxy=None, resolve=system)
        with pytest.raises(NameNotResolved):
            await dial(dialler, "a" * 64 + ".example", 1)
        await dialler.close()

    async def test_closing_ends_what_is_being_asked(self) -> None:
        names = Names()
        names.answer.clear()
        async with dialling(names, Admitted()) as dialler:
            waiting = asyncio.create_task(dial(dialler, "a.example", 1))
            while not names.asked:
                await asyncio.sleep(0)
            await dialler.close()
            with pytest.raises(NameNotResolved):
                await waiting


class TestAddresses:
    async def test_the_next_one_is_dialled_where_one_does_not_listen(self) -> None:
        names, admitted = Names(a=["127.0.0.2", "127.0.0.1"]), Admitted()
        async with listening() as port, dialling(names, admitted) as dialler:
            assert [await dial(dialler, "a.example", port) for _ in range(2)] == ["127.0.0.1"] * 2

    async def test_a_refused_one_is_passed_by_and_never_dialled(self) -> None:
        names, admitted = Names(a=["127.0.0.2", "127.0.0.1"]), Admitted("127.0.0.1")
        async with listening() as port, dialling(names, admitted) as dialler:
            with pytest.raises(NotConnected):
                await dial(dialler, "a.example", port)

        assert sorted({address for address, _ in admitted.asked}) == ["127.0.0.1", "127.0.0.2"]

    async def test_where_all_are_refused_that_is_the_cause(self) -> None:
        names, admitted = Names(a=["127.0.0.1"]), Admitted("127.0.0.1", "127.0.0.2", "::1")
        async with listening() as port, dialling(names, admitted) as dialler:
            for host in ("a.example", "127.0.0.1", "127.0.0.2", "::1"):
                with pytest.raises(NotConnected) as failure:
                    await dial(dialler, host, port)
                assert isinstance(failure.value.__cause__, PermissionError)

        assert names.asked == ["a.example"], "an address is its own answer"
