"""One attempt: one POST, and what became of it (contracts 2, Request and Outcome).

A receiver can do what it likes: refuse, hang, drip, redirect, answer with a bomb. All of it ends in an
``AttemptOutcome`` within the time limit, and none of it in an exception.
"""

from __future__ import annotations

import asyncio
import codecs
import logging
import math
import re
import ssl
import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Self

import msgspec
from multidict import CIMultiDict

from app.webhooks.credentials import struck_out
from app.webhooks.errors import InvalidField, InvalidHeader, pointer
from app.webhooks.guard import URLS_KEPT, resolve_by_system
from app.webhooks.handshake import PermissionAnswer
from app.webhooks.http import (
    AnswerTooLarge,
    Dialler,
    ExchangeFailed,
    NameNotResolved,
    NotConnected,
    Pool,
    Proxy,
    ProxyFailed,
    Target,
    head_of,
    head_with,
)
from app.webhooks.signing import USER_AGENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from app.webhooks.guard import Resolve, TargetGuard
    from app.webhooks.http import Answer
    from app.webhooks.signing import SignedHeaders

log = logging.getLogger("app.webhooks.sender")

TIMEOUT_S: Final = 15.0
CONNECT_TIMEOUT_S: Final = 5.0
# The error of an attempt that did not get past our own proxy: its receiver was not asked. No row or record has it.
NO_PROXY: Final = "proxy"
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
        "user-agent",
    }
)
_RESERVED_PREFIXES: Final = ("content-", "proxy-", "webhook-", "x-webhook-", "x-event-", "x-delivery-", "ce-")
_DELAY_SECONDS: Final = re.compile(r"[0-9]{1,12}(\.[0-9]+)?", re.ASCII)
_ASKS_TO_WAIT: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_OK: Final = int(HTTPStatus.OK)
_NOT_OK: Final = int(HTTPStatus.MULTIPLE_CHOICES)

# ValueError: no request can be made of it, as of a header with a line break. RuntimeError: uvloop's way of an OSError.
_FAILURES: Final = (ExchangeFailed, OSError, InvalidField, ValueError, RuntimeError)

# The first that fits an error or what that was raised from. Special kinds come before general ones.
_ERROR_NAMES: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (ProxyFailed, NO_PROXY),
    (InvalidField, "forbidden_target"),
    (TimeoutError, "timeout"),
    (AnswerTooLarge, "too_large"),
    (NameNotResolved, "dns"),
    (ssl.SSLError, "tls"),
    (NotConnected, "connect"),
)


class OutgoingRequest(msgspec.Struct, frozen=True):
    """What to send. Its repr shows none of the content, since custom headers hold credentials.

    Attributes:
        url: as registered.
        body: the event, the same bytes at every attempt.
        protected_headers: of this attempt; they replace custom ones of the same name.
        custom_headers: of the webhook, checked by ``validate_headers``.
        timeout_s: for all of it, the answer's body included.
    """

    url: str
    body: bytes
    protected_headers: SignedHeaders
    custom_headers: Mapping[str, str] = {}
    timeout_s: float = TIMEOUT_S

    def __repr__(self) -> str:
        return f"OutgoingRequest(timeout_s={self.timeout_s})"


