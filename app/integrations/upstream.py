"""One HTTP client for dashboard, policy engine and registry: bounded in every direction, its failures sorted.

```
UpstreamError
├── Unavailable   ask again later: no connection, a time-out, a redirect, 401, 403, 404, 429, 5xx, …
├── Rejected      this request will never be taken: 400, 409, 413, 415, 422
└── Malformed     a success whose body is not what was agreed
```

Contracts 6: a status outside 2xx is never a success, unless the caller says that it accepts it (409 where a repeat is
one, 404 where a deletion is done). An expired token must not cost a report, so 401 and 403 are *Unavailable*.

What a caller may not assume: that a request which raised was not taken. It is sent again under the same idempotency
key.
"""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from secrets import SystemRandom
from typing import TYPE_CHECKING, Any, Final, Protocol

import aiohttp
import orjson
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = [
    "Answer",
    "HttpUpstream",
    "Malformed",
    "Rejected",
    "Unavailable",
    "Upstream",
    "UpstreamConfig",
    "UpstreamError",
    "backoff_s",
    "draw_jitter",
    "parse_retry_after",
]

MAX_BACKOFF_S: Final = 60.0
FIRST_BACKOFF_S: Final = 0.5
# An upstream may ask us to wait, not to go away for good.
MAX_RETRY_AFTER_S: Final = 3600.0
MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024

draw_jitter: Final = SystemRandom().random
"""0 to 1, so that workers which failed together do not come back together."""

_REJECTING: Final = frozenset({400, 409, 413, 415, 422})
_MAX_DOUBLINGS: Final = 20
_OK_FROM: Final = 200
_OK_BEFORE: Final = 300


