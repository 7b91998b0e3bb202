"""A request for a row goes to the worker that owns it, in one hop (contracts 9.5, architecture 4, Ownership)."""

from __future__ import annotations

import asyncio
import io
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol

import aiohttp
import orjson
from aiohttp import web
from yarl import URL

from app.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["HOP_HEADER", "Forwarder", "Owner", "Ownership"]

log = logging.getLogger("app.web.forward")

HOP_HEADER: Final = "Vault-Hop"
TIMEOUT_S: Final = 10.0
RETRY_AFTER_S: Final = 2
"""A number is without an owner for about as long as a restart takes: 2.4 s."""
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024

# What gives a request its meaning, beside method, path, query and body.
_SENT: Final = (
    "Authorization",
    "Content-Type",
    "Accept",
    "If-Match",
    "If-None-Match",
    "Idempotency-Key",
    "X-Request-Id",
    "traceparent",
    "tracestate",
)
_RETURNED: Final = ("Content-Type", "ETag", "Location", "Retry-After", "WWW-Authenticate", "Allow")


def _new_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False)


class Owner(Protocol):
    """A worker of the group."""

    @property
    def name(self) -> str:
        """Its instance id."""

    @property
    def url(self) -> str:
        """Its public URL."""


class Ownership(Protocol):
    """Who owns which number, by the last assignment."""

    def is_mine(self, number: int) -> bool:
        """Whether this worker holds the number, open and ready."""

    def owner(self, number: int) -> Owner | None:
        """The worker that holds it, None while nobody does."""


class Forwarder:
    """Sends requests on to the owners of numbers.

    Args:
        ownership: Who owns what.
        new_session: Makes the client, without cookies, in the loop of the first request; proxies and redirects are not
            used.
    """

    def __init__(self, ownership: Ownership, new_session: Callable[[], aiohttp.ClientSession] = _new_session) -> None:
        self._ownership = ownership
        self._new_session = new_session
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """End the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def to_owner(self, request: web.Request, number: int) -> web.StreamResponse | None:
        """The owner's answer, or None if this worker is the owner.

        Raises:
            Problem: 503 with Retry-After: nobody owns the number, the request has had its hop, or the owner does not
                answer within 10 s (and may still carry it out).
        """
        if self._ownership.is_mine(number):
            return None
        if HOP_HEADER in request.headers:
            raise _unavailable("not_owner", "This worker does not own the row, nor does it pass on what was passed on.")
        owner = self._ownership.owner(number)
        if owner is None:
            raise _unavailable("no_owner", "No worker owns the row at the moment.")
        try:
            return await self._ask(request, owner)
        except TimeoutError:
            log.warning("an owner did not answer in time", extra={"owner": owner.name, "number": number})
            detail = (
                f"The worker that owns the row did not answer within {TIMEOUT_S:g} s; it may still do what was asked."
            )
            raise _unavailable("owner_timeout", detail) from None
        except (aiohttp.ClientError, ValueError) as error:
            log.warning(
                "an owner cannot be reached", extra={"owner": owner.name, "number": number, "error": str(error)}
            )
            raise _unavailable("owner_unreachable", "The worker that owns the row cannot be reached.") from None

    async def ask_owners(self, request: web.Request, numbers: Sequence[int]) -> tuple[list[Any], list[int]]:
        """Ask the owners of these numbers the same question, side by side.

        Returns:
            The JSON answers, and the numbers that none of them answered for (its `missing` says so, or it did not
            answer, or nobody owns it).
        """
        owners: dict[str, tuple[Owner, set[int]]] = {}
        unanswered: set[int] = set()
        for number in numbers:
            owner = self._ownership.owner(number)
            if owner is None or self._ownership.is_mine(number):
                unanswered.add(number)
            else:
                owners.setdefault(owner.url, (owner, set()))[1].add(number)
        answers = await asyncio.gather(*(self._ask_json(request, owner) for owner, _ in owners.values()))
        found = []
        for answer, (_, asked) in zip(answers, owners.values(), strict=True):
            if answer is None:
                unanswered |= asked
            else:
                found.append(answer)
                unanswered |= asked & set(answer["missing"])
        return found, sorted(unanswered)

    async def _ask_json(self, request: web.Request, owner: Owner) -> Any | None:
        try:
            answer = await self._ask(request, owner)
            return orjson.loads(answer.text or "") if answer.status == HTTPStatus.OK else None
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            log.warning("an owner did not answer", extra={"owner": owner.name, "error": type(error).__name__})
            return None

    async def _ask(self, request: web.Request, owner: Owner) -> web.Response:
        headers = _chosen(_SENT, request.headers) | {HOP_HEADER: "1"}
        if self._session is None:
            self._session = self._new_session()
        async with self._session.request(
            request.method,
            # rel_url is path and query as they came, still encoded; a target with a host of its own loses it.
            URL(owner.url.rstrip("/") + str(request.rel_url), encoded=True),
            data=io.BytesIO(await request.read()) if request.can_read_body else None,
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        ) as answer:
            body = await answer.content.read(MAX_ANSWER_BYTES + 1)
            while len(body) <= MAX_ANSWER_BYTES and not answer.content.at_eof():
                body += await answer.content.read(MAX_ANSWER_BYTES + 1 - len(body))
            if len(body) > MAX_ANSWER_BYTES:
                raise ValueError("the answer is too large")
            return web.Response(status=answer.status, body=body, headers=_chosen(_RETURNED, answer.headers))


def _chosen(names: tuple[str, ...], headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in names if name in headers}


def _unavailable(code: str, detail: str) -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, code, f"{detail} Try again.", retry_after_s=RETRY_AFTER_S)
