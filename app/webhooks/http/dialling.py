"""How a connection comes about: name, check of each address, socket, tunnel through a proxy, TLS."""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import unquote

from aiohappyeyeballs import start_connection
from yarl import URL

from app.webhooks.http.connection import Connection
from app.webhooks.http.errors import ExchangeFailed, NameNotResolved, NotConnected, ProxyFailed
from app.webhooks.http.requests import Origin

if TYPE_CHECKING:
    from aiohappyeyeballs import AddrInfoType

    from app.webhooks.http.answers import Answer

__all__ = ["Admit", "Dialler", "Proxy", "Resolve"]

log = logging.getLogger("app.webhooks.http")

# Of Happy Eyeballs (RFC 8305): the next address gets its chance while the last one does not answer.
_NEXT_ADDRESS_S: Final = 0.25
_ADDRESSES_KEPT_S: Final = 10.0
_HOSTS_KEPT: Final = 1024
_TUNNEL_OPEN: Final = 200
# Shorter than what an attempt has for its connection, so that it is known who did not answer.
_PROXY_S: Final = 4.0
_COMPLAIN_S: Final = 60.0

_T = TypeVar("_T")

Admit = Callable[[str, str], None]
"""Asked about an address and the host that led to it, before a socket for it exists; raises an OSError to refuse."""
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Asked for the addresses of a host and port; raises OSError when there are none."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that all requests take.

    Attributes:
        origin: Of itself.
        authorization: Value of `Proxy-Authorization`; None without credentials.
    """

    origin: Origin
    authorization: str | None = field(repr=False)

    @classmethod
    def of(cls, text: str) -> Proxy:
        """Read its URL, credentials in it included.

        Raises:
            ValueError: It is none.
        """
        url = URL(text)
        if url.raw_user is None and url.raw_password is None:
            return cls(Origin.of(url), None)
        pair = f"{unquote(url.raw_user or '')}:{unquote(url.raw_password or '')}"
        return cls(Origin.of(url), "Basic " + base64.b64encode(pair.encode()).decode())


class Dialler:
    """Dials origins, and nobody whose address is not admitted.

    Args:
        admit: The check.
        tls: Verifies certificates.
        proxy: Is dialled in place of each origin; the check is asked about the proxy then.
        resolve: Finds the addresses of names.
    """

    def __init__(self, admit: Admit, *, tls: ssl.SSLContext, proxy: Proxy | None, resolve: Resolve) -> None:
        self._admit = admit
        self._tls = tls
        self._proxy = proxy
        self._names = _Names(resolve)
        self._complained_s = -_COMPLAIN_S

    async def dial(self, origin: Origin) -> Connection:
        """A connection that is ready for a request. Has no time limit of its own.

        Raises:
            NameNotResolved: The host has no address.
            NotConnected: By its cause: refused, unreachable, no TLS; or the proxy gave no tunnel to this host.
            ProxyFailed: There is no connection to the proxy, or it does not take our credentials.
            HungUp: The proxy hung up.
            MalformedAnswer: The proxy speaks no HTTP.
            OSError: As the check.
        """
        if self._proxy is None:
            return await self._connect(origin)
        try:
            connection = await self._connect_to_proxy(self._proxy)
            if origin.secure:
                await self._tunnel(connection, origin, self._proxy)
        except ProxyFailed as error:
            self._complain(error)
            raise
        return connection

    async def close(self) -> None:
        """Ask for no more names."""
        await self._names.close()

    async def _connect_to_proxy(self, proxy: Proxy) -> Connection:
        try:
            async with asyncio.timeout(_PROXY_S):
                return await self._connect(proxy.origin)
        except (ExchangeFailed, OSError) as error:
            raise ProxyFailed("no connection to the proxy") from error

    def _complain(self, error: ProxyFailed) -> None:
        """Once for all that fail at about the same time."""
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._complained_s + _COMPLAIN_S:
            self._complained_s = now_s
            log.error("webhooks do not get past WEBHOOKS__EGRESS_PROXY, and wait: %s", error)

    async def _connect(self, to: Origin) -> Connection:
        addresses = [to.host] if _is_address(to.host) else await self._names.addresses(to.host, to.port)

        def open_socket(address_info: AddrInfoType) -> socket.socket:
            family, kind, protocol, _, address = address_info
            self._admit(str(address[0]), to.host)
            return socket.socket(family, kind, protocol)

        infos = [_address_info(address, to.port) for address in addresses]
        loop = asyncio.get_running_loop()
        sock = await _connecting(
            start_connection(infos, happy_eyeballs_delay=_NEXT_ADDRESS_S, interleave=1, socket_factory=open_socket)
        )
        tls = self._tls if to.secure else None
        made = False
        try:
            opening = loop.create_connection(Connection, sock=sock, ssl=tls, server_hostname=to.host if tls else None)
            _, connection = await _connecting(opening)
            made = True
        finally:
            if not made:
                # The transport's by now, or nobody's.
                sock.close()
        return connection

    async def _tunnel(self, connection: Connection, origin: Origin, proxy: Proxy) -> None:
        lines = [f"CONNECT {origin.authority} HTTP/1.1", f"Host: {origin.authority}"]
        if proxy.authorization is not None:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        request = "\r\n".join([*lines, "", ""]).encode()
        try:
            _check_tunnel(await connection.exchange(request, None, head_only=True))
            await _connecting(connection.start_tls(self._tls, origin.host))
        except BaseException:
            connection.abort()
            raise


class _Names:
    """Addresses of hosts, each asked for once at a time and kept for a moment; a burst of dialling asks once."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._kept: dict[str, tuple[float, list[str]]] = {}
        self._asked: dict[str, asyncio.Task[list[str]]] = {}

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses, at each call another one first.

        Raises:
            NameNotResolved: There is none.
        """
        now = asyncio.get_running_loop().time()
        until, found = self._kept.get(host, (0.0, []))
        if until <= now:
            if (task := self._asked.get(host)) is None:
                task = self._asked[host] = asyncio.create_task(self._ask(host, port))
            try:
                # Who gives up waiting does not take the answer from the others.
                found = await asyncio.shield(task)
            except asyncio.CancelledError:
                if task.cancelled():
                    raise NameNotResolved("closed by us") from None
                raise
        addresses = list(found)
        found.append(found.pop(0))
        return addresses

    async def close(self) -> None:
        tasks = [*self._asked.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, host: str, port: int) -> list[str]:
        try:
            found = [*await self._resolve(host, port)]
        except (OSError, UnicodeError) as error:
            raise NameNotResolved("the host has no address") from error
        finally:
            del self._asked[host]
        if not found:
            raise NameNotResolved("the host has no address")
        now = asyncio.get_running_loop().time()
        if len(self._kept) >= _HOSTS_KEPT:
            self._kept = {name: one for name, one in self._kept.items() if one[0] > now}
        if len(self._kept) < _HOSTS_KEPT:
            self._kept[host] = (now + _ADDRESSES_KEPT_S, found)
        return found


def _check_tunnel(answer: Answer) -> None:
    if answer.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        raise ProxyFailed("the proxy does not take our credentials (407)")
    # Others may be about the host: it is not to be reached (502, 503, 504), or barred (403).
    if answer.status != _TUNNEL_OPEN:
        raise NotConnected(f"the proxy answered {answer.status} to CONNECT")


async def _connecting(step: Awaitable[_T]) -> _T:
    try:
        return await step
    except (OSError, RuntimeError) as error:
        # RuntimeError: uvloop's way of an OSError.
        raise NotConnected("no connection") from error


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _address_info(address: str, port: int) -> AddrInfoType:
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
