"""The client itself: no redirects, no cookies, nothing from the environment, and an end to everything."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final, Protocol

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from app.integrations.upstream.answers import Answer
from app.integrations.upstream.backoff import parse_retry_after
from app.integrations.upstream.credentials import TlsFiles
from app.integrations.upstream.errors import Rejected, Unavailable
from app.observability.clock_skew import PeerClock

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from app.integrations.upstream.credentials import UpstreamConfig

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
_DEFAULTS: Final = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": "vault-stream",
}
_REJECTING: Final = frozenset({400, 409, 413, 415, 422})
_OK_FROM: Final = 200
_OK_BEFORE: Final = 300


class Upstream(Protocol):
    """What agents are handed; tests hand them a scripted one."""

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        accept: Collection[int] = (),
    ) -> Answer:
        """One request, without a retry.

        Args:
            method: An HTTP method.
            path: Below the endpoint, its segments percent-encoded.
            body: JSON, sent as it is.
            headers: In place of the defaults of the same name; those of `trace_headers` where one event is the cause.
            accept: Statuses outside 2xx that count as an answer here.

        Raises:
            Unavailable: Later, perhaps.
            Rejected: Never.
        """


class HttpUpstream:
    """`Upstream` over aiohttp.

    The connection pool is made with the first request, in the loop that asks; `close` ends it.

    Args:
        config: Where it is, and how to reach it.
        peer: Its name; with it the metric of its clock is fed by the `Date` of its answers.

    Raises:
        OSError: A TLS file is missing or is no certificate.
    """

    def __init__(
        self,
        config: UpstreamConfig,
        *,
        peer: str | None = None,
        now_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._monotonic_s = monotonic_s
        self._base = config.endpoint.rstrip("/")
        self._now_s = now_s
        self._tls = TlsFiles(config, monotonic_s)
        self._clock = None if peer is None else PeerClock(peer)
        self._session: aiohttp.ClientSession | None = None
        self.last_problem: str | None = None
        self._ended_s = monotonic_s()
        self.on_result: Callable[[str | None], None] = _nobody

    def renew(self, config: UpstreamConfig) -> None:
        """Use the credentials of another configuration from the next request on; where the upstream is stays.

        Requests that are under way end as they began.

        Raises:
            OSError: A TLS file is missing or is no certificate; the old credentials stay.
        """
        ours = self._config
        renewed = dataclasses.replace(config, endpoint=ours.endpoint, timeout_s=ours.timeout_s)
        renewed = dataclasses.replace(renewed, connect_timeout_s=ours.connect_timeout_s)
        if renewed == ours:
            return
        if (renewed.ssl_ca, renewed.ssl_cert, renewed.ssl_key) != (ours.ssl_ca, ours.ssl_cert, ours.ssl_key):
            self._tls = TlsFiles(renewed, self._monotonic_s)
        self._config = renewed

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        accept: Collection[int] = (),
    ) -> Answer:
        """See `Upstream.send`; `last_problem` says how the last call went, and `on_result` is told, for health."""
        try:
            answer = await self._ask(method, path, body, headers, accept)
        except Unavailable as error:
            self._ended(str(error))
            raise
        except Rejected:
            # It is there, and speaks: what it does not like is this request.
            self._ended(None)
            raise
        self._ended(None)
        return answer

    @property
    def last_call_age_s(self) -> float:
        """How long ago the last call ended; since the start where there was none."""
        return self._monotonic_s() - self._ended_s

    def _ended(self, problem: str | None) -> None:
        self.last_problem = problem
        self._ended_s = self._monotonic_s()
        self.on_result(problem)

    async def _ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None, accept: Collection[int]
    ) -> Answer:
        """The call itself; raises what `send` does. `TracedUpstream` puts its span around it."""
        tls = await self._tls.current()
        config = self._config
        sent_s = self._now_s()
        try:
            async with self._pool().request(
                method,
                URL(self._base + path, encoded=True),
                data=body,
                headers=_headers(headers, config),
                allow_redirects=False,
                proxy=config.proxy,
                ssl=tls,
            ) as response:
                if self._clock is not None:
                    self._clock.told_by_date(response.headers.get("Date"), sent_s, self._now_s())
                answer = await _read(response)
                retry_after = response.headers.get("Retry-After")
        except TimeoutError:
            raise Unavailable("no answer in time") from None
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            # RuntimeError: uvloop's way of an OSError.
            raise Unavailable(f"no answer: {_kind(error)}") from None
        return _sort(answer, accept, parse_retry_after(retry_after, self._now_s()))

    async def close(self) -> None:
        """End the connections; a later request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _pool(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Callers bound themselves; whoever waited here would take its turn for a time-out.
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(
                    total=self._config.timeout_s,
                    connect=self._config.connect_timeout_s,
                    sock_connect=self._config.connect_timeout_s,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


def _nobody(_problem: str | None) -> None:
    """Nobody wants to be told."""


def _headers(given: Mapping[str, str] | None, config: UpstreamConfig) -> CIMultiDict[str]:
    """A caller may say what it accepts, and never who it is."""
    headers = CIMultiDict(_DEFAULTS)
    headers.update({config.header_names.get(name, name): value for name, value in (given or {}).items()})
    headers.update(config.credential())
    return headers


async def _read(response: aiohttp.ClientResponse) -> Answer:
    """The answer with as much of its body as may be read; a body that breaks off takes nothing from the status."""
    body, complete = bytearray(), True
    try:
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                complete = False
                break
    except (TimeoutError, aiohttp.ClientError, OSError):
        complete = False
    return Answer(
        response.status,
        bytes(body[:MAX_ANSWER_BYTES]),
        complete,
        content_type=response.headers.get("Content-Type", ""),
        content_encoding=response.headers.get("Content-Encoding", ""),
    )


def _sort(answer: Answer, accept: Collection[int], retry_after_s: float | None) -> Answer:
    status = answer.status
    if _OK_FROM <= status < _OK_BEFORE or status in accept:
        return answer
    if status in _REJECTING:
        raise Rejected(f"answered {status}", answer=answer)
    raise Unavailable(f"answered {status}", status=status, retry_after_s=retry_after_s)


def _kind(error: Exception) -> str:
    """A word for what happened, without an address."""
    if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
        return "proxy"
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return "dns"
    # A server that does not take our certificate says so when the handshake seems done already.
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
        return "tls"
    return "connect" if isinstance(error, aiohttp.ClientConnectorError | ConnectionRefusedError) else "reset"
