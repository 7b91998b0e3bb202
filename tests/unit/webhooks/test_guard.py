from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence

import pytest

from app.webhooks.errors import ForbiddenTarget, InsecureUrl, InvalidUrl
from app.webhooks.guard import DENIED_NETWORKS, TargetGuard, resolve_by_system
from app.webhooks.http import Dialler, NotConnected, Origin

GUARD = TargetGuard()

# The list of contracts 2, to the letter, and an address of each of its networks.
CONTRACT = """
    0/8 10/8 100.64/10 127/8 169.254/16 172.16/12 192.0.0/24 192.0.2/24 192.88.99/24 192.168/16 198.18/15
    198.51.100/24 203.0.113/24 224/4 240/4 168.63.129.16 ::/8 64:ff9b:1::/48 100::/64 2001::/23 2001:db8::/32
    2002::/16 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8
"""


def written_out(network: str) -> str:
    address, _, bits = network.partition("/")
    if ":" not in address:
        address += ".0" * (3 - address.count("."))
    return f"{address}/{bits or 32}"


def answering(*addresses: str):  # type: ignore[no-untyped-def] # noqa: ANN201 - a resolver, typed where it is used
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


async def unasked(host: str, port: int) -> Sequence[str]:
    raise AssertionError(f"asked for {host}")


class TestDenyList:
    def test_it_is_that_of_the_contract(self) -> None:
        assert [str(network) for network in DENIED_NETWORKS] == [written_out(one) for one in CONTRACT.split()]

    @pytest.mark.parametrize("network", DENIED_NETWORKS, ids=str)
    def test_the_first_and_the_last_address_of_each_network_are_denied(self, network) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001 - either family
        for address in (network[0], network[-1]):
            with pytest.raises(ForbiddenTarget):
                GUARD.admit(str(address))

    @pytest.mark.parametrize(
        "address",
        [
            "::ffff:127.0.0.1",
            "::ffff:a9fe:a9fe",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2002:808:808::",
            "::127.0.0.1",
            "fe80::1%eth0",
            "255.255.255.255",
            "fd00:ec2::254",
            "not an address",
            "",
        ],
    )
    def test_disguised_and_unreadable_addresses_are_denied(self, address: str) -> None:
        with pytest.raises(ForbiddenTarget):
            GUARD.admit(address)

    @pytest.mark.parametrize(
        "address",
        ["8.8.8.8", "172.32.0.1", "100.128.0.1", "168.63.129.17", "192.0.1.1", "2606:4700::1111", "::ffff:8.8.8.8",
         "64:ff9b::8.8.8.8", "2001:4860:4860::8888"],
    )  # fmt: skip
    def test_public_addresses_pass_in_any_form(self, address: str) -> None:
        GUARD.admit(address)

    def test_the_error_is_an_os_error_and_names_no_address(self) -> None:
        with pytest.raises(OSError, match="may not reach") as refused:
            GUARD.admit("10.1.2.3")

        assert isinstance(refused.value, ForbiddenTarget)
        assert "10.1.2.3" not in str(refused.value)


class TestAllowList:
    def test_a_cidr_and_an_address_are_exceptions(self) -> None:
        guard = TargetGuard(["127.0.0.0/8", "10.0.0.7", "::1"])

        for address in ("127.0.0.1", "10.0.0.7", "::1", "::ffff:127.0.0.1"):
            guard.admit(address)
        with pytest.raises(ForbiddenTarget):
            guard.admit("10.0.0.8")

    def test_a_host_is_an_exception_for_requests_to_that_name_only(self) -> None:
        guard = TargetGuard(["Receiver.internal."])

        guard.admit("10.0.0.7", "receiver.internal")
        with pytest.raises(ForbiddenTarget):
            guard.admit("10.0.0.7", "evil.example")

    def test_6to4_stays_denied_for_what_it_embeds(self) -> None:
        with pytest.raises(ForbiddenTarget):
            TargetGuard(["2002::/16"]).admit("2002:7f00:1::")

    @pytest.mark.parametrize("entry", ["", "10.0.0.1/8", "300.1.1.1", "*.internal", "https://host", "a b"])
    def test_a_bad_entry_is_refused_by_name(self, entry: str) -> None:
        with pytest.raises(ValueError, match="allowed target") as refused:
            TargetGuard([entry])

        assert repr(entry) in str(refused.value)

    def test_one_more_host_leaves_the_rest_as_it_was(self) -> None:
        guard = TargetGuard(["10.0.0.7"], allow_http=True).with_host("proxy.internal")

        guard.admit("10.0.0.7")
        guard.admit("10.9.9.9", "proxy.internal")
        guard.parse("http://example.com/")


