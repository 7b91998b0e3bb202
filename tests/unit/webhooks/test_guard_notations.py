"""Addresses in every notation: whatever a platform, a library or a tunnel takes for a denied one is refused."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.webhooks.errors import ForbiddenTarget, InvalidField, InvalidUrl
from app.webhooks.guard import DENIED_NETWORKS, TargetGuard

GUARD = TargetGuard()
DENIED_V4 = [network for network in DENIED_NETWORKS if network.version == 4]
PUBLIC = [IPv4Address(one) for one in ("8.8.8.8", "93.184.215.14", "1.1.1.1", "172.32.0.1")]

denied = st.sampled_from(DENIED_V4).flatmap(
    lambda network: st.integers(int(network[0]), int(network[-1])).map(IPv4Address)
)
# First bytes below which nothing is denied.
_PUBLIC_FIRST = sorted(set(range(1, 224)) - {10, 100, 127, 168, 169, 172, 192, 198, 203})
public = st.tuples(st.sampled_from(_PUBLIC_FIRST), st.binary(min_size=3, max_size=3)).map(
    lambda parts: IPv4Address(bytes([parts[0]]) + parts[1])
)


@st.composite
def notations(draw: st.DrawFn, addresses: st.SearchStrategy[IPv4Address]) -> tuple[IPv4Address, str]:
    """An address, and one of the ways in which `inet_aton` reads it."""
    address = draw(addresses)
    count = draw(st.integers(1, 4))
    octets, rest = list(address.packed[: count - 1]), int.from_bytes(address.packed[count - 1 :], "big")
    forms = (str, hex, "0X{:X}".format, "0{:o}".format, "0x000{:x}".format, "000{:o}".format)
    parts = [draw(st.sampled_from(forms))(part) for part in (*octets, rest)]
    return address, ".".join(parts)


def in_other_characters(text: str, digits: int, dot: str) -> str:
    """With the digits of another block, which host names are mapped back from."""
    return "".join(chr(digits + int(one)) if one.isdigit() else dot if one == "." else one for one in text)


def embeddings(address: IPv4Address) -> dict[str, IPv6Address]:
    """IPv6 addresses with which a tunnel, a translator or a socket reaches an IPv4 address."""
    v4, low = int(address), IPv6Address
    return {
        "mapped": low(0xFFFF << 32 | v4),
        "compatible": low(v4),
        "translated": low(0xFFFF << 48 | v4),
        "nat64": low(0x64FF9B << 96 | v4),
        "nat64 local": low(0x64FF9B0001 << 80 | v4),
        "6to4": low(0x2002 << 112 | v4 << 80 | 1),
        "teredo client": low(0x20010000 << 96 | 0x08080808 << 64 | (v4 ^ 0xFFFFFFFF)),
        "teredo server": low(0x20010000 << 96 | v4 << 64),
        "isatap": low(0x260647000000AAAA << 64 | 0x00005EFE << 32 | v4),
        "isatap global": low(0x260647000000AAAA << 64 | 0x02005EFE << 32 | v4),
        "isatap link-local": low(0xFE80 << 112 | 0x5EFE << 32 | v4),
    }


class TestIPv4:
    @given(notations(denied), st.booleans(), st.sampled_from(["", ".", ":8443"]))
    def test_a_denied_address_is_refused_however_inet_aton_reads_it(
        self, written: tuple[IPv4Address, str], upper: bool, end: str
    ) -> None:
        address, text = written
        assert socket.inet_aton(text) == address.packed
        with pytest.raises(ForbiddenTarget):
            GUARD.parse(f"https://{text.upper() if upper else text}{end}/")

    @given(notations(public))
    def test_a_public_address_passes_in_the_usual_notation_and_in_no_other(
        self, written: tuple[IPv4Address, str]
    ) -> None:
        address, text = written
        GUARD.parse(f"https://{address}/")
        if text != str(address):
            with pytest.raises(InvalidUrl):
                GUARD.parse(f"https://{text}/")

    @given(
        notations(denied),
        # Full width, mathematical bold, double-struck, sans-serif, monospace.
        st.sampled_from([0xFF10, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7F6]),
        st.sampled_from([".", "\u3002", "\uff0e", "\uff61"]),
    )
    def test_a_denied_address_is_refused_in_digits_and_dots_of_other_blocks(
        self, written: tuple[IPv4Address, str], digits: int, dot: str
    ) -> None:
        with pytest.raises(InvalidField):
            GUARD.parse(f"https://{in_other_characters(written[1], digits, dot)}/")

    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1..",
            ".127.0.0.1",
            "127..0.0.1",
            "127.0.0.1.example.1",
            "127.0.0.08",
            "4294967296",
            "0x1ffffffff",
            "00000000000000000177.1",
            "127.0.0.256",
            "127.0.0.-1",
            "+127.0.0.1",
            "127.0.0.1%00",
            "%31%32%37.0.0.1",
            "127%2e0.0.1",
            "\u2460\u2461\u2466.0.0.1",
            "\u00b9\u00b2\u2077.0.0.1",
            "0\u0445" + "7f.0.0.1",
            "[127.0.0.1]",
            "[::ffff:0x7f.1]",
            "[v1.127.0.0.1]",
            "[::1%25lo]",
            "[fe80::1%eth0]",
            "[::1",
        ],
    )
    def test_what_is_no_address_of_any_kind_is_no_host_either(self, host: str) -> None:
        with pytest.raises(InvalidField):
            GUARD.parse(f"https://{host}/")


class TestIPv6:
    @given(denied, st.sampled_from(sorted(embeddings(PUBLIC[0]))), st.sampled_from(["", "%eth0", "%1"]))
    def test_a_denied_ipv4_address_is_refused_in_every_embedding_and_zone(
        self, address: IPv4Address, kind: str, zone: str
    ) -> None:
        embedded = embeddings(address)[kind]
        with pytest.raises(ForbiddenTarget):
            GUARD.admit(f"{embedded}{zone}")
        with pytest.raises(ForbiddenTarget):
            GUARD.parse(f"https://[{embedded}]/")
        with pytest.raises(ForbiddenTarget):
            GUARD.parse(f"https://[{embedded.exploded.upper()}]/")

    @pytest.mark.parametrize("address", PUBLIC, ids=str)
    @pytest.mark.parametrize("kind", ["mapped", "nat64", "isatap", "isatap global"])
    def test_a_public_one_passes_in_those_that_the_contract_unwraps(self, address: IPv4Address, kind: str) -> None:
        GUARD.admit(str(embeddings(address)[kind]))

    @pytest.mark.parametrize("kind", ["compatible", "translated", "nat64 local", "6to4", "teredo client"])
    def test_even_a_public_one_is_refused_in_the_others(self, kind: str) -> None:
        with pytest.raises(ForbiddenTarget):
            GUARD.admit(str(embeddings(PUBLIC[0])[kind]))

    @pytest.mark.parametrize("kind", ["6to4", "teredo client", "teredo server", "isatap"])
    def test_an_allowed_tunnel_does_not_allow_what_it_leads_to(self, kind: str) -> None:
        guard = TargetGuard(["2002::/16", "2001::/32", "2606:4700::/32"])
        with pytest.raises(ForbiddenTarget):
            guard.admit(str(embeddings(IPv4Address("10.0.0.1"))[kind]))

    @given(st.integers(0, (1 << 128) - 1).map(IPv6Address))
    def test_text_form_and_host_of_a_url_have_one_verdict(self, address: IPv6Address) -> None:
        verdicts = []
        for ask in (lambda: GUARD.admit(str(address)), lambda: GUARD.parse(f"https://[{address.exploded}]/")):
            try:
                ask()
                verdicts.append(True)
            except ForbiddenTarget:
                verdicts.append(False)
        assert verdicts[0] == verdicts[1]
        assert ip_address(str(address)) == address
