"""A request for a row goes to the worker that owns it, in one hop (contracts 9.5, architecture 4, Ownership)."""

from __future__ import annotations

import asyncio
import io
import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import aiohttp
from aiohttp import web
from yarl import URL

from app.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["HOP_HEADER", "Forwarder", "Owner", "OwnersReply", "Ownership"]

T = TypeVar("T")

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


@dataclass(frozen=True, slots=True)
class OwnersReply:
    """What another worker answered, with those of its headers that are passed on."""

    status: int
    headers: dict[str, str]
    body: bytes


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
        return await self.to_worker(request, owner)

    async def to_worker(self, request: web.Request, owner: Owner) -> web.StreamResponse:
        """The answer of another worker, to a request that has not had its hop.

        Raises:
            Problem: 503 with Retry-After: it does not answer within 10 s (and may still carry it out).
        """
        try:
            answer = await self._ask(request, owner)
        except TimeoutError:
            log.warning("an owner did not answer in time", extra={"owner": owner.name, "path": request.path})
            detail = (
                f"The worker that owns the row did not answer within {TIMEOUT_S:g} s; it may still do what was asked."
            )
            raise _unavailable("owner_timeout", detail) from None
        except (aiohttp.ClientError, ValueError) as error:
            log.warning(
                "an owner cannot be reached", extra={"owner": owner.name, "path": request.path, "error": str(error)}
            )
            raise _unavailable("owner_unreachable", "The worker that owns the row cannot be reached.") from None
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    async def ask_owners(
        self, request: web.Request, numbers: Iterable[int], read: Callable[[bytes], T]
    ) -> list[tuple[frozenset[int], T | None]]:
        """Ask the owners of these numbers the same question, side by side.

        Args:
            read: Reads the body of an answer; raises ValueError if it is none.

        Returns:
            For each owner the numbers that it was asked for, and its answer; None: it gave none within 10 s. So, too,
            for the numbers that nobody owns.
        """
        asked: dict[Owner | None, set[int]] = {}
        for number in numbers:
            asked.setdefault(self._ownership.owner(number), set()).add(number)
        await request.read()
        answers = await asyncio.gather(*(self._answer(request, owner, read) for owner in asked))
        return [(frozenset(group), answer) for group, answer in zip(asked.values(), answers, strict=True)]

    async def _answer(self, request: web.Request, owner: Owner | None, read: Callable[[bytes], T]) -> T | None:
        if owner is None:
            return None
        try:
            answer = await self._ask(request, owner)
            if answer.status == HTTPStatus.OK:
                return read(answer.body)
            reason = f"status {answer.status}"
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            reason = type(error).__name__
        log.warning("an owner did not answer", extra={"owner": owner.name, "error": reason})
        return None

    async def post(
        self, owner: Owner, path: str, body: bytes, caller: Mapping[str, str], returned: tuple[str, ...]
    ) -> OwnersReply | None:
        """Ask another worker for a caller who did not ask for this alone.

        Args:
            path: Of the route.
            body: JSON.
            caller: The headers of his request, which says who he is.
            returned: The headers of the answer that are wanted.

        Returns:
            Its answer, whatever it is; None: it gave none within 10 s.
        """
        headers = _chosen(_SENT, caller) | {"Content-Type": "application/json"}
        try:
            return await self._send(owner, "POST", path, body, headers, returned)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            log.warning("an owner did not answer", extra={"owner": owner.name, "error": type(error).__name__})
            return None

    async def _ask(self, request: web.Request, owner: Owner) -> OwnersReply:
        # Read again if a handler has read it already.
        body = await request.read()
        # rel_url is path and query as they came, still encoded; a target with a host of its own loses it.
        return await self._send(
            owner, request.method, str(request.rel_url), body, _chosen(_SENT, request.headers), _RETURNED
        )

    async def _send(
        self, owner: Owner, method: str, target: str, body: bytes, headers: dict[str, str], returned: tuple[str, ...]
    ) -> OwnersReply:
        if self._session is None:
            self._session = self._new_session()
        async with self._session.request(
            method,
            URL(owner.url.rstrip("/") + target, encoded=True),
            data=io.BytesIO(body) if body else None,
            headers=headers | {HOP_HEADER: "1"},
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        ) as answer:
            found = bytearray()
            while len(found) <= MAX_ANSWER_BYTES and not answer.content.at_eof():
                found += await answer.content.read(MAX_ANSWER_BYTES + 1 - len(found))
            if len(found) > MAX_ANSWER_BYTES:
                raise ValueError("the answer is too large")
            return OwnersReply(answer.status, _chosen(returned, answer.headers), bytes(found))


def _chosen(names: tuple[str, ...], headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in names if name in headers}


def _unavailable(code: str, detail: str) -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, code, f"{detail} Try again.", retry_after_s=RETRY_AFTER_S)
