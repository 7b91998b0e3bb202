"""A receiver of webhooks that costs next to nothing, in a process of its own; `python -m benchmarks.post_receiver`.

The path says how it behaves: `/ok` answers at once, `/hang` after 15 s, `/500` with 500, `/reset` by closing, `/drip`
with a byte a second. Prints its port. `GET /stats` has, of each path since the last question, how many requests came
and how late they were, by the `time` of the event in them.
"""

import asyncio
import json
from collections import defaultdict
from datetime import datetime
from statistics import quantiles
from time import time
from typing import Any, Final

import uvloop

__all__ = ["HANG_S", "Receiver"]

HANG_S: Final = 15.0
_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"
_TIME: Final = b'"time":"'
_TIME_CHARS: Final = 24
_NO_CONTENT: Final = b"HTTP/1.1 204 No Content\r\n\r\n"
_FAILED: Final = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"

late_ms: defaultdict[str, list[float]] = defaultdict(list)


class Receiver(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: Any = None
        self._drip: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        if self._drip is not None:
            self._drip.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(_END)) >= 0:
            head = self._buffer[:end].lower()
            at = head.find(_LENGTH)
            length = int(head[at + len(_LENGTH) :].partition(b"\r\n")[0]) if at >= 0 else 0
            begin = end + len(_END)
            if len(self._buffer) < begin + length:
                return
            body = self._buffer[begin : begin + length]
            path = head.split(b" ", 2)[1].decode()
            self._buffer = self._buffer[begin + length :]
            self._answer(path, body)

    def _answer(self, path: str, body: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if path == "/stats":
            text = json.dumps(_taken()).encode()
            transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
            return
        late_ms[path].append(_lateness_ms(body))
        kind = path.rpartition("/")[2]
        if kind == "hang":
            asyncio.get_running_loop().call_later(HANG_S, self._write, _NO_CONTENT)
        elif kind == "500":
            transport.write(_FAILED)
        elif kind == "reset":
            transport.abort()
        elif kind == "drip":
            transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            self._next_drop()
        else:
            transport.write(_NO_CONTENT)

    def _next_drop(self) -> None:
        self._write(b".")
        self._drip = asyncio.get_running_loop().call_later(1.0, self._next_drop)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _lateness_ms(body: bytes) -> float:
    at = body.find(_TIME)
    if at < 0:
        return 0.0
    text = body[at + len(_TIME) : at + len(_TIME) + _TIME_CHARS].decode()
    return (time() - datetime.fromisoformat(text).timestamp()) * 1000


def _taken() -> dict[str, dict[str, float]]:
    """Since the last question."""
    told = {}
    for path, found in late_ms.items():
        cuts = quantiles(found, n=100, method="inclusive") if len(found) > 1 else [0.0] * 99
        told[path] = {"count": len(found), "p50_ms": round(cuts[49], 1), "p99_ms": round(cuts[98], 1)}
    late_ms.clear()
    return told


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
