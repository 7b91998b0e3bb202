"""What a receiver can cost at most: receivers on real sockets that send without end, slowly, or what bursts."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.sending import answering, outgoing, post_to, sender

LIMIT_BYTES = 16 * 1024
QUICK_S = 0.3
"""A time limit for what only that limit ends."""
SOON_MS = 30_000
"""It has come to its end by that limit: on a busy machine a flood keeps the loop from its timers for seconds."""
PATIENT_S = 60.0
"""A time limit for what must end by itself, long before."""
MUCH_BYTES = 64 << 20

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Sent:
    """What a receiver could get rid of."""

    def __init__(self) -> None:
        self.size_bytes = 0


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[str]:
    """A receiver that runs a script after the head of each request; what it wrote then stays unanswered."""
    open_: dict[asyncio.Task[Any] | None, asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_[asyncio.current_task()] = writer
        with contextlib.suppress(OSError, EOFError):
            await reader.readuntil(b"\r\n\r\n")
            await script(writer)
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        for writer in open_.values():
            writer.transport.abort()
        await asyncio.gather(*(task for task in open_ if task is not None))
        await server.wait_closed()


def once(data: bytes) -> Script:
    """Sends this, and hangs."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return script


def endless(first: bytes, again: bytes, sent: Sent | None = None) -> Script:
    """Sends without end, as fast as it is taken."""

    async def script(writer: asyncio.StreamWriter) -> None:
        block = again * max(1, 32_768 // len(again))
        writer.write(first)
        while True:
            writer.write(block)
            await writer.drain()
            if sent is not None:
                sent.size_bytes += len(block)

    return script


def dripping(data: bytes, each_s: float = 0.02) -> Script:
    """Sends a byte now and then, over and over."""

    async def script(writer: asyncio.StreamWriter) -> None:
        while True:
            for at in range(len(data)):
                writer.write(data[at : at + 1])
                await writer.drain()
                await asyncio.sleep(each_s)

    return script


def head(*fields: bytes, status: bytes = b"500 Oops") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *fields, b"", b""])


class TestBody:
    async def test_of_a_longer_one_16_kib_are_waited_for_and_not_a_byte_more(self) -> None:
        begun = head(b"Content-Length: 1000000")
        async with scripted(once(begun + b"x" * LIMIT_BYTES)) as url, sender() as one:
            enough = await one.post(outgoing(url, timeout_s=PATIENT_S))
        async with scripted(once(begun + b"x" * (LIMIT_BYTES - 1))) as url, sender() as one:
            short = await one.post(outgoing(url, timeout_s=QUICK_S))

        assert (enough.status, enough.error, enough.body) == (500, "status_500", "x" * 2048)
        assert (short.status, short.error, short.body) == (None, "timeout", "")

    @pytest.mark.parametrize("fields", [(b"Content-Length: 99999999999",), (b"Connection: close",)])
    async def test_an_endless_one_is_hung_up_on(self, fields: tuple[bytes, ...]) -> None:
        sent = Sent()
        async with scripted(endless(head(*fields), b"x", sent)) as url, sender() as one:
            outcome = await one.post(outgoing(url, timeout_s=PATIENT_S))

        assert (outcome.status, len(outcome.body)) == (500, 2048)
        # Beside what we read there are only the buffers of two sockets.
        assert sent.size_bytes < MUCH_BYTES

    @pytest.mark.parametrize(
        ("encoding", "packed"),
        [("gzip", gzip.compress(bytes(8 << 20), mtime=0)), ("deflate", zlib.compress(bytes(8 << 20)))],
    )
    async def test_a_bomb_is_kept_packed(self, encoding: str, packed: bytes) -> None:
        assert len(packed) < LIMIT_BYTES
        outcome = await post_to(answering(500, body=packed, headers={"Content-Encoding": encoding}))

        assert outcome.error == "status_500"
        assert outcome.body[0] == chr(packed[0])
        assert len(outcome.body) <= 2048

    async def test_chunks_without_end_of_their_size_line_end_by_themselves(self) -> None:
        start = head(b"Transfer-Encoding: chunked") + b"5;"
        async with scripted(endless(start, b"extension=")) as url, sender() as one:
            outcome = await one.post(outgoing(url, timeout_s=PATIENT_S))

        assert outcome.status is None
        assert outcome.error in {"too_large", "reset"}

    async def test_endless_trailers_end_by_themselves(self) -> None:
        start = head(b"Transfer-Encoding: chunked") + b"2\r\nok\r\n0\r\n"
        sent = Sent()
        async with scripted(endless(start, b"X-Trailer: x\r\n", sent)) as url, sender() as one:
            outcome = await one.post(outgoing(url, timeout_s=PATIENT_S))

        assert outcome.error in {"too_large", "reset"}
        assert sent.size_bytes < MUCH_BYTES


