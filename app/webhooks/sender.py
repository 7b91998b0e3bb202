"""One attempt: one POST, and what became of it (contracts 2, Request and Outcome).

A receiver can do what it likes: refuse, hang, drip, redirect, answer with a bomb. All of it ends in an
``AttemptOutcome`` within the time limit, and none of it in an exception.
"""

from __future__ import annotations

import codecs
import logging
import math
import re
import ssl
import time
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Self

import aiohttp
from aiohttp.http_exceptions import LineTooLong
from multidict import CIMultiDict
from yarl import URL

from app.webhooks.credentials import struck_out
from app.webhooks.errors import InvalidField, InvalidHeader, pointer
from app.webhooks.guard import GuardedConnector
from app.webhooks.handshake import PermissionAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from aiohttp.abc import AbstractResolver

    from app.webhooks.guard import TargetGuard

log = logging.getLogger("app.webhooks.sender")

TIMEOUT_S: Final = 15.0
CONNECT_TIMEOUT_S: Final = 5.0
MAX_READ_BYTES: Final = 16 * 1024
MAX_KEPT_BYTES: Final = 2 * 1024
MAX_CUSTOM_HEADERS: Final = 32
MAX_HEADER_VALUE_CHARS: Final = 4096

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_RESERVED: Final = frozenset(
    {
        "connection",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_RESERVED_PREFIXES: Final = ("content-", "proxy-", "webhook-", "x-webhook-", "x-event-", "x-delivery-", "ce-")
_DELAY_SECONDS: Final = re.compile(r"[0-9]{1,12}(\.[0-9]+)?", re.ASCII)
_ASKS_TO_WAIT: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})

# The first that fits the library's error or what that was raised from. Special kinds come before general ones.
_ERROR_NAMES: Final[tuple[tuple[tuple[type[BaseException], ...], str], ...]] = (
    ((InvalidField, aiohttp.InvalidURL), "forbidden_target"),
    ((TimeoutError,), "timeout"),
    ((LineTooLong,), "too_large"),
    ((aiohttp.ClientConnectorDNSError, UnicodeError), "dns"),
    ((aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch, ssl.SSLError), "tls"),
    ((aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, RuntimeError), "connect"),
)


@dataclass(frozen=True, slots=True)
class OutgoingRequest:
    """What to send. Its repr shows none of the content, since custom headers hold credentials.

    Attributes:
        url: as registered.
        body: the event, the same bytes at every attempt.
        protected_headers: of ``signing.sign_headers``; they replace custom ones of the same name.
        custom_headers: of the webhook, checked by ``validate_headers``.
        timeout_s: for all of it, the answer's body included.
    """

    url: str = field(repr=False)
    body: bytes = field(repr=False)
    protected_headers: Sequence[tuple[str, str]] = field(repr=False)
    custom_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = TIMEOUT_S


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """What became of an attempt.

    Attributes:
        duration_ms: from before the connect to the end of the answer.
        error: None for 2xx; else ``dns connect tls timeout reset too_large forbidden_target status_<n>``.
        status: the HTTP status of a complete answer; None where there was none.
        body: the start of the answer, at most 2 KiB, undecodable bytes replaced.
        retry_after_s: whole seconds, only with 429 and 503, not capped yet.
    """

    duration_ms: int
    error: str | None
    status: int | None = None
    body: str = ""
    retry_after_s: int | None = None

    @property
    def delivered(self) -> bool:
        """Whether the receiver has taken the event (2xx)."""
        return self.error is None


