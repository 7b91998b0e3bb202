"""TLS to receivers: whose certificate passes, what is said to them, and how it ends; on both event loops."""

from __future__ import annotations

import asyncio
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.webhooks.guard import TargetGuard
from app.webhooks.sender import AttemptOutcome, Sender
from tests.support.certificates import Authority, certificate_for
from tests.support.egress import EgressProxy, egress_proxy
from tests.support.sending import LOOPBACK, outgoing


class Seen:
    """What a server saw of its clients."""

    def __init__(self) -> None:
        self.names: list[str | None] = []
        self.protocols: list[str | None] = []
        self.requests = 0
        self.connections = 0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


def context_of(certificate: Path, key: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@asynccontextmanager
async def serving(
    context: ssl.SSLContext, answer: bytes = b"HTTP/1.1 204 No Content\r\n\r\n", *, hangs_up: bool = False
) -> AsyncIterator[tuple[int, Seen]]:
    """A server that gives this answer; yields its port and what it saw."""
    seen = Seen()
    context.sni_callback = lambda _, name, __: seen.names.append(name)
    writers: list[StreamWriter] = []

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        seen.connections += 1
        writers.append(writer)
        seen.protocols.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                seen.requests += 1
                writer.write(answer)
                await writer.drain()
                if hangs_up:
                    break
        except (OSError, EOFError):
            pass
        # Without a goodbye of TLS.
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


async def to_loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


def sender(roots: Path | None, *, guard: TargetGuard = LOOPBACK, egress_proxy: str | None = None) -> Sender:
    return Sender(
        guard,
        max_connections=8,
        max_connections_per_host=8,
        extra_ca_file=roots,
        egress_proxy=egress_proxy,
        resolve=to_loopback,
    )


async def post(url: str, roots: Path | None, timeout_s: float = 30) -> AttemptOutcome:
    async with sender(roots) as one:
        return await one.post(outgoing(url, timeout_s=timeout_s))


class TestCertificate:
    async def test_one_for_the_name_by_a_known_root_passes_and_the_connection_is_kept(self, tmp_path: Path) -> None:
        pem = certificate_for("receiver.example", tmp_path)
        async with serving(context_of(pem)) as (port, seen), sender(pem) as one:
            outcomes = [await one.post(outgoing(f"https://receiver.example:{port}/")) for _ in range(3)]

        assert [outcome.error for outcome in outcomes] == [None] * 3
        assert (seen.connections, seen.requests) == (1, 3)
        assert seen.names == ["receiver.example"]
        assert seen.protocols == ["http/1.1"]

    async def test_the_name_is_asked_for_without_its_last_dot(self, tmp_path: Path) -> None:
        pem = certificate_for("receiver.example", tmp_path)
        async with serving(context_of(pem)) as (port, seen):
            outcome = await post(f"https://Receiver.Example.:{port}/", pem)

        assert (outcome.error, seen.names) == (None, ["receiver.example"])

    async def test_one_for_the_address_passes_where_the_url_has_an_address(self, authority: Authority) -> None:
        async with serving(context_of(*authority.issue("server"))) as (port, seen):
            outcome = await post(f"https://127.0.0.1:{port}/", authority.file)

        assert (outcome.error, seen.names) == (None, [None])

    async def test_one_for_the_address_is_none_for_a_name_that_leads_there(self, authority: Authority) -> None:
        async with serving(context_of(*authority.issue("server"))) as (port, seen):
            outcome = await post(f"https://receiver.example:{port}/", authority.file)

        assert (outcome.error, seen.requests) == ("tls", 0)

    async def test_one_for_another_name_or_address_does_not_pass(self, tmp_path: Path, authority: Authority) -> None:
        pem = certificate_for("receiver.example", tmp_path)
        async with serving(context_of(pem)) as (port, seen):
            names = [f"https://{host}:{port}/" for host in ("other.example", "a.receiver.example", "127.0.0.1")]
            errors = [(await post(url, pem)).error for url in names]
        async with serving(context_of(*authority.issue("server", address="127.0.0.2"))) as (port, other):
            errors.append((await post(f"https://127.0.0.1:{port}/", authority.file)).error)

        assert errors == ["tls"] * 4
        assert (seen.requests, other.requests) == (0, 0)

    async def test_one_by_an_unknown_root_does_not_pass_though_another_root_was_added(
        self, tmp_path: Path, authority: Authority
    ) -> None:
        pem = certificate_for("receiver.example", tmp_path)
        async with serving(context_of(pem)) as (port, seen):
            outcome = await post(f"https://receiver.example:{port}/", authority.file)

        assert (outcome.error, seen.requests) == ("tls", 0)


class TestHandshake:
    async def test_a_version_of_the_past_is_tls(self, tmp_path: Path) -> None:
        pem = certificate_for("receiver.example", tmp_path)
        context = context_of(pem)
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        async with serving(context) as (port, _):
            outcome = await post(f"https://receiver.example:{port}/", pem)

        # Some libraries of the system hang up on it before it can say a word.
        assert outcome.error in {"tls", "connect"}

    async def test_one_that_is_never_answered_ends_with_the_time_limit_and_leaves_no_connection(self) -> None:
        closed = asyncio.Event()

        async def swallow(reader: StreamReader, writer: StreamWriter) -> None:
            await reader.read()
            closed.set()
            writer.close()

        server = await asyncio.start_server(swallow, "127.0.0.1", 0)
        async with server:
            outcome = await post(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/", None, 0.3)
            await asyncio.wait_for(closed.wait(), 30)

        assert outcome.error == "timeout"

    async def test_one_that_is_hung_up_on_is_no_connection(self) -> None:
        async def hang_up(reader: StreamReader, writer: StreamWriter) -> None:
            writer.transport.abort()

        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        async with server:
            outcome = await post(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/", None)

        assert outcome.error in {"connect", "tls"}


class TestEnd:
    async def test_an_answer_that_is_cut_short_is_reset(self, tmp_path: Path) -> None:
        pem = certificate_for("receiver.example", tmp_path)
        short = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok"
        async with serving(context_of(pem), short, hangs_up=True) as (port, seen):
            outcome = await post(f"https://receiver.example:{port}/", pem)

        assert (outcome.error, outcome.status, seen.requests) == ("reset", None, 1)

    async def test_a_large_request_and_a_large_answer_pass(self, tmp_path: Path) -> None:
        pem = certificate_for("receiver.example", tmp_path)
        answer = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"4000\r\n" + b"y" * 0x4000 + b"\r\n0\r\n\r\n"
        )
        async with serving(context_of(pem), answer) as (port, seen), sender(pem) as one:
            for _ in range(2):
                request = outgoing(f"https://receiver.example:{port}/", body=b"x" * (2 << 20), timeout_s=60)
                outcome = await one.post(request)
                assert (outcome.error, outcome.body) == (None, "y" * 2048)

        assert seen.requests == 2


class TestTunnel:
    @pytest.fixture
    async def proxy(self) -> AsyncIterator[EgressProxy]:
        async with egress_proxy() as proxy:
            yield proxy

    async def test_requests_share_it_and_another_receiver_has_its_own(self, proxy: EgressProxy, tmp_path: Path) -> None:
        pem = certificate_for("receiver.example", tmp_path)
        async with serving(context_of(pem)) as (port, seen):
            proxy.leads_to["receiver.example"] = ("127.0.0.1", port)
            async with sender(pem, guard=TargetGuard(), egress_proxy=proxy.url) as one:
                outcomes = [await one.post(outgoing("https://receiver.example/")) for _ in range(3)]

        assert [outcome.error for outcome in outcomes] == [None] * 3
        assert proxy.asked == [("CONNECT", "receiver.example:443")]
        assert seen.names == ["receiver.example"]

    async def test_the_proxy_cannot_pass_itself_off_as_the_receiver(self, proxy: EgressProxy, tmp_path: Path) -> None:
        pem = certificate_for("receiver.example", tmp_path)
        async with serving(context_of(pem)) as (port, seen):
            proxy.leads_to["other.example"] = ("127.0.0.1", port)
            async with sender(pem, guard=TargetGuard(), egress_proxy=proxy.url) as one:
                outcome = await one.post(outgoing("https://other.example/"))

        assert (outcome.error, seen.requests) == ("tls", 0)

    @pytest.mark.parametrize(
        ("said", "errors"),
        [
            (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", {"connect"}),
            (b"HTTP/1.1 204 No Content\r\n\r\n", {"connect"}),
            (b"SSH-2.0-proxy\r\n", {"reset"}),
            (b"", {"reset"}),
            # By when the end of the connection is noticed.
            (b"HTTP/1.1 200 OK\r\n\r\nno TLS", {"connect", "reset"}),
        ],
    )
    async def test_what_is_no_tunnel_is_not_taken_for_one(self, said: bytes, errors: set[str]) -> None:
        async def say(reader: StreamReader, writer: StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(say, "127.0.0.1", 0)
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with sender(None, guard=TargetGuard(), egress_proxy=url) as one:
                outcome = await one.post(outgoing("https://receiver.example/"))

        assert outcome.error in errors
        assert outcome.status is None

    async def test_tls_goes_through_a_proxy_that_is_spoken_to_in_tls(
        self, proxy: EgressProxy, tmp_path: Path, authority: Authority
    ) -> None:
        pem, roots = certificate_for("receiver.example", tmp_path), tmp_path / "roots.pem"
        roots.write_bytes(pem.read_bytes() + authority.file.read_bytes())
        secure_proxy = await asyncio.start_server(
            proxy.serve, "127.0.0.1", 0, ssl=context_of(*authority.issue("proxy"))
        )
        url = proxy.url.replace("http:", "https:").rpartition(":")[0]
        async with secure_proxy, serving(context_of(pem)) as (port, seen):
            proxy.leads_to["receiver.example"] = ("127.0.0.1", port)
            url = f"{url}:{secure_proxy.sockets[0].getsockname()[1]}"
            async with sender(roots, guard=TargetGuard(), egress_proxy=url) as one:
                outcomes = [await one.post(outgoing("https://receiver.example/")) for _ in range(2)]

        assert [outcome.error for outcome in outcomes] == [None] * 2
        assert proxy.asked == [("CONNECT", "receiver.example:443")]
        assert seen.names == ["receiver.example"]
