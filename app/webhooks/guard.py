"""Which targets a webhook may have (contracts 2, Registration and Deny list).

Twice: at registration on the URL and on what its host resolves to, for fast feedback; and at each connect on the
address that is really dialled, which is what counts, because a name may resolve to something else by then. The second
check is made where a socket comes about (app.webhooks.http.dialling): a resolver is not asked about addresses written
in a URL.
"""

from __future__ import annotations

import asyncio
import re
import socket
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import urlsplit

from yarl import URL

from app.webhooks.errors import ForbiddenTarget, InsecureUrl, InvalidUrl

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from ipaddress import IPv4Network

    # Asked for the addresses of a host and port; raises OSError when there are none.
    Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

MAX_URL_CHARS: Final = 2048
RESOLVE_TIMEOUT_S: Final = 5.0
URLS_KEPT: Final = 4096

# ``ipaddress.is_global`` is not used: on Python 3.11 it takes several of these for public ones.
DENIED_NETWORKS: Final[tuple[IPv4Network | IPv6Network, ...]] = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "168.63.129.16/32",
        "::/8",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
_V4_MASK: Final = 0xFFFF_FFFF
# Interface ids of RFC 5214 (private, global), below any prefix; a tunnel end takes the last four bytes as its target.
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})

_FORBIDDEN: Final = "the target is an address that webhooks may not reach; WEBHOOKS__ALLOW_TARGETS can allow it"
# Parsers disagree about these, and a URL must mean one host to all of them.
_UNSAFE_IN_URL: Final = re.compile(r"[\x00-\x20\x7f-\x9f\\\s]")
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*", re.ASCII)
_NUMBER_LABEL: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


class TargetGuard:
    """The rule for targets: the deny list, and the exceptions that settings make to it."""

    __slots__ = ("_allow_http", "_allow_targets", "_checked", "_hosts", "_networks")

    def __init__(self, allow_targets: Sequence[str] = (), *, allow_http: bool = False) -> None:
        """Read the exceptions.

        Args:
            allow_targets: CIDRs, addresses and host names (``WEBHOOKS__ALLOW_TARGETS``). A host name allows whatever
                it resolves to, to requests for that very name.
            allow_http: whether ``http`` URLs may be registered.

        Raises:
            ValueError: an entry is neither; the message names it.
        """
        self._allow_http = allow_http
        self._allow_targets = tuple(allow_targets)
        # The same URL is asked about at each attempt.
        self._checked = lru_cache(URLS_KEPT)(self._check_url)
        self._hosts: set[str] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        for entry in allow_targets:
            try:
                self._networks.append(ip_network(entry.strip("[]")))
            except ValueError:
                host = entry.lower().rstrip(".")
                if not _HOST_NAME.fullmatch(host) or _ends_in_number(host):
                    raise ValueError(f"allowed target {entry!r}: write a CIDR (10.0.0.0/8) or a host name") from None
                self._hosts.add(host)

    def with_host(self, host: str) -> TargetGuard:
        """The same rule with one more host, name or address: the egress proxy, which is what is dialled then."""
        return TargetGuard((*self._allow_targets, host), allow_http=self._allow_http)

    def parse(self, url: str) -> URL:
        """Check the URL itself, an address in it included; asks nobody.

        Returns:
            The URL as it will be requested.

        Raises:
            InvalidUrl: it does not parse, has no host, user info, a fragment, or more than 2,048 characters.
            InsecureUrl: it is not https.
            ForbiddenTarget: its host is an address on the deny list, in any notation.
        """
        return self._checked(url)

    def _check_url(self, url: str) -> URL:
        parsed = _parse_url(url)
        if parsed.scheme != "https" and not (parsed.scheme == "http" and self._allow_http):
            if parsed.scheme != "http":
                raise InsecureUrl("must begin with https://: nothing else than HTTP is spoken here")
            raise InsecureUrl("must be https; WEBHOOKS__ALLOW_HTTP can allow http")
        host = _host_of(parsed)
        if _is_address(host):
            self.admit(host, host)
        elif _ends_in_number(host):
            self._refuse_notation(host)
        elif not _HOST_NAME.fullmatch(host):
            raise InvalidUrl("has no valid host name")
        return parsed

    async def check(self, url: str, resolve: Resolve) -> URL:
        """Check the URL and what its host resolves to now.

        A host that does not resolve (within 5 s) passes: it may be a matter of time, or only the egress proxy can
        resolve it, and each connect is checked anyway.

        Returns:
            The URL as it will be requested.

        Raises:
            InvalidUrl: as ``parse``.
            InsecureUrl: as ``parse``.
            ForbiddenTarget: as ``parse``, or any address of the host is on the deny list.
        """
        parsed = self.parse(url)
        host = _host_of(parsed)
        if host in self._hosts or _is_address(host):
            return parsed
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT_S):
                addresses = await resolve(host, parsed.port or 0)
        except OSError:
            return parsed
        for address in addresses:
            self.admit(address, host)
        return parsed

    def admit(self, address: str, host: str | None = None) -> None:
        """Let an address pass, or not.

        Args:
            address: IPv4 or IPv6, a zone (``%eth0``) included.
            host: the host of the URL that led to it, lower-case.

        Raises:
            ForbiddenTarget: it is on the deny list and no exception covers it, or it is no address.
        """
        if host in self._hosts:
            return
        try:
            forms = _forms(ip_address(address))
        except ValueError:
            forms = ()
        if not forms or any(self._denies(form) for form in forms):
            raise ForbiddenTarget(_FORBIDDEN)

    def _refuse_notation(self, host: str) -> NoReturn:
        """Refuse ``0x7f.1``, ``2130706433`` and their like, by what they stand for if that is forbidden."""
        try:
            address = socket.inet_ntoa(socket.inet_aton(host))
        except OSError:
            raise InvalidUrl("has a host that ends in a number and is no IPv4 address") from None
        self.admit(address)
        raise InvalidUrl(f"must write the IPv4 address in the usual way, {address}")

    def _denies(self, address: IPv4Address | IPv6Address) -> bool:
        if any(address in network for network in self._networks):
            return False
        return any(address in network for network in DENIED_NETWORKS)