class Sender:
    """Makes attempts, over one pool of connections."""

    def __init__(
        self,
        guard: TargetGuard,
        *,
        max_connections: int,
        max_connections_per_host: int,
        extra_ca_file: Path | None = None,
        egress_proxy: str | None = None,
        resolver: AbstractResolver | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """Needs a running event loop; ``close`` ends it.

        Args:
            guard: which URLs may be asked, and which addresses dialled.
            max_connections: in use at one time; not below the number of concurrent attempts, else they wait here.
            max_connections_per_host: the same, to one host and port.
            extra_ca_file: PEM roots beside the system's (``WEBHOOKS__SSL_CA``).
            egress_proxy: URL of the proxy that all requests take; it must enforce the deny list then, because it is
                the only address that is dialled here.
            resolver: None for the system's.
            now_s: Unix time, for a Retry-After that is a date.

        Raises:
            OSError: the file of roots cannot be read.
            ssl.SSLError: it holds no certificate.
        """
        tls = ssl.create_default_context()
        tls.set_alpn_protocols(["http/1.1"])
        if extra_ca_file is not None:
            tls.load_verify_locations(cafile=extra_ca_file)
        proxy_host = None if egress_proxy is None else URL(egress_proxy).raw_host
        if proxy_host is not None:
            log.warning("webhooks leave through an egress proxy: it must enforce the deny list, as only it is dialled")
        connector = GuardedConnector(
            guard if proxy_host is None else guard.with_host(proxy_host),
            max_connections=max_connections,
            max_connections_per_host=max_connections_per_host,
            tls=tls,
            resolver=resolver,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            read_bufsize=MAX_READ_BYTES,
            # What is not decompressed is not asked for.
            skip_auto_headers=("Accept-Encoding",),
        )
        self._guard = guard
        self._egress_proxy = egress_proxy
        self._now_s = now_s

    async def post(self, request: OutgoingRequest) -> AttemptOutcome:
        """Make one attempt. No redirect is followed, and nothing is sent a second time.

        Returns:
            The outcome, for whatever the receiver did.

        Raises:
            asyncio.CancelledError: the caller gave up; whether the receiver has the event is unknown then.
            RuntimeError: the sender is closed.
        """
        if self._session.closed:
            raise RuntimeError("the sender is closed")
        began_s = time.monotonic()
        try:
            status, headers, body = await self._exchange(request)
        except (aiohttp.ClientError, OSError, InvalidField, ValueError, RuntimeError) as error:
            # ValueError: a host name that a resolver cannot encode. RuntimeError: uvloop's way of an OSError.
            return AttemptOutcome(_elapsed_ms(began_s), error_name(error))
        return AttemptOutcome(
            duration_ms=_elapsed_ms(began_s),
            error=None if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES else f"status_{status}",
            status=status,
            body=_kept_text(struck_out(body, request.custom_headers)),
            retry_after_s=parse_retry_after(headers.get("Retry-After"), self._now_s())
            if status in _ASKS_TO_WAIT
            else None,
        )

    async def options(self, url: str, headers: Mapping[str, str], custom: Mapping[str, str]) -> PermissionAnswer:
        """Ask a receiver for its permission, with the guard of a delivery.

        Args:
            url: as registered.
            headers: of the handshake; they replace custom ones of the same name.
            custom: headers of the webhook.

        Returns:
            The answer, whatever the receiver did.
        """
        sent = CIMultiDict(custom)
        sent.update(headers)
        try:
            async with self._session.options(
                self._guard.parse(url),
                headers=sent,
                allow_redirects=False,
                proxy=self._egress_proxy,
                timeout=aiohttp.ClientTimeout(total=CONNECT_TIMEOUT_S),
            ) as response:
                response.close()
                return PermissionAnswer(response.status, response.headers)
        except (aiohttp.ClientError, OSError, InvalidField, ValueError, RuntimeError) as error:
            return PermissionAnswer(None, {}, error_name(error))

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _exchange(self, request: OutgoingRequest) -> tuple[int, Mapping[str, str], bytes]:
        headers = CIMultiDict(request.custom_headers)
        for name, value in request.protected_headers:
            headers[name] = value
        # The library rounds longer limits up to a whole second unless told otherwise.
        limits = aiohttp.ClientTimeout(total=request.timeout_s, connect=CONNECT_TIMEOUT_S, ceil_threshold=math.inf)
        async with self._session.post(
            # Asked at each attempt: the settings may have tightened, and a proxy dials what is not dialled here.
            self._guard.parse(request.url),
            data=request.body,
            headers=headers,
            allow_redirects=False,
            proxy=self._egress_proxy,
            timeout=limits,
        ) as response:
            body = await _read_start(response.content)
            if not response.content.at_eof():
                # The rest is not wanted, so the connection cannot be used again.
                response.close()
            return response.status, response.headers, body


def error_name(error: BaseException) -> str:
    """The name of contracts 2 for an attempt without an answer.

    An exchange that breaks off, or an answer that is not HTTP, is ``reset``.
    """
    causes = tuple(_causes(error))
    return next(
        (name for kinds, name in _ERROR_NAMES if any(isinstance(cause, kinds) for cause in causes)),
        "reset",
    )


def parse_retry_after(value: str | None, now_s: float) -> int | None:
    """What a Retry-After header asks for (RFC 9110, 10.2.3).

    Args:
        value: seconds (a fraction is rounded up) or an HTTP date.
        now_s: Unix time.

    Returns:
        Seconds from now, 0 for a date that has passed; None without the header and for junk.
    """
    if value is None:
        return None
    value = value.strip()
    if _DELAY_SECONDS.fullmatch(value):
        return math.ceil(float(value))
    try:
        date = parsedate_to_datetime(value)
        # A date without a zone is in UTC, as all HTTP dates are.
        at_s = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0, math.ceil(at_s - now_s))


def validate_headers(headers: Mapping[str, str]) -> None:
    """Check the custom headers of a webhook.

    Raises:
        InvalidHeader: a name that is no token (RFC 9110, 5.6.2), is reserved or is there twice; a value with a control
            character or of more than 4,096 characters; more than 32 headers. ``field`` names it, no value is shown.
    """
    if len(headers) > MAX_CUSTOM_HEADERS:
        raise InvalidHeader(f"at most {MAX_CUSTOM_HEADERS} headers")
    seen: set[str] = set()
    for name, value in headers.items():
        place, lower = pointer("headers", name), name.lower()
        if not _TOKEN.fullmatch(name):
            raise InvalidHeader("the name must be a token: letters, digits and !#$%&'*+-.^_`|~", field=place)
        if lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES):
            raise InvalidHeader("this name is reserved; choose another one", field=place)
        if lower in seen:
            raise InvalidHeader("this name is there twice, in another case", field=place)
        if _CONTROL.search(value):
            raise InvalidHeader("the value must hold no line break or other control character", field=place)
        if len(value) > MAX_HEADER_VALUE_CHARS:
            raise InvalidHeader(f"the value must have at most {MAX_HEADER_VALUE_CHARS} characters", field=place)
        seen.add(lower)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


async def _read_start(content: aiohttp.StreamReader) -> bytes:
    start = bytearray()
    while len(start) < MAX_READ_BYTES:
        chunk = await content.read(MAX_READ_BYTES - len(start))
        if not chunk:
            break
        start += chunk
    return bytes(start)


def _kept_text(body: bytes) -> str:
    # Not final where it was cut: half a character at the end is dropped rather than shown as garbage.
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return decoder.decode(body[:MAX_KEPT_BYTES], final=len(body) <= MAX_KEPT_BYTES)


def _elapsed_ms(began_s: float) -> int:
    return round((time.monotonic() - began_s) * 1000)
