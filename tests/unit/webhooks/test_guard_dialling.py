"""What is really dialled, with names that a DNS server on loopback gives and a proxy that listens there."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from app.webhooks.errors import ForbiddenTarget
from app.webhooks.guard import TargetGuard, resolve_by_system
from app.webhooks.http import dialling
from app.webhooks.sender import NO_PROXY
from tests.support.certificates import certificate_for
from tests.support.egress import EgressProxy, egress_proxy
from tests.support.name_server import NameServer, StubResolver, name_server
from tests.support.sending import answering, outgoing, receiver, sender

INSIDE, OUTSIDE = "127.0.0.66", "127.0.0.99"
"""Both of this machine; the guard of these tests takes only the second one for public."""
GUARD = TargetGuard([OUTSIDE, "93.184.215.14"], allow_http=True)


class Listener:
    """Answers 204 at one address, and counts the connections to it."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


class Refuses(asyncio.Protocol):
    """A proxy that has one answer for all."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.answer)
        self.transport.close()


@pytest.fixture
async def inside_and_outside() -> AsyncIterator[tuple[Listener, Listener]]:
    """Two listeners with one port."""
    inside, outside = Listener(), Listener()
    first = await asyncio.start_server(inside.accept, INSIDE, 0)
    inside.port = outside.port = first.sockets[0].getsockname()[1]
    second = await asyncio.start_server(outside.accept, OUTSIDE, outside.port)
    async with first, second:
        yield inside, outside


@pytest.fixture
async def names() -> AsyncIterator[tuple[NameServer, StubResolver]]:
    async with name_server() as served:
        yield served


class TestNames:
    async def test_one_that_leads_elsewhere_after_its_registration_is_not_followed_inside(
        self, names: tuple[NameServer, StubResolver], inside_and_outside: tuple[Listener, Listener]
    ) -> None:
        (server, resolver), (inside, outside) = names, inside_and_outside
        url = f"http://rebinding.example:{inside.port}/"
        server.names["rebinding.example"] = [OUTSIDE]
        await GUARD.check(url, resolver.addresses)
        server.names["rebinding.example"] = [INSIDE]
        async with sender(GUARD, resolver=resolver) as one:
            outcome = await one.post(outgoing(url))

        assert outcome.error == "forbidden_target"
        assert (inside.connections, outside.connections) == (0, 0)
        assert server.asked["rebinding.example"] == 4, "it was resolved twice, in both families"

    @pytest.mark.parametrize("inside_first", [True, False])
    async def test_one_with_a_good_and_a_bad_address_is_refused_and_the_bad_one_never_dialled(
        self,
        names: tuple[NameServer, StubResolver],
        inside_and_outside: tuple[Listener, Listener],
        inside_first: bool,
    ) -> None:
        (server, resolver), (inside, outside) = names, inside_and_outside
        url = f"http://both.example:{inside.port}/"
        server.names["both.example"] = [INSIDE, OUTSIDE] if inside_first else [OUTSIDE, INSIDE]
        with pytest.raises(ForbiddenTarget):
            await GUARD.check(url, resolver.addresses)
        async with sender(GUARD, resolver=resolver) as one:
            for _ in range(3):
                await one.post(outgoing(url))

        assert inside.connections == 0
        assert outside.connections == 3

    async def test_one_whose_good_address_refuses_does_not_fall_back_to_the_bad_one(
        self, names: tuple[NameServer, StubResolver]
    ) -> None:
        server, resolver = names
        inside = Listener()
        async with await asyncio.start_server(inside.accept, INSIDE, 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            server.names["both.example"] = [OUTSIDE, INSIDE]
            async with sender(GUARD, resolver=resolver) as one:
                outcome = await one.post(outgoing(f"http://both.example:{port}/"))

        assert outcome.error in {"connect", "forbidden_target"}
        assert inside.connections == 0

    @pytest.mark.parametrize(
        "address", ["::1", "fd00:ec2::254", "64:ff9b::7f00:1", "::ffff:127.0.0.1", "2002:7f00:1::"]
    )
    async def test_one_with_a_denied_ipv6_address_is_refused_at_both_checks(
        self, names: tuple[NameServer, StubResolver], address: str
    ) -> None:
        server, resolver = names
        server.names["six.example"] = [address]
        with pytest.raises(ForbiddenTarget):
            await GUARD.check("http://six.example/", resolver.addresses)
        async with sender(GUARD, resolver=resolver) as one:
            outcome = await one.post(outgoing("http://six.example/"))

        assert outcome.error == "forbidden_target"

    async def test_one_that_is_unknown_at_registration_and_inside_later_is_not_reached(
        self, names: tuple[NameServer, StubResolver], inside_and_outside: tuple[Listener, Listener]
    ) -> None:
        (server, resolver), (inside, _) = names, inside_and_outside
        url = f"http://later.example:{inside.port}/"
        await GUARD.check(url, resolver.addresses)
        server.names["later.example"] = [INSIDE]
        async with sender(GUARD, resolver=resolver) as one:
            outcome = await one.post(outgoing(url))

        assert (outcome.error, inside.connections) == ("forbidden_target", 0)

    @pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "localhost."])
    async def test_the_machines_own_ones_are_refused_at_registration(self, name: str) -> None:
        with pytest.raises(ForbiddenTarget):
            await TargetGuard().check(f"https://{name}/", resolve_by_system)

    async def test_an_allowed_one_may_lead_inside_and_nothing_else_may(
        self, names: tuple[NameServer, StubResolver], inside_and_outside: tuple[Listener, Listener]
    ) -> None:
        (server, resolver), (inside, _) = names, inside_and_outside
        server.names |= {"ours.example": [INSIDE], "theirs.example": [INSIDE]}
        guard = TargetGuard(["ours.example"], allow_http=True)
        async with sender(guard, resolver=resolver) as one:
            ours = await one.post(outgoing(f"http://ours.example:{inside.port}/"))
            theirs = await one.post(outgoing(f"http://theirs.example:{inside.port}/"))

        assert (ours.error, theirs.error) == (None, "forbidden_target")
        assert inside.connections == 1


class TestRedirects:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_an_address_inside_is_not_followed_from_an_answer(
        self, status: int, inside_and_outside: tuple[Listener, Listener]
    ) -> None:
        inside, _ = inside_and_outside
        location = f"http://{INSIDE}:{inside.port}/latest/meta-data"
        async with receiver(answering(status, headers={"Location": location})) as url, sender() as one:
            outcome = await one.post(outgoing(url))

        assert (outcome.error, inside.connections) == (f"status_{status}", 0)


class TestEgressProxy:
    @pytest.fixture
    async def proxy(self) -> AsyncIterator[EgressProxy]:
        async with egress_proxy() as proxy:
            yield proxy

    async def test_https_goes_through_a_tunnel_and_only_the_proxy_is_dialled(
        self, proxy: EgressProxy, tmp_path: Path
    ) -> None:
        pem = certificate_for("target.example", tmp_path)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(pem)
        seen: list[dict[str, str]] = []

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            seen.append({name.lower(): value for name, value in request.headers.items()})
            return web.Response(status=204)

        async with receiver(answer, tls) as url:
            port = int(url.rpartition(":")[2].partition("/")[0])
            proxy.leads_to["target.example"] = ("127.0.0.1", port)
            async with sender(TargetGuard(), egress_proxy=proxy.url, extra_ca_file=pem) as one:
                outcome = await one.post(outgoing(f"https://target.example:{port}/hook"))

        assert outcome.delivered
        assert proxy.asked == [("CONNECT", f"target.example:{port}")]
        assert not [name for name in seen[0] if name.startswith("proxy-")], "the receiver gets no credentials of ours"
        assert seen[0]["host"] == f"target.example:{port}"

    async def test_http_is_asked_of_it_with_the_whole_url(self, proxy: EgressProxy) -> None:
        async with receiver(answering(204)) as url:
            port = int(url.rpartition(":")[2].partition("/")[0])
            proxy.leads_to["target.example"] = ("127.0.0.1", port)
            async with sender(TargetGuard(allow_http=True), egress_proxy=proxy.url) as one:
                outcome = await one.post(outgoing("http://target.example/hook?a=1"))

        assert outcome.delivered
        assert proxy.asked == [("POST", "http://target.example/hook?a=1")]

    @pytest.mark.parametrize("host", ["169.254.169.254", "[::1]", "127.0.0.1", "0x7f.1", "[64:ff9b::7f00:1]"])
    async def test_an_address_on_the_deny_list_is_not_even_asked_of_it(self, proxy: EgressProxy, host: str) -> None:
        async with sender(TargetGuard(allow_http=True), egress_proxy=proxy.url) as one:
            outcomes = [await one.post(outgoing(f"{scheme}://{host}/")) for scheme in ("http", "https")]

        assert [one.error for one in outcomes] == ["forbidden_target"] * 2
        assert (proxy.asked, proxy.refused) == ([], 0)

    async def test_the_host_of_the_proxy_is_no_target_for_that(
        self, proxy: EgressProxy, names: tuple[NameServer, StubResolver]
    ) -> None:
        server, resolver = names
        server.names["inside.example"] = ["127.0.0.1"]
        with pytest.raises(ForbiddenTarget):
            await TargetGuard().check("https://inside.example/", resolver.addresses)
        async with sender(TargetGuard(), egress_proxy=proxy.url) as one:
            outcome = await one.post(outgoing("https://127.0.0.1/"))

        assert outcome.error == "forbidden_target"

    @pytest.mark.parametrize("scheme", ["http", "https"])
    async def test_one_that_is_not_there_is_not_the_receivers_fault_and_is_said_once(
        self, scheme: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://user:pass-4711@127.0.0.1:{unused.getsockname()[1]}"
            async with sender(TargetGuard(allow_http=True), egress_proxy=url) as one:
                outcomes = [await one.post(outgoing(f"{scheme}://target.example/")) for _ in range(3)]

        assert [(outcome.error, outcome.status) for outcome in outcomes] == [(NO_PROXY, None)] * 3
        (line,) = [one.getMessage() for one in caplog.records if "do not get past" in one.getMessage()]
        assert "no connection to the proxy" in line
        assert "pass-4711" not in line

    async def test_one_that_no_name_leads_to_is_not_the_receivers_fault(
        self, names: tuple[NameServer, StubResolver]
    ) -> None:
        async with sender(TargetGuard(), egress_proxy="http://gone.example:3128", resolver=names[1]) as one:
            outcome = await one.post(outgoing("https://target.example/"))

        assert outcome.error == NO_PROXY

    async def test_one_whose_certificate_is_unknown_is_not_the_receivers_fault(
        self, proxy: EgressProxy, tmp_path: Path
    ) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate_for("127.0.0.1", tmp_path))
        secure = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=tls)
        async with secure:
            url = f"https://127.0.0.1:{secure.sockets[0].getsockname()[1]}"
            async with sender(TargetGuard(), egress_proxy=url) as one:
                outcome = await one.post(outgoing("https://target.example/"))

        assert outcome.error == NO_PROXY

    async def test_one_that_takes_too_long_to_connect_to_is_not_the_receivers_fault(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dialling, "_PROXY_S", 0.05)
        # It speaks no TLS, so that the connection to it is never ready.
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        async with server:
            url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with sender(TargetGuard(), egress_proxy=url) as one:
                outcome = await one.post(outgoing("https://target.example/"))

        assert outcome.error == NO_PROXY

    async def test_one_that_does_not_take_our_credentials_is_not_the_receivers_fault(self, proxy: EgressProxy) -> None:
        without = "http://" + proxy.url.partition("@")[2]
        async with sender(TargetGuard(), egress_proxy=without) as one:
            outcome = await one.post(outgoing("https://target.example/"))

        assert (outcome.error, outcome.status, proxy.refused) == (NO_PROXY, None, 1)

    @pytest.mark.parametrize("status", [403, 500, 502, 503, 504])
    async def test_a_tunnel_that_it_refuses_to_this_host_is_connect(self, status: int) -> None:
        answer = b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status
        server = await asyncio.get_running_loop().create_server(lambda: Refuses(answer), "127.0.0.1", 0)
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with sender(TargetGuard(), egress_proxy=url) as one:
                outcome = await one.post(outgoing("https://target.example/"))

        assert (outcome.error, outcome.status) == ("connect", None)

    async def test_the_start_says_that_the_proxy_must_enforce_the_deny_list_and_not_its_password(
        self, proxy: EgressProxy, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with sender(TargetGuard(), egress_proxy=proxy.url):
            pass

        (line,) = [one.getMessage() for one in caplog.records]
        assert "must enforce the deny list" in line
        assert "@" not in line
