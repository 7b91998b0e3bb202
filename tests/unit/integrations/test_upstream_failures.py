"""Each way in which a call can fail, on real sockets: the kind of error, and that it comes to an end."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from app.integrations.upstream import (
    MAX_ANSWER_BYTES,
    HttpUpstream,
    Malformed,
    Rejected,
    Unavailable,
    UpstreamConfig,
)
from tests.support.bytewise import Say, bytewise, never_accepting, saying
from tests.support.egress import EgressProxy, egress_proxy

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
EMPTY = b"Content-Length: 0\r\n\r\n"
LONG_S = 60.0
"""Longer than any test may take: whatever ends sooner, ended by the other limit."""
HEAD_S = 1.5
"""Long enough for the head of an answer, on whatever machine."""


@asynccontextmanager
async def client_of(url: str, **options: Any) -> AsyncIterator[HttpUpstream]:
    client = HttpUpstream(UpstreamConfig(url, **{"timeout_s": LONG_S, "connect_timeout_s": LONG_S, **options}))
    try:
        async with asyncio.timeout(LONG_S / 2):
            yield client
    finally:
        await client.close()


@asynccontextmanager
async def answered(say: Say, **options: Any) -> AsyncIterator[HttpUpstream]:
    async with bytewise(say) as url, client_of(url, **options) as client:
        yield client


async def test_a_port_that_takes_no_connection_is_given_up_at_the_limit_for_connecting() -> None:
    with never_accepting() as url:
        async with client_of(url, connect_timeout_s=0.2) as client:
            with pytest.raises(Unavailable, match="in time"):
                await client.send("GET", "/")


async def test_a_tls_handshake_that_does_not_end_is_given_up_at_the_limit_for_connecting() -> None:
    async with (
        bytewise(saying(close=False)) as url,
        client_of(url.replace("http:", "https:"), connect_timeout_s=0.2) as client,
    ):
        with pytest.raises(Unavailable, match="in time"):
            await client.send("GET", "/")


@pytest.mark.parametrize(
    "parts",
    [(), (b"HTTP/1.1 200",), (OK,)],
    ids=["nothing", "half a status line", "half of the headers"],
)
async def test_silence_before_the_body_is_unavailable(parts: tuple[bytes, ...]) -> None:
    async with answered(saying(*parts, close=False), timeout_s=0.2) as client:
        with pytest.raises(Unavailable, match="in time"):
            await client.send("POST", "/", b"{}")


async def test_headers_that_drip_are_given_up_at_the_limit_for_all() -> None:
    drops = [OK[n : n + 1] for n in range(len(OK))] * 100
    async with answered(saying(*drops, gap_s=0.02), timeout_s=0.3) as client:
        with pytest.raises(Unavailable, match="in time"):
            await client.send("GET", "/")


@pytest.mark.parametrize("close", [True, False], ids=["broke off", "silence"])
async def test_of_a_body_that_does_not_end_only_the_status_counts(*, close: bool) -> None:
    head = OK + b'Content-Length: 100\r\n\r\n{"allowed":true}'
    async with answered(saying(head, close=close), timeout_s=LONG_S if close else HEAD_S) as client:
        answer = await client.send("POST", "/", b"{}")
    assert (answer.status, answer.complete) == (200, False)
    with pytest.raises(Malformed):
        answer.json()


async def test_of_a_body_that_drips_only_the_status_counts() -> None:
    drops = [b"1\r\n \r\n"] * 1000
    async with answered(
        saying(OK + b"Transfer-Encoding: chunked\r\n\r\n", *drops, gap_s=0.02), timeout_s=0.3
    ) as client:
        answer = await client.send("GET", "/")
    with pytest.raises(Malformed):
        answer.json()


async def test_a_broken_chunk_is_no_success() -> None:
    head = OK + b'Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n{"allowed":true}\r\n0\r\n\r\n'
    async with answered(saying(head)) as client:
        with pytest.raises((Unavailable, Malformed)):
            (await client.send("GET", "/")).json()


async def test_no_more_than_the_limit_of_an_answer_is_read() -> None:
    body = b" " * MAX_ANSWER_BYTES + b"{}"
    async with answered(saying(OK + b"Content-Length: %d\r\n\r\n" % len(body), body)) as client:
        answer = await client.send("GET", "/")
    assert len(answer.body) == MAX_ANSWER_BYTES
    with pytest.raises(Malformed, match="too large"):
        answer.json()


async def test_an_endless_header_is_unavailable() -> None:
    async with answered(saying(OK + b"X: " + b"x" * 200_000 + b"\r\n" + EMPTY)) as client:
        with pytest.raises(Unavailable):
            await client.send("GET", "/")


@pytest.mark.parametrize("said", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/9.9\r\n\r\n"])
async def test_what_is_no_http_is_unavailable(said: bytes) -> None:
    async with answered(saying(said)) as client:
        with pytest.raises(Unavailable, match="reset"):
            await client.send("GET", "/")


async def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    async with answered(saying(head + bomb)) as client:
        answer = await client.send("GET", "/")
    assert answer.body == bomb
    with pytest.raises(Malformed, match="compressed"):
        answer.json()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed_anywhere(status: int) -> None:
    asked: list[bytes] = []

    async def remember(writer: asyncio.StreamWriter) -> None:
        asked.append(b"here")
        writer.write(OK + EMPTY)

    async with bytewise(remember) as elsewhere:
        head = b"HTTP/1.1 %d Go\r\nLocation: %s/\r\n" % (status, elsewhere.encode())
        async with answered(saying(head + EMPTY), token="t0p-secret") as client:
            with pytest.raises(Unavailable) as caught:
                await client.send("POST", "/", b"{}")
    assert caught.value.status == status
    assert asked == []


async def test_no_error_shows_an_address_a_token_or_a_body() -> None:
    failures: list[Exception] = []
    for said in (b"", b"garbage\r\n\r\n", b"HTTP/1.1 503 No\r\n" + EMPTY, b"HTTP/1.1 422 No\r\n" + EMPTY):
        async with answered(saying(said), token="t0p-secret") as client:
            with pytest.raises((Unavailable, Rejected)) as caught:
                await client.send("POST", "/path-4711", b'{"name":"jane"}')
            failures.append(caught.value)
    shown = " ".join(f"{failure!r} {failure} {vars(failure)}" for failure in failures)
    assert not [text for text in ("127.0.0.1", "t0p-secret", "jane", "4711") if text in shown]


# -- proxies


@pytest.fixture
async def proxy() -> AsyncIterator[EgressProxy]:
    async with egress_proxy() as one:
        yield one


async def test_the_proxy_that_is_set_is_used(proxy: EgressProxy) -> None:
    async with bytewise(saying(OK + EMPTY)) as url, client_of(url, proxy=proxy.url) as client:
        assert (await client.send("GET", "/x")).status == 200
        assert proxy.asked == [("GET", f"{url}/x")]


async def test_a_proxy_that_does_not_know_us_is_unavailable(proxy: EgressProxy) -> None:
    nobody = proxy.url.replace("egress-user", "nobody")
    async with client_of("http://127.0.0.1:1", proxy=nobody) as client:
        with pytest.raises(Unavailable, match="407"):
            await client.send("GET", "/")
    async with client_of("https://127.0.0.1:1", proxy=nobody) as client:
        with pytest.raises(Unavailable, match="proxy"):
            await client.send("GET", "/")


async def test_a_proxy_that_is_not_there_is_unavailable() -> None:
    async with client_of("http://127.0.0.1:1", proxy="http://user:p4ss@127.0.0.1:1") as client:
        with pytest.raises(Unavailable, match="proxy") as caught:
            await client.send("GET", "/")
    assert "p4ss" not in repr(caught.value)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
async def test_no_proxy_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with answered(saying(OK + EMPTY)) as client:
        assert (await client.send("GET", "/")).status == 200


# -- what health is told


async def test_the_last_problem_is_that_of_the_last_call() -> None:
    said = [b"HTTP/1.1 503 No\r\n", b"HTTP/1.1 422 No\r\n", b"HTTP/1.1 401 No\r\n", OK]
    problems: list[str | None] = []

    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(said.pop(0) + b"Connection: close\r\n" + EMPTY)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with answered(say) as client:
        for _ in range(4):
            with suppress(Unavailable, Rejected):
                await client.send("GET", "/")
            problems.append(client.last_problem)
    assert problems == ["answered 503", None, "answered 401", None]


async def test_the_age_of_the_last_call_is_counted_from_its_end() -> None:
    now_s = 100.0

    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Connection: close\r\n" + EMPTY)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with answered(say) as client:
        client._monotonic_s = lambda: now_s
        await client.send("GET", "/")
        now_s = 198.0
        assert client.last_call_age_s == 98.0
