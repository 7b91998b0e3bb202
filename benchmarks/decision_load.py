"""Asks for decisions over connections that are kept, on uvloop and past any HTTP library, and does nothing else.

What the load costs is taken from what it measures: the cores are shared with the server. The argument is a `Course` as
JSON; prints what it saw as JSON. The server may be any that answers the same.
"""

import asyncio
import gc
import json
import sys
import time
from dataclasses import dataclass
from statistics import quantiles
from typing import Any, Final

import uvloop

__all__ = ["PATH", "Course", "question"]

PATH: Final = "/v1/policy/evaluate"
_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"
_OK: Final = b"HTTP/1.1 200 "
_KEPT: Final = b'"source":"cache"'


@dataclass(frozen=True, slots=True)
class Course:
    """What is asked of a server.

    Attributes:
        port: Of the server, on loopback.
        seconds: How long.
        principals: That many questions, one after another and again.
        connections: At most; a question for which none is free waits, and its time runs.
        per_s: Questions a second, evenly; None: each connection asks again at once.
    """

    port: int
    seconds: float
    principals: int
    connections: int
    per_s: float | None = None


def question(number: int) -> dict[str, Any]:
    """One that another number does not share."""
    context = {"purpose": "training", "ip": "10.0.0.1"}
    return {"principal_id": f"user-{number}", "action": "read", "resource_id": "ds-1", "context": context}


class _Connection(asyncio.Protocol):
    """One question at a time."""

    def __init__(self) -> None:
        self._read = b""
        self._answer: asyncio.Future[bytes] | None = None
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    async def ask(self, request: bytes) -> bytes:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, _, body = self._read.partition(_END)
        length = head.lower().partition(_LENGTH)[2].partition(b"\r\n")[0]
        if self._answer is not None and length and len(body) >= int(length):
            self._read, answer = b"", self._read
            self._answer.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("the server closed the connection"))


class _Load:
    def __init__(self, course: Course) -> None:
        self._port = course.port
        self._requests = [_request(number) for number in range(course.principals)]
        self._turns = asyncio.Semaphore(course.connections)
        # The last one that was freed is the next one to be used: no more are open than are needed.
        self._free: list[_Connection] = []
        self.kept = 0
        self.took_ms: list[float] = []

    async def ask(self, number: int, due_s: float) -> None:
        """One question, and how long after it was due its answer was there."""
        async with self._turns:
            connection = self._free.pop() if self._free else await self._connected()
            answer = await connection.ask(self._requests[number % len(self._requests)])
            self._free.append(connection)
        self.took_ms.append((time.perf_counter() - due_s) * 1000)
        if not answer.startswith(_OK):
            raise ValueError(answer.decode())
        self.kept += _KEPT in answer

    async def _connected(self) -> _Connection:
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", self._port)
        return connection

    async def flat_out(self, connections: int, seconds: float) -> None:
        """As many as are answered when each connection asks again at once."""
        until_s = time.perf_counter() + seconds

        async def one(number: int) -> None:
            while (now_s := time.perf_counter()) < until_s:
                await self.ask(number, now_s)
                number += connections

        await asyncio.gather(*(one(number) for number in range(connections)))

    async def steady(self, per_s: float, seconds: float) -> None:
        """One after another, whether or not those before are answered."""
        began_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(int(per_s * seconds)):
                due_s = began_s + number / per_s
                if (wait_s := due_s - time.perf_counter()) > 0:
                    await asyncio.sleep(wait_s)
                group.create_task(self.ask(number, due_s))


def _request(number: int) -> bytes:
    body = json.dumps(question(number)).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + _END + body


async def main() -> None:
    course = Course(**json.loads(sys.argv[1]))
    load = _Load(course)
    # A collection would be in the figures of whoever is asked.
    gc.collect()
    gc.freeze()
    gc.disable()
    began_s = time.perf_counter()
    if course.per_s is None:
        await load.flat_out(course.connections, course.seconds)
    else:
        await load.steady(course.per_s, course.seconds)
    elapsed_s = time.perf_counter() - began_s
    cuts = quantiles(load.took_ms, n=100)
    answered = len(load.took_ms)
    told = {"per_s": answered / elapsed_s, "p50_ms": cuts[49], "p99_ms": cuts[98], "kept": load.kept / answered}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
