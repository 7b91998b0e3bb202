"""The sender at real receivers on loopback, which the allow-list of these tests permits."""

from __future__ import annotations

import asyncio
import gzip
import socket
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver
from msgspec import structs

from app.webhooks.guard import TargetGuard
from tests.support.sending import (
    SIGNED,
    answering,
    outgoing,
    post_to,
    raw_receiver,
    receiver,
    sender,
)


class TestRequest:
    async def test_it_is_one_post_of_exactly_these_bytes(self) -> None:
        seen: list[tuple[str, str, bytes]] = []

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            seen.append((request.method, request.path_qs, await request.read()))
            return web.Response(status=204)

        async with receiver(answer) as url, sender() as one:
            outcome = await one.post(outgoing(url + "?token=%2B", body=b'{ "a" : 1.0 }'))

        assert outcome.delivered
        assert seen == [("POST", "/hook?token=%2B", b'{ "a" : 1.0 }')]

    async def test_no_custom_header_replaces_a_protected_one_in_any_case(self) -> None:
        seen: dict[str, list[str]] = {}

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            seen.update({name.lower(): request.headers.getall(name) for name in request.headers})
            return web.Response()

        await post_to(
            answer,
            custom_headers={"user-agent": "custom", "X-Team": "data"},
        )

        assert seen["user-agent"] == ["vault-stream"]
        assert seen["content-type"] == ["application/cloudevents+json; charset=utf-8"]
        assert seen["x-team"] == ["data"]

    async def test_an_id_that_would_add_a_line_is_not_sent(self) -> None:
        outcome = await post_to(answering(), protected_headers=structs.replace(SIGNED, delivery_id="a\r\nX-Evil: 1"))

        assert (outcome.error, outcome.status) == ("reset", None)

    async def test_no_compressed_answer_is_asked_for(self) -> None:
        seen: list[bool] = []

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            seen.append("Accept-Encoding" in request.headers)
            return web.Response()

        await post_to(answer)

        assert seen == [False]

    async def test_cookies_are_not_kept(self) -> None:
        seen: list[str | None] = []

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            seen.append(request.headers.get("Cookie"))
            return web.Response(headers={"Set-Cookie": "a=b"})

        async with receiver(answer) as url, sender() as one:
            await one.post(outgoing(url))
            await one.post(outgoing(url))

        assert seen == [None, None]

    async def test_proxies_and_credentials_of_the_environment_are_not_used(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login someone password secret\n")
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.delenv("NO_PROXY", raising=False)
        seen: list[str | None] = []

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            seen.append(request.headers.get("Authorization"))
            return web.Response()

        outcome = await post_to(answer)

        assert outcome.delivered
        assert seen == [None]

    async def test_a_connection_is_used_again(self) -> None:
        peers: set[Any] = set()

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            assert request.transport is not None
            peers.add(request.transport.get_extra_info("peername"))
            return web.Response(text="ok")

        async with receiver(answer) as url, sender() as one:
            for _ in range(3):
                await one.post(outgoing(url))

        assert len(peers) == 1

    async def test_an_egress_proxy_is_dialled_in_place_of_the_target(self) -> None:
        seen: list[str] = []

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            seen.append(request.raw_path)
            return web.Response()

        async with receiver(answer) as url, sender(TargetGuard(allow_http=True), egress_proxy=url) as one:
            outcome = await one.post(outgoing("http://target.example/hook"))
            refused = await one.post(outgoing("http://169.254.169.254/latest"))

        assert outcome.delivered
        assert seen == ["http://target.example/hook"]
        assert refused.error == "forbidden_target"

    def test_the_repr_of_a_request_shows_none_of_its_content(self) -> None:
        request = outgoing("https://example.com/?token=secret", custom_headers={"Authorization": "secret"})

        assert repr(request) == "OutgoingRequest(timeout_s=5)"


class TestAnswer:
    @pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
    async def test_2xx_is_delivered(self, status: int) -> None:
        outcome = await post_to(answering(status))

        assert outcome.delivered
        assert (outcome.status, outcome.error) == (status, None)

    @pytest.mark.parametrize("status", [300, 304, 400, 401, 404, 410, 413, 429, 500, 503, 599])
    async def test_any_other_status_is_an_error_of_its_number(self, status: int) -> None:
        outcome = await post_to(answering(status))

        assert not outcome.delivered
        assert (outcome.status, outcome.error) == (status, f"status_{status}")

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_is_not_followed(self, status: int) -> None:
        requests: list[str] = []

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            requests.append(request.path)
            return web.Response(status=status, headers={"Location": "/elsewhere"})

        outcome = await post_to(answer)

        assert outcome.error == f"status_{status}"
        assert requests == ["/hook"]

    async def test_the_start_of_the_body_is_kept_for_the_operator(self) -> None:
        outcome = await post_to(answering(500, text="größer"))

        assert outcome.body == "größer"

    async def test_bytes_that_are_not_utf_8_are_replaced(self) -> None:
        outcome = await post_to(answering(500, body=b"a\xff\xc3"))

        assert outcome.body == "a\ufffd\ufffd"

    async def test_no_more_than_2_kib_are_kept_and_no_half_character(self) -> None:
        outcome = await post_to(answering(500, body=b"x" + "ü".encode() * 4000))

        assert outcome.body == "x" + "ü" * 1023

    async def test_of_1_mib_no_more_than_the_start_is_read_and_the_status_stands(self) -> None:
        peers: set[Any] = set()

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            assert request.transport is not None
            peers.add(request.transport.get_extra_info("peername"))
            return web.Response(body=b"x" * (1 << 20))

        async with receiver(answer) as url, sender() as one:
            outcomes = [await one.post(outgoing(url)) for _ in range(2)]

        assert [(one.status, len(one.body), one.error) for one in outcomes] == [(200, 2048, None)] * 2
        assert len(peers) == 2, "a connection with an unread rest was used again"

    async def test_an_endless_body_ends_at_the_limit(self) -> None:
        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            try:
                while True:
                    await response.write(b"x" * 4096)
            except ConnectionError:
                return response

        outcome = await post_to(answer)

        assert (outcome.status, len(outcome.body)) == (200, 2048)

    async def test_a_gzip_bomb_is_not_unpacked(self) -> None:
        bomb = gzip.compress(bytes(8 << 20), mtime=0)
        assert len(bomb) < 16 * 1024

        outcome = await post_to(answering(200, body=bomb, headers={"Content-Encoding": "gzip"}))

        assert outcome.delivered
        assert outcome.body.startswith("\x1f\ufffd\x08")
        assert len(outcome.body) <= 2048

    @pytest.mark.parametrize(("status", "asked_s"), [(429, 120), (503, 120), (500, None), (200, None)])
    async def test_a_retry_after_counts_with_429_and_503_only(self, status: int, asked_s: int | None) -> None:
        outcome = await post_to(answering(status, headers={"Retry-After": "120"}))

        assert outcome.retry_after_s == asked_s


class TestFailures:
    async def test_a_slow_drip_ends_with_the_time_limit(self) -> None:
        # A status line without the body that it promises is no answer yet.
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx"
        async with raw_receiver(head, then_hang=True) as url, sender() as one:
            outcome = await one.post(outgoing(url, timeout_s=0.2))

        assert (outcome.error, outcome.status) == ("timeout", None)
        assert 190 <= outcome.duration_ms < 2000

    async def test_a_receiver_that_says_nothing_ends_with_the_time_limit(self) -> None:
        async with raw_receiver(b"", then_hang=True) as url, sender() as one:
            outcome = await one.post(outgoing(url, timeout_s=0.2))

        assert outcome.error == "timeout"

    async def test_a_refused_connection_is_connect(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            async with sender() as one:
                outcome = await one.post(outgoing(f"http://127.0.0.1:{unused.getsockname()[1]}/"))

        assert (outcome.error, outcome.status, outcome.body) == ("connect", None, "")

    async def test_a_name_that_does_not_resolve_is_dns(self) -> None:
        class Nobody(AbstractResolver):
            async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> Any:
                raise OSError(None, "unknown")

            async def close(self) -> None: ...

        async with sender(resolver=Nobody()) as one:
            outcome = await one.post(outgoing("https://nobody.example/"))

        assert outcome.error == "dns"

    async def test_a_resolver_that_hangs_ends_with_the_time_limit(self) -> None:
        class Silent(AbstractResolver):
            async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> Any:
                await asyncio.Event().wait()

            async def close(self) -> None: ...

        async with sender(resolver=Silent()) as one:
            outcome = await one.post(outgoing("https://silent.example/", timeout_s=0.1))

        assert outcome.error == "timeout"

    @pytest.mark.parametrize(
        "answer",
        [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx", b"no HTTP at all\r\n\r\n"],
        ids=["no answer", "half an answer", "not HTTP"],
    )
    async def test_an_exchange_that_breaks_off_is_reset(self, answer: bytes) -> None:
        async with raw_receiver(answer) as url, sender() as one:
            outcome = await one.post(outgoing(url))

        assert (outcome.error, outcome.status) == ("reset", None)

    async def test_an_endless_header_is_too_large(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n"
        async with raw_receiver(head) as url, sender() as one:
            outcome = await one.post(outgoing(url))

        assert (outcome.error, outcome.status) == ("too_large", None)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "0177.0.0.1", "[::1]"])
    async def test_a_forbidden_target_is_not_reached_by_whatever_name(self, host: str) -> None:
        requests = 0

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            nonlocal requests
            requests += 1
            return web.Response()

        async with receiver(answer) as url, sender(TargetGuard(allow_http=True)) as one:
            outcome = await one.post(outgoing(url.replace("127.0.0.1", host)))

        assert outcome.error == "forbidden_target"
        assert requests == 0

    async def test_a_name_that_came_to_point_inside_is_not_reached(self) -> None:
        class Rebound(AbstractResolver):
            async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> Any:
                return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}]

            async def close(self) -> None: ...

        async with receiver(answering()) as url, sender(TargetGuard(allow_http=True), resolver=Rebound()) as one:
            outcome = await one.post(outgoing(url.replace("127.0.0.1", "public.example")))

        assert outcome.error == "forbidden_target"

    async def test_http_is_not_sent_once_the_settings_no_longer_allow_it(self) -> None:
        async with receiver(answering()) as url, sender(TargetGuard(["127.0.0.1"])) as one:
            outcome = await one.post(outgoing(url))

        assert outcome.error == "forbidden_target"

    async def test_cancelling_an_attempt_is_not_an_outcome(self) -> None:
        asked = asyncio.Event()

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            asked.set()
            await asyncio.Event().wait()
            return web.Response()

        async with receiver(answer) as url, sender() as one:
            attempt = asyncio.create_task(one.post(outgoing(url)))
            await asyncio.wait_for(asked.wait(), 5)
            attempt.cancel()
            with pytest.raises(asyncio.CancelledError):
                await attempt

    async def test_a_closed_sender_says_so(self) -> None:
        async with sender() as one:
            pass

        with pytest.raises(RuntimeError, match="closed"):
            await one.post(outgoing("https://example.com/"))