class AttemptOutcome(msgspec.Struct, frozen=True):
    """What became of an attempt.

    Attributes:
        duration_ms: from before the connect to the end of the answer.
        error: None for 2xx; else ``dns connect tls timeout reset too_large forbidden_target status_<n>``, or NO_PROXY.
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
        resolve: Resolve = resolve_by_system,
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
            resolve: finds the addresses of a host.
            now_s: Unix time, for a Retry-After that is a date.

        Raises:
            OSError: the file of roots cannot be read.
            ssl.SSLError: it holds no certificate.
        """
        tls = ssl.create_default_context()
        tls.set_alpn_protocols(["http/1.1"])
        if extra_ca_file is not None:
            tls.load_verify_locations(cafile=extra_ca_file)
        proxy = None if egress_proxy is None else Proxy.of(egress_proxy)
        if proxy is not None:
            log.warning("webhooks leave through an egress proxy: it must enforce the deny list, as only it is dialled")
        dialled = guard if proxy is None else guard.with_host(proxy.origin.host)
        self._dialler = Dialler(dialled.admit, tls=tls, proxy=proxy, resolve=resolve)
        self._pool = Pool(self._dialler.dial, max_connections=max_connections, max_per_origin=max_connections_per_host)
        self._proxy = proxy
        # Of a URL that the guard lets pass: the same one is asked for at each attempt.
        self._target = lru_cache(URLS_KEPT)(self._read_target)
        self._guard = guard
        self._now_s = now_s

    async def post(self, request: OutgoingRequest) -> AttemptOutcome:
        """Make one attempt. No redirect is followed, and nothing is sent a second time.

        Returns:
            The outcome, for whatever the receiver did.

        Raises:
            asyncio.CancelledError: the caller gave up; whether the receiver has the event is unknown then.
            RuntimeError: the sender is closed.
        """
        pool = self._pool
        if pool.closed:
            raise RuntimeError("the sender is closed")
        began_s = time.monotonic()
        try:
            target = self._target(request.url)
            data = _head(target, request) + request.body
            origin, timeout_s = target.origin, request.timeout_s
            connection = pool.take_kept(origin)
            if connection is None:
                connection = await pool.take(origin, min(CONNECT_TIMEOUT_S, timeout_s))
            try:
                answer = await connection.exchange(data, timeout_s - (time.monotonic() - began_s))
            finally:
                pool.give_back(origin, connection)
        except _FAILURES as error:
            return AttemptOutcome(_elapsed_ms(began_s), error_name(error))
        return self._outcome(request, answer, _elapsed_ms(began_s))

    async def options(self, url: str, headers: Mapping[str, str], custom: Mapping[str, str]) -> PermissionAnswer:
        """Ask a receiver for its permission, with the guard of a delivery.

        Args:
            url: as registered.
            headers: of the handshake; they replace custom ones of the same name.
            custom: headers of the webhook.

        Returns:
            The answer, whatever the receiver did.
        """
        try:
            target = self._target(url)
            ours = {**headers, "User-Agent": USER_AGENT}
            head = head_of("OPTIONS", target, ours.items(), custom, body_bytes=None)
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                connection = await self._pool.take(target.origin, CONNECT_TIMEOUT_S, fresh=True)
                try:
                    answer = await connection.exchange(head, None, head_only=True)
                finally:
                    self._pool.give_back(target.origin, connection)
        except _FAILURES as error:
            return PermissionAnswer(None, {}, error_name(error))
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.fields]
        return PermissionAnswer(answer.status, CIMultiDict(fields))

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()
        await self._dialler.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _outcome(self, request: OutgoingRequest, answer: Answer, duration_ms: int) -> AttemptOutcome:
        status, body = answer.status, answer.body
        ok = _OK <= status < _NOT_OK
        if ok and not body:
            return AttemptOutcome(duration_ms, None, status)
        return AttemptOutcome(
            duration_ms=duration_ms,
            error=None if ok else f"status_{status}",
            status=status,
            body=_kept_text(struck_out(body, request.custom_headers)) if body else "",
            retry_after_s=parse_retry_after(answer.field("Retry-After"), self._now_s())
            if status in _ASKS_TO_WAIT
            else None,
        )

    def _read_target(self, url: str) -> Target:
        """What is asked for and of whom; the guard is asked even where a proxy dials what is not dialled here.

        Raises:
            InvalidField: As `TargetGuard.parse`.
        """
        authorization = None if self._proxy is None else self._proxy.authorization
        return Target.of(
            self._guard.parse(url), through_proxy=self._proxy is not None, proxy_authorization=authorization
        )


def error_name(error: BaseException) -> str:
    """The name of contracts 2 for an attempt without an answer.

    An exchange that breaks off, or an answer that is not HTTP, is ``reset``.
    """
    causes = tuple(_causes(error))
    return next(
        (name for kind, name in _ERROR_NAMES if any(isinstance(cause, kind) for cause in causes)),
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


def _head(target: Target, request: OutgoingRequest) -> bytes:
    headers, custom, body_bytes = request.protected_headers, request.custom_headers, len(request.body)
    if not custom and (written := headers.written()) is not None:
        return head_with("POST", target, written, body_bytes=body_bytes)
    return head_of("POST", target, tuple(headers), custom, body_bytes=body_bytes)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _kept_text(body: bytes) -> str:
    # Not final where it was cut: half a character at the end is dropped rather than shown as garbage.
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return decoder.decode(body[:MAX_KEPT_BYTES], final=len(body) <= MAX_KEPT_BYTES)


def _elapsed_ms(began_s: float) -> int:
    return round((time.monotonic() - began_s) * 1000)
