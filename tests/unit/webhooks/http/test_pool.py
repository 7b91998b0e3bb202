"""Whatever happens to connections and to those who ask for them: the counts are right, and no place is lost."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from operator import itemgetter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.webhooks.http import Origin, Pool
from app.webhooks.http.connection import Connection
from tests.support.peers import kept

ORIGINS = [Origin(secure=False, host=f"127.0.0.{last}", port=80) for last in (1, 2, 3)]
MAX_CONNECTIONS, MAX_PER_ORIGIN = 4, 2
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Wire:
    """A transport that leads nowhere; nothing ever comes on its socket."""

    def __init__(self, connection: Connection, silent: socket.socket) -> None:
        self._connection = connection
        self._silent = silent
        self.closing = False

    def get_extra_info(self, name: str) -> Any:
        return {"socket": self._silent}[name]

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        pass

    def abort(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self._connection.connection_lost, None)

    close = abort


class World:
    """A pool whose connections answer, break and come late as they are told to."""

    def __init__(self, silent: socket.socket) -> None:
        self.silent = silent
        self.pool = Pool(self.dial, max_connections=MAX_CONNECTIONS, max_per_origin=MAX_PER_ORIGIN, keep_alive_s=60)
        self.dialled: list[tuple[Origin, asyncio.Future[None]]] = []
        self.wires: list[tuple[Connection, Wire]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.users: Counter[Origin] = Counter()

    async def dial(self, origin: Origin) -> Connection:
        done = asyncio.get_running_loop().create_future()
        self.dialled.append((origin, done))
        await done
        connection = Connection()
        wire = Wire(connection, self.silent)
        connection.connection_made(wire)  # type: ignore[arg-type]
        self.wires.append((connection, wire))
        return connection

    async def use(self, origin: Origin, fresh: bool) -> None:
        connection = await self.pool.take(origin, 60, fresh=fresh)
        self.users[origin] += 1
        try:
            await connection.exchange(b"x", 60)
        finally:
            self.users[origin] -= 1
            self.pool.give_back(origin, connection)

    def act(self, kind: str, number: int) -> None:
        origin = ORIGINS[number % len(ORIGINS)]
        open_ = [(connection, wire) for connection, wire in self.wires if not wire.closing]
        going = [task for task in self.tasks if not task.done()]
        dialled = [done for _, done in self.dialled if not done.done()]
        if kind in {"ask", "ask fresh"}:
            self.tasks.append(asyncio.create_task(self.use(origin, kind == "ask fresh")))
        elif kind == "connect" and dialled:
            dialled[number % len(dialled)].set_result(None)
        elif kind == "refuse" and dialled:
            dialled[number % len(dialled)].set_exception(ConnectionRefusedError())
        elif kind == "answer" and open_:
            open_[number % len(open_)][0].data_received(ANSWER)
        elif kind == "break" and open_:
            open_[number % len(open_)][1].abort()
        elif kind == "give up" and going:
            going[number % len(going)].cancel()

    def check(self) -> None:
        pool = self.pool
        dialling = sum(1 for _, done in self.dialled if not done.done())
        hosts = pool._hosts.values()
        assert pool._in_use_count == sum(host.in_use for host in hosts) == sum(self.users.values()) + dialling
        assert pool._in_use_count <= MAX_CONNECTIONS
        assert all(host.in_use <= MAX_PER_ORIGIN and (host.in_use or host.idle) for host in hosts)
        assert sum(1 for _, wire in self.wires if not wire.closing) + dialling <= MAX_CONNECTIONS
        assert set(pool._idle) == set(kept(pool))
        assert len(pool._idle) == len(kept(pool))
        assert list(pool._idle.values()) == sorted(pool._idle.values(), key=itemgetter(1))
        assert set(kept(pool)) <= pool._open.keys()
        # Who waits does so for a reason.
        assert not [one for one, place in pool._waiting if not place.done() and pool._has_place(pool._hosts.get(one))]


KINDS = ["ask"] * 4 + ["connect"] * 3 + ["answer"] * 3 + ["ask fresh", "break", "refuse", "give up"]
ACTS = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.integers(0, 20),
        st.booleans(),
    ),
    min_size=30,
    max_size=80,
)


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


async def live(acts: list[tuple[str, int, bool]], silent: socket.socket) -> None:
    world = World(silent)
    for kind, number, at_once in acts:
        world.act(kind, number)
        # Some things happen in the same turn of the loop.
        if not at_once:
            await settle()
            world.check()
    await settle()
    world.check()
    while any(not task.done() for task in world.tasks):
        for kind in ("connect", "answer"):
            for number in range(MAX_CONNECTIONS):
                world.act(kind, number)
                await settle()
    world.check()
    await asyncio.gather(*world.tasks, return_exceptions=True)
    assert not world.pool._in_use_count
    assert not world.pool._waiting
    await world.pool.close()
    await settle()
    assert not world.pool._open
    assert all(wire.closing for _, wire in world.wires)


@given(ACTS)
def test_no_place_is_lost_and_none_given_twice(acts: list[tuple[str, int, bool]]) -> None:
    silent, other_end = socket.socketpair()
    with silent, other_end:
        asyncio.run(live(acts, silent))