class TestHead:
    async def test_endless_headers_end_by_themselves(self) -> None:
        sent = Sent()
        async with scripted(endless(b"HTTP/1.1 200 OK\r\n", b"X-More: x\r\n", sent)) as url, sender() as one:
            outcome = await one.post(outgoing(url, timeout_s=PATIENT_S))

        assert outcome.status is None
        assert outcome.error in {"too_large", "reset"}
        assert sent.size_bytes < MUCH_BYTES

    @pytest.mark.parametrize("start", [b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\nX-", b"HTTP/1.1 200 OK\r\nX-More: "])
    async def test_a_line_without_end_is_too_large(self, start: bytes) -> None:
        async with scripted(endless(start, b"x")) as url, sender() as one:
            outcome = await one.post(outgoing(url, timeout_s=PATIENT_S))

        assert (outcome.error, outcome.status) == ("too_large", None)


class TestTime:
    @pytest.mark.parametrize(
        "drip",
        [b"HTTP/1.1 200 OK\r\nX-A: ", b"x", b"HTTP/1.1 100 Continue\r\n\r\n"],
        ids=["in the head", "before any head", "of interim answers"],
    )
    async def test_a_slow_drip_before_the_answer_ends_with_the_limit(self, drip: bytes) -> None:
        async with scripted(dripping(drip)) as url, sender() as one:
            outcome = await one.post(outgoing(url, timeout_s=QUICK_S))

        assert outcome.status is None
        # What drips here is no HTTP either, where it comes round again.
        assert outcome.error in {"timeout", "reset"}
        assert outcome.duration_ms < SOON_MS

    async def test_a_slow_drip_of_the_body_ends_with_the_limit(self) -> None:
        async def script(writer: asyncio.StreamWriter) -> None:
            writer.write(head(b"Content-Length: 10000"))
            await dripping(b"x")(writer)

        async with scripted(script) as url, sender() as one:
            outcome = await one.post(outgoing(url, timeout_s=QUICK_S))

        assert (outcome.error, outcome.status, outcome.body) == ("timeout", None, "")

    @pytest.mark.parametrize("status", [b"100 Continue", b"102 Processing", b"103 Early Hints", b"199 What"])
    async def test_a_flood_of_interim_answers_ends_with_the_limit(self, status: bytes) -> None:
        async with scripted(endless(b"", head(status=status))) as url, sender() as one:
            outcome = await one.post(outgoing(url, timeout_s=QUICK_S))

        assert (outcome.error, outcome.status) == ("timeout", None)
        assert outcome.duration_ms < SOON_MS

    async def test_an_interim_answer_before_the_real_one_is_passed_by(self) -> None:
        answer = head(b"Link: </x>", status=b"103 Early Hints") + head(b"Content-Length: 2", status=b"200 OK") + b"ok"
        async with scripted(once(answer)) as url, sender() as one:
            outcome = await one.post(outgoing(url, timeout_s=PATIENT_S))

        assert (outcome.error, outcome.status) == (None, 200)

    async def test_another_protocol_is_not_spoken(self) -> None:
        answer = head(b"Upgrade: websocket", b"Connection: Upgrade", status=b"101 Switching Protocols")
        async with scripted(once(answer)) as url, sender() as one:
            outcome = await one.post(outgoing(url, timeout_s=QUICK_S))

        assert not outcome.delivered


class TestConnections:
    @pytest.mark.parametrize(
        "extra", [head(b"Content-Length: 2", status=b"200 OK") + b"no", b"x"], ids=["an answer", "garbage"]
    )
    async def test_what_comes_after_an_answer_is_not_taken_for_the_next_one(self, extra: bytes) -> None:
        async with scripted(once(head(b"Content-Length: 2") + b"ok" + extra)) as url, sender() as one:
            outcomes = [await one.post(outgoing(url, timeout_s=PATIENT_S)) for _ in range(3)]

        assert {outcome.status for outcome in outcomes} <= {500, None}
