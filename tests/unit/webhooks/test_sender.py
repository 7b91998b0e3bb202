"""The sender at real receivers on loopback, which the allow-list of these tests permits."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.webhooks.errors import InvalidHeader
from app.webhooks.guard import TargetGuard
from app.webhooks.sender import AttemptOutcome, OutgoingRequest, Sender, parse_retry_after, validate_headers

NOW_S = 1_700_000_000.0
BODY = b'{"id":"1"}'
LOOPBACK = TargetGuard(["127.0.0.0/8", "::1"], allow_http=True)

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def sender(guard: TargetGuard = LOOPBACK, **changes: Any) -> Sender:
    return Sender(guard, max_connections=8, max_connections_per_host=4, now_s=lambda: NOW_S, **changes)


def outgoing(url: str, **changes: Any) -> OutgoingRequest:
    request = OutgoingRequest(url=url, body=BODY, protected_headers=(("webhook-id", "dlv_1"),), timeout_s=5)
    return replace(request, **changes)


@asynccontextmanager
async def receiver(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A receiver that gives this answer; yields its URL."""
    server = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await server.setup()
    site = web.TCPSite(server, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = server.addresses[0][1]
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}/hook"
    finally:
        await server.cleanup()


@asynccontextmanager
async def raw_receiver(answer: bytes, *, then_hang: bool = False) -> AsyncIterator[str]:
    """A receiver that sends these bytes after the head of the request, and closes or hangs."""
    finished = asyncio.Event()

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if then_hang:
            await finished.wait()
        writer.close()

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        finished.set()
        server.close()
        await server.wait_closed()


async def post_to(answer: Answer, **changes: Any) -> AttemptOutcome:
    async with receiver(answer) as url, sender() as one:
        return await one.post(outgoing(url, **changes))


def answering(status: int = 200, **response: Any) -> Answer:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, **response)

    return answer


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
            protected_headers=(("User-Agent", "vault-stream"), ("Content-Type", "application/cloudevents+json")),
        )

        assert seen["user-agent"] == ["vault-stream"]
        assert seen["content-type"] == ["application/cloudevents+json"]
        assert seen["x-team"] == ["data"]

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


class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path: Path) -> Path:
        """A certificate for 127.0.0.1 that signs itself, and its key, in one file."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
        now = dt.datetime.now(dt.UTC)
        loopback = x509.DNSName("localhost")
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([loopback]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        file = tmp_path / "receiver.pem"
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return file

    @pytest.fixture
    def server_tls(self, certificate: Path) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        return context

    async def test_an_unknown_certificate_is_tls(self, server_tls: ssl.SSLContext) -> None:
        async with receiver(answering(), server_tls) as url, sender() as one:
            outcome = await one.post(outgoing(url.replace("127.0.0.1", "localhost")))

        assert outcome.error == "tls"

    async def test_an_extra_root_makes_it_known(self, server_tls: ssl.SSLContext, certificate: Path) -> None:
        async with receiver(answering(), server_tls) as url, sender(extra_ca_file=certificate) as one:
            outcome = await one.post(outgoing(url.replace("127.0.0.1", "localhost")))

        assert outcome.delivered

    async def test_a_certificate_for_another_name_is_tls(self, server_tls: ssl.SSLContext, certificate: Path) -> None:
        async with receiver(answering(), server_tls) as url, sender(extra_ca_file=certificate) as one:
            outcome = await one.post(outgoing(url))

        assert outcome.error == "tls"

    async def test_a_receiver_that_does_not_speak_tls_is_tls(self) -> None:
        async with receiver(answering()) as url, sender() as one:
            outcome = await one.post(outgoing(url.replace("http:", "https:")))

        assert outcome.error == "tls"


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "asked_s"),
        [
            (None, None),
            ("0", 0),
            ("120", 120),
            (" 120 ", 120),
            ("1.2", 2),
            ("Tue, 14 Nov 2023 22:14:20 GMT", 60),
            ("Tuesday, 14-Nov-23 22:14:20 GMT", 60),
            ("Tue Nov 14 22:14:20 2023", 60),
            ("Tue, 14 Nov 2023 22:13:00 GMT", 0),
            ("", None),
            ("-5", None),
            ("soon", None),
            ("1e9", None),
            ("9" * 5000, None),
            ("nan", None),
            ("Tue, 99 Nov 2023 22:14:20 GMT", None),
            ("Mon, 01 Jan 0001 00:00:00 +2359", 0),
        ],
    )
    def test_seconds_and_dates_are_understood_and_junk_is_ignored(self, value: str | None, asked_s: int | None) -> None:
        assert parse_retry_after(value, NOW_S) == asked_s


class TestCustomHeaders:
    def test_tokens_with_any_text_pass(self) -> None:
        validate_headers(
            {"Authorization": "Bearer x", "X-Team": "größe\t1", "x_odd!#$%&'*+-.^_`|~": "", "Accept": "*/*"}
        )

    @pytest.mark.parametrize(
        "name",
        ["Host", "Content-Type", "content-length", "Transfer-Encoding", "Connection", "TE", "Trailer", "Upgrade",
         "Expect", "Keep-Alive", "Proxy-Authorization", "Cookie", "Webhook-Signature", "X-Webhook-Id", "X-Event-Id",
         "X-Delivery-Attempt", "Ce-Id", "Traceparent", "tracestate"],
    )  # fmt: skip
    def test_the_reserved_ones_are_refused_in_any_case(self, name: str) -> None:
        for written in (name, name.upper(), name.lower()):
            with pytest.raises(InvalidHeader, match="reserved") as refused:
                validate_headers({written: "x"})
            assert refused.value.field == f"/headers/{written}"

    @pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\n", "ü", "a/b"])
    def test_a_name_must_be_a_token(self, name: str) -> None:
        with pytest.raises(InvalidHeader, match="must be a token"):
            validate_headers({name: "x"})

    @pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b", "a\x7f"])
    def test_a_value_must_not_break_the_line_and_is_not_shown(self, value: str) -> None:
        with pytest.raises(InvalidHeader, match="no line break") as refused:
            validate_headers({"X-Team": value})

        assert value not in str(refused.value)

    def test_a_name_twice_in_two_cases_is_refused(self) -> None:
        with pytest.raises(InvalidHeader, match="twice"):
            validate_headers({"X-Team": "a", "x-team": "b"})

    def test_32_headers_of_4096_characters_are_the_most(self) -> None:
        validate_headers({f"X-{n}": "v" * 4096 for n in range(32)})
        with pytest.raises(InvalidHeader, match="at most 32"):
            validate_headers({f"X-{n}": "v" for n in range(33)})
        with pytest.raises(InvalidHeader, match="at most 4096 characters"):
            validate_headers({"X-Team": "v" * 4097})