async def resolve_by_system(host: str, port: int) -> list[str]:
    """The addresses that this machine finds for a host.

    Raises:
        OSError: it finds none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def _parse_url(url: str) -> URL:
    if len(url) > MAX_URL_CHARS:
        raise InvalidUrl(f"must have at most {MAX_URL_CHARS} characters, has {len(url)}")
    if _UNSAFE_IN_URL.search(url):
        raise InvalidUrl("must hold no white space, control character or backslash")
    try:
        parsed, authority = URL(url), urlsplit(url).netloc
        host, port = parsed.raw_host, parsed.port
    except ValueError:
        raise InvalidUrl("does not parse as a URL") from None
    if not parsed.scheme or not host:
        raise InvalidUrl("must be absolute, as in https://example.com/hook")
    if "%" in host:
        raise InvalidUrl("must have no zone in its address")
    if port == 0:
        raise InvalidUrl("must not have port 0")
    if "@" in authority:
        raise InvalidUrl("must hold no user name or password; use a header")
    if "#" in url:
        raise InvalidUrl("must have no fragment (#...)")
    return parsed


def _host_of(url: URL) -> str:
    return (url.raw_host or "").lower().removesuffix(".")


def _ends_in_number(host: str) -> bool:
    """Whether resolvers take the host for an IPv4 address ("ends in a number" in the URL standard)."""
    return bool(_NUMBER_LABEL.fullmatch(host.rpartition(".")[2]))


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _forms(address: IPv4Address | IPv6Address) -> tuple[IPv4Address | IPv6Address, ...]:
    """What a packet to this address may reach: all of them must be admitted."""
    if isinstance(address, IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    last = IPv4Address(int(address) & _V4_MASK)
    if address in _NAT64:
        return (last,)
    embedded = [address.sixtofour, *(address.teredo or ())]
    if int(address) >> 32 & _V4_MASK in _ISATAP:
        embedded.append(last)
    return (address, *(one for one in embedded if one is not None))