class UpstreamError(Exception):
    """A call that did not succeed.

    Attributes:
        status: The HTTP status, or None if there was no answer.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Unavailable(UpstreamError):
    """The same request may succeed later.

    Attributes:
        retry_after_s: How long the upstream asked us to wait, at most an hour.
    """

    def __init__(self, message: str, *, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message, status=status)
        self.retry_after_s = retry_after_s


class Rejected(UpstreamError):
    """The upstream will not take this request, however often it is sent.

    Attributes:
        answer: What it said; its body may name the reason.
    """

    def __init__(self, message: str, *, answer: Answer) -> None:
        super().__init__(message, status=answer.status)
        self.answer = answer


class Malformed(UpstreamError):
    """A success whose body cannot be used."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that counts.

    Attributes:
        status: 2xx, or one that the caller accepts.
        body: At most `MAX_ANSWER_BYTES` of it.
        complete: False if the body was longer, or broke off. Where only the status counts, that is no matter.
    """

    status: int
    body: bytes = b""
    complete: bool = True

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            Malformed: It is cut, or is not JSON.
        """
        if not self.complete:
            raise Malformed("the answer's body is too large, or broke off", status=self.status)
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            raise Malformed("the answer's body is not JSON", status=self.status) from None


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
            headers: Beside the ones that every request has.
            accept: Statuses outside 2xx that count as an answer here.

        Raises:
            Unavailable: Later, perhaps.
            Rejected: Never.
        """


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """Where an upstream is, how it is authenticated and how long it may take.

    Attributes:
        endpoint: Base URL; a path in it is kept.
        token: Sent as `Bearer` in `Authorization`, or as it is in another header.
        timeout_s: For the whole request, answer read.
        connect_timeout_s: For the connection alone.
        ssl_ca: A file of roots to trust instead of the system's.
        ssl_cert: With `ssl_key`, the client certificate (mTLS).
        proxy: An HTTP proxy; none is ever taken from the environment.
    """

    endpoint: str
    timeout_s: float
    connect_timeout_s: float = 5.0
    token: str | None = field(default=None, repr=False)
    auth_header: str = "Authorization"
    ssl_ca: str | None = None
    ssl_cert: str | None = None
    ssl_key: str | None = None
    proxy: str | None = field(default=None, repr=False)

    def headers(self) -> dict[str, str]:
        """What every request carries."""
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "vault-stream",
        }
        if self.token:
            bearer = self.auth_header.lower() == "authorization"
            headers[self.auth_header] = f"Bearer {self.token}" if bearer else self.token
        return headers

    def tls(self) -> ssl.SSLContext:
        """Certificates are always verified.

        Raises:
            OSError: A file is missing or is no certificate (`ssl.SSLError` is one).
        """
        context = ssl.create_default_context(cafile=self.ssl_ca)
        if self.ssl_cert:
            context.load_cert_chain(self.ssl_cert, self.ssl_key)
        return context


class HttpUpstream:
    """`Upstream` over aiohttp: no redirects, no cookies, nothing from the environment.

    The connection pool is made with the first request, in the loop that asks; `close` ends it.
    """

    def __init__(self, config: UpstreamConfig, *, now_s: Callable[[], float] = time.time) -> None:
        self._config = config
        self._base = config.endpoint.rstrip("/")
        self._now_s = now_s
        self._tls = config.tls()
        self._session: aiohttp.ClientSession | None = None
        self.last_problem: str | None = None

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        accept: Collection[int] = (),
    ) -> Answer:
        """See `Upstream.send`; `last_problem` says how the last call went, for health."""
        try:
            answer = await self._ask(method, path, body, headers, accept)
        except Unavailable as error:
            self.last_problem = str(error)
            raise
        self.last_problem = None
        return answer

    async def _ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None, accept: Collection[int]
    ) -> Answer:
        try:
            async with self._pool().request(
                method,
                URL(self._base + path, encoded=True),
                data=body,
                headers=headers,
                allow_redirects=False,
                proxy=self._config.proxy,
                ssl=self._tls,
            ) as response:
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
                headers=self._config.headers(),
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


async def _read(response: aiohttp.ClientResponse) -> Answer:
    """The answer with as much of its body as may be read; a body that breaks off takes nothing from the status."""
    body = bytearray()
    try:
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                return Answer(response.status, bytes(body[:MAX_ANSWER_BYTES]), complete=False)
    except (TimeoutError, aiohttp.ClientError, OSError):
        return Answer(response.status, bytes(body), complete=False)
    return Answer(response.status, bytes(body))


def _sort(answer: Answer, accept: Collection[int], retry_after_s: float | None) -> Answer:
    status = answer.status
    if _OK_FROM <= status < _OK_BEFORE or status in accept:
        return answer
    if status in _REJECTING:
        raise Rejected(f"answered {status}", answer=answer)
    raise Unavailable(f"answered {status}", status=status, retry_after_s=retry_after_s)


def _kind(error: Exception) -> str:
    """A word for what happened, without an address."""
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return "dns"
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return "tls"
    return "connect" if isinstance(error, aiohttp.ClientConnectorError | ConnectionRefusedError) else "reset"


def parse_retry_after(value: str | None, now_s: float) -> float | None:
    """Seconds to wait by a `Retry-After` header (RFC 9110 10.2.3): a number or a date; junk is None.

    Args:
        value: The header, or None.
        now_s: Seconds since 1970, for a date.

    Returns:
        0 to 3600 seconds.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(moment - now_s, 0.0), MAX_RETRY_AFTER_S)


def backoff_s(failures: int, jitter: float, retry_after_s: float | None = None) -> float:
    """How long to wait after so many failures in a row.

    Args:
        failures: 1 or more.
        jitter: 0 to 1, drawn anew each time.
        retry_after_s: What the upstream asked for; never undercut.

    Returns:
        Half a second, doubling, of which the upper half is random; at most 60 s unless the upstream asked for more.
    """
    step = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(failures - 1, _MAX_DOUBLINGS))
    return max(step * (1.0 + jitter) / 2.0, retry_after_s or 0.0)
