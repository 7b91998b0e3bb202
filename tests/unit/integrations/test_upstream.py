from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from app.integrations.upstream import (
    Answer,
    HttpUpstream,
    Unavailable,
    UpstreamConfig,
    backoff_s,
    parse_retry_after,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
NOW_S = 1_750_000_000.0


@asynccontextmanager
async def upstream(
    handler: Handler,
    *,
    base: str = "",
    timeout_s: float = 5.0,
    token: str | None = None,
    auth_header: str = "Authorization",
) -> AsyncIterator[HttpUpstream]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    server = TestServer(app)
    await server.start_server()
    config = UpstreamConfig(str(server.make_url(f"/{base}")), timeout_s, token=token, auth_header=auth_header)
    client = HttpUpstream(config, now_s=lambda: NOW_S)
    try:
        yield client
    finally:
        await client.close()
        await server.close()


def answering(status: int, body: bytes = b"", **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        named = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return web.Response(status=status, body=body, headers=named)

    return handler


async def test_a_request_carries_path_body_headers_and_token() -> None:
    seen: list[web.Request] = []
    bodies: list[bytes] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        bodies.append(await request.read())
        return web.Response(body=b'{"id":"x"}', status=201, content_type="application/json")

    async with upstream(handler, base="base", token="t0p") as client:
        answer = await client.send("POST", "/v1/a%2Fb", b"{}", headers={"Idempotency-Key": "k"})
    assert answer == Answer(201, b'{"id":"x"}')
    assert answer.json() == {"id": "x"}
    (request,) = seen
    assert (request.method, request.raw_path, bodies) == ("POST", "/base/v1/a%2Fb", [b"{}"])
    assert request.headers["Authorization"] == "Bearer t0p"
    assert request.headers["Idempotency-Key"] == "k"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Accept-Encoding"] == "identity"


async def test_a_caller_says_what_it_accepts() -> None:
    seen: list[tuple[str, ...]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(tuple(request.headers.getall("Accept")))
        return web.Response()

    async with upstream(handler) as client:
        await client.send("GET", "/")
        await client.send("GET", "/", headers={"accept": "*/*"})
    assert seen == [("application/json",), ("*/*",)]


async def test_a_token_in_another_header_is_sent_as_it_is() -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers["X-Api-Key"])
        assert "Authorization" not in request.headers
        return web.Response()

    async with upstream(handler, token="t0p", auth_header="X-Api-Key") as client:
        await client.send("GET", "/")
    assert seen == ["t0p"]


async def test_no_request_waits_for_the_connection_of_another() -> None:
    # Else a slow upstream would look like a dead one to whoever waits, after `connect_timeout_s`.
    count = 110
    under_way, all_there = 0, asyncio.Event()

    async def handler(_: web.Request) -> web.Response:
        nonlocal under_way
        under_way += 1
        if under_way == count:
            all_there.set()
        await all_there.wait()
        return web.json_response({})

    async with upstream(handler, timeout_s=10.0) as client:
        answers = await asyncio.gather(*(client.send("POST", "/", b"") for _ in range(count)), return_exceptions=True)
    assert answers == [Answer(200, b"{}", content_type="application/json; charset=utf-8")] * count


async def test_an_error_of_the_loop_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object, **__: object) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    monkeypatch.setattr(aiohttp.ClientSession, "request", closed)
    async with upstream(answering(200)) as client:
        with pytest.raises(Unavailable):
            await client.send("GET", "/")


async def test_a_refused_connection_is_unavailable_and_the_message_has_no_address() -> None:
    async with upstream(answering(200)) as client:
        dead = HttpUpstream(UpstreamConfig("http://127.0.0.1:1", 5.0))
        with pytest.raises(Unavailable, match="connect") as caught:
            await dead.send("GET", "/")
        await dead.close()
        assert client is not dead
    assert "127.0.0.1" not in str(caught.value)


async def test_a_connection_that_ends_without_an_answer_is_unavailable() -> None:
    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with upstream(handler) as client:
        with pytest.raises(Unavailable, match="reset"):
            await client.send("GET", "/")


async def test_cookies_are_not_kept() -> None:
    sent: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        sent.append(request.headers.get("Cookie"))
        return web.Response(headers={"Set-Cookie": "a=b"})

    async with upstream(handler) as client:
        await client.send("GET", "/")
        await client.send("GET", "/")
    assert sent == [None, None]


def test_the_configuration_does_not_show_its_secrets() -> None:
    config = UpstreamConfig("https://x", 1.0, token="t0p", proxy="http://u:p4ss@proxy")
    assert "t0p" not in repr(config)
    assert "p4ss" not in repr(config)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 5 ", 5.0),
        ("999999999", 3600.0),
        ("Sun, 15 Jun 2025 15:07:00 GMT", 20.0),
        ("Sun, 15 Jun 2025 15:00:00 GMT", 0.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("\u00b2", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_junk_is_ignored(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW_S) == seconds


def test_the_back_off_doubles_with_half_of_it_random_up_to_a_minute() -> None:
    assert [backoff_s(failures, 1.0) for failures in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert backoff_s(3, 0.0) == 1.0
    assert backoff_s(10_000, 1.0) == 60.0


def test_the_back_off_never_undercuts_what_was_asked_for() -> None:
    assert backoff_s(1, 0.0, 30.0) == 30.0
    assert backoff_s(9, 1.0, 1.0) == 60.0