class TestUrl:
    @pytest.mark.parametrize(
        "url",
        ["https://example.com/hook?token=%2B", "https://example.com:8443/", "https://bücher.example/", "https://8.8.8.8/",
         "https://[2606:4700::1111]/", "https://under_score.example./", "HTTPS://EXAMPLE.com"],
    )  # fmt: skip
    def test_a_plain_https_url_passes(self, url: str) -> None:
        GUARD.parse(url)

    def test_what_is_requested_is_what_was_registered(self) -> None:
        assert str(GUARD.parse("https://example.com/a%2Fb?token=%2B")) == "https://example.com/a%2Fb?token=%2B"

    @pytest.mark.parametrize("url", ["http://example.com/", "ftp://example.com/", "ws://example.com/"])
    def test_anything_but_https_is_insecure(self, url: str) -> None:
        with pytest.raises(InsecureUrl) as refused:
            GUARD.parse(url)

        assert refused.value.field == "/url"

    def test_http_is_refused_with_the_setting_that_allows_it(self) -> None:
        with pytest.raises(InsecureUrl, match="must be https; WEBHOOKS__ALLOW_HTTP can allow http"):
            GUARD.parse("http://example.com/")

    def test_what_is_not_http_at_all_is_said_so(self) -> None:
        with pytest.raises(InsecureUrl, match="must begin with https://"):
            TargetGuard(allow_http=True).parse("ftp://example.com/")

    def test_http_passes_where_the_settings_allow_it(self) -> None:
        TargetGuard(allow_http=True).parse("http://example.com/")

    @pytest.mark.parametrize(
        ("url", "complaint"),
        [
            ("", "absolute"),
            ("example.com/hook", "absolute"),
            ("/hook", "absolute"),
            ("https:///hook", "absolute"),
            ("https://", "absolute"),
            ("https://user:pw@example.com/", "no user name"),
            ("https://user@example.com/", "no user name"),
            ("https://@example.com/", "no user name"),
            ("https://example.com/#part", "no fragment"),
            ("https://example.com/#", "no fragment"),
            ("https://example.com:0/", "port 0"),
            ("https://example.com:70000/", "does not parse"),
            ("https://[::1/", "does not parse"),
            ("https://[2606::1%25eth0]/", "no zone"),
            ("https://exa mple.com/", "white space"),
            ("https://example.com/\r\nX: 1", "white space"),
            ("https://example.com\\@evil.example/", "backslash"),
            ("https://-example.com/", "host name"),
            ("https://exa$mple.com/", "host name"),
            ("https://1.2.3.4.5/", "no IPv4 address"),
            ("https://example.com/" + "a" * 2029, "at most 2048 characters, has 2049"),
        ],
    )
    def test_a_bad_one_is_refused_with_the_reason_and_without_being_shown(self, url: str, complaint: str) -> None:
        with pytest.raises(InvalidUrl, match=complaint) as refused:
            GUARD.parse(url)

        assert refused.value.field == "/url"
        assert "pw" not in str(refused.value)

    def test_2048_characters_pass(self) -> None:
        GUARD.parse("https://example.com/" + "a" * 2028)

    @pytest.mark.parametrize(
        "host",
        ["127.0.0.1", "127.0.0.1.", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "0x7f.1", "2130706433",
         "0177.0.0.1", "0x7f000001", "127.1", "\uff11\uff12\uff17.0.0.1"],
    )  # fmt: skip
    def test_a_forbidden_address_is_refused_in_every_notation(self, host: str) -> None:
        with pytest.raises(ForbiddenTarget):
            GUARD.parse(f"https://{host}/")

    @pytest.mark.parametrize("host", ["0x8.0x8.0x8.0x8", "134744072", "8.8.2056"])
    def test_a_public_address_must_be_written_in_the_usual_way(self, host: str) -> None:
        with pytest.raises(InvalidUrl, match=r"8\.8\.8\.8"):
            GUARD.parse(f"https://{host}/")


class TestRegistration:
    async def test_a_host_with_public_addresses_passes(self) -> None:
        await GUARD.check("https://example.com/", answering("93.184.216.34", "2606:2800::1"))

    async def test_one_denied_address_among_others_is_enough_to_refuse(self) -> None:
        with pytest.raises(ForbiddenTarget):
            await GUARD.check("https://example.com/", answering("93.184.216.34", "10.0.0.1"))

    async def test_a_host_that_does_not_resolve_passes_because_each_connect_is_checked(self) -> None:
        async def unknown(host: str, port: int) -> Sequence[str]:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")

        await GUARD.check("https://example.com/", unknown)

    async def test_an_address_and_an_allowed_host_need_no_answer(self) -> None:
        await TargetGuard(["receiver.internal"]).check("https://receiver.internal/", unasked)
        await GUARD.check("https://8.8.8.8/", unasked)

    async def test_a_bad_url_is_refused_before_anything_is_asked(self) -> None:
        with pytest.raises(InsecureUrl):
            await GUARD.check("http://example.com/", unasked)

    async def test_the_systems_resolver_finds_loopback(self) -> None:
        addresses = await resolve_by_system("localhost", 443)

        assert {"127.0.0.1", "::1"} & set(addresses)
        with pytest.raises(ForbiddenTarget):
            await GUARD.check("https://localhost/", resolve_by_system)


class TestConnect:
    """At a listener on loopback, which counts the connections that it gets."""

    async def dial(self, guard: TargetGuard, host: str) -> tuple[int, BaseException | None]:
        accepted = 0

        async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal accepted
            accepted += 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        dialler = Dialler(guard.admit, tls=ssl.create_default_context(), proxy=None, resolve=resolve_by_system)
        failure: BaseException | None = None
        async with server:
            try:
                connection = await dialler.dial(Origin(secure=False, host=host, port=port))
                await connection.exchange(b"POST / HTTP/1.1\r\n\r\n", 5)
                connection.abort()
                await connection.gone
            except NotConnected as error:
                failure = error.__cause__
            await dialler.close()
        return accepted, failure

    @pytest.mark.parametrize(
        "host", ["127.0.0.1", "localhost", "::ffff:127.0.0.1", "0x7f.1", "127.1", "0177.0.0.1", "2130706433"]
    )
    async def test_loopback_is_not_dialled_by_name_nor_by_address_in_any_notation(self, host: str) -> None:
        accepted, failure = await self.dial(GUARD, host)

        assert accepted == 0
        assert isinstance(failure, ForbiddenTarget)

    @pytest.mark.parametrize(
        ("allowed", "host"),
        [("127.0.0.0/8", "127.0.0.1"), ("127.0.0.1", "localhost"), ("localhost", "localhost")],
    )
    async def test_an_exception_lets_it_be_dialled(self, allowed: str, host: str) -> None:
        assert await self.dial(TargetGuard([allowed, "::1"]), host) == (1, None)

    async def test_an_allowed_host_does_not_allow_its_address_under_another_name(self) -> None:
        accepted, failure = await self.dial(TargetGuard(["localhost"]), "127.0.0.1")

        assert accepted == 0
        assert isinstance(failure, ForbiddenTarget)
