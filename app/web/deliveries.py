"""Deliveries over HTTP: list and show, from any worker, also for rows that another worker owns (contracts 8.3, 9.5)."""

from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from app.engine import Revoked
from app.events import MOMENT_FORM, format_time, parse_moment_ms, parse_time_ms
from app.web.cursors import cursor_of, cursor_place, parse_cursor
from app.web.forward import HOP_HEADER
from app.web.owned_rows import read_owned, taken_over
from app.web.problems import FieldError, Problem
from app.web.requests import page_limit, query_of
from app.webhooks.model import Status
from tables.delivery_queries import DeliveryPage, DeliveryQuery, Place, find_delivery, find_page, merge_pages

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.engine import Ownership
    from app.web.forward import Forwarder
    from app.webhooks.model import Attempt
    from tables.delivery_queries import FoundDelivery, Readers

__all__ = [
    "DeliveriesApi",
    "delivery_routes",
    "no_delivery",
    "number_of_delivery",
    "owned_delivery",
    "show_delivery",
]

# 26 digits of 5 bits for 16 bytes (contracts 9.3).
_ID: Final = re.compile(r"dlv_([a-z2-7]{26})", re.ASCII)
_LIST: Final = "deliveries"
_QUERY: Final = ("webhook_id", "status", "event_id", "since", "cursor", "limit")


@dataclass(frozen=True, slots=True)
class DeliveriesApi:
    """What the routes work with."""

    readers: Readers
    ownership: Ownership
    forwarder: Forwarder


def delivery_routes(api: DeliveriesApi) -> list[web.RouteDef]:
    """List and show."""
    handlers = _Handlers(api)
    return [web.get("/v1/deliveries", handlers.index), web.get("/v1/deliveries/{id}", handlers.show)]


class _Handlers:
    def __init__(self, api: DeliveriesApi) -> None:
        self._api = api

    async def show(self, request: web.Request) -> web.StreamResponse:
        query_of(request, ())
        delivery_id = request.match_info["id"]
        number = number_of_delivery(delivery_id, self._api.ownership.count)
        if number is None:
            raise no_delivery()
        if (answer := await self._api.forwarder.to_owner(request, number)) is not None:
            return answer
        found = await owned_delivery(self._api.readers, number, delivery_id)
        return web.json_response(show_delivery(found, attempts=True))

    async def index(self, request: web.Request) -> web.StreamResponse:
        given = query_of(request, _QUERY)
        limit = page_limit(given)
        query = _read_query(given)
        if query.webhook_id is not None:
            return await self._of_webhook(request, query, limit)
        pages = [await self._local(query, limit)]
        missing = set(pages[0].missing)
        if HOP_HEADER not in request.headers:
            answers = await self._api.forwarder.ask_owners(request, sorted(missing), _Page.read)
            pages += [page for _, page in answers if page is not None]
            # An owner may have lost a number meanwhile; whoever has it now was not asked.
            unanswered = (asked if page is None else asked & page.missing for asked, page in answers)
            missing = set(chain.from_iterable(unanswered))
        return web.json_response(_merge(pages, limit).document(missing))

    async def _of_webhook(self, request: web.Request, query: DeliveryQuery, limit: int) -> web.StreamResponse:
        number = self._api.ownership.number_of(str(query.webhook_id).encode())
        if (answer := await self._api.forwarder.to_owner(request, number)) is not None:
            return answer
        page = await self._read(number, query, limit)
        if page is None:
            raise taken_over()
        return web.json_response(_Page.shown(page).document(()))

    async def _local(self, query: DeliveryQuery, limit: int) -> _Page:
        """What is owned here."""
        numbers = range(self._api.ownership.count)
        pages = await asyncio.gather(*(self._read(number, query, limit) for number in numbers))
        missing = frozenset(number for number, page in zip(numbers, pages, strict=True) if page is None)
        return _Page.shown(merge_pages([page for page in pages if page is not None], limit), missing)

    async def _read(self, number: int, query: DeliveryQuery, limit: int) -> DeliveryPage | None:
        reader = self._api.readers.get(number)
        if reader is None or not self._api.ownership.is_mine(number):
            return None
        try:
            return await reader.read(lambda unit, held: find_page(unit, held, query, limit))
        except Revoked:
            return None


class _Answer(msgspec.Struct):
    """What is read of a page that another worker answers with."""

    items: list[dict[str, Any]]
    next_cursor: str | None
    missing: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Page:
    """A page as it is answered.

    Attributes:
        items: By their place.
        reached: There may be more behind this place; None: there is no more.
        missing: The numbers that it does not speak for.
    """

    items: dict[Place, dict[str, Any]]
    reached: Place | None
    missing: frozenset[int] = frozenset()

    @classmethod
    def shown(cls, page: DeliveryPage, missing: frozenset[int] = frozenset()) -> _Page:
        return cls({found.place: show_delivery(found) for found in page.items}, page.reached, missing)

    @classmethod
    def read(cls, body: bytes) -> _Page:
        """Another worker's page.

        Raises:
            ValueError: It is none.
        """
        try:
            answer = msgspec.json.decode(body, type=_Answer)
            items = {Place(parse_time_ms(item["created_at"]), str(item["id"])): item for item in answer.items}
        except (msgspec.MsgspecError, KeyError, TypeError) as error:
            raise ValueError("not a page of deliveries") from error
        reached = None if answer.next_cursor is None else Place(*parse_cursor(answer.next_cursor, _LIST))
        return cls(items, reached, answer.missing)

    def document(self, missing: Iterable[int]) -> dict[str, Any]:
        """The answer."""
        cursor = None if self.reached is None else cursor_of(*self.reached, _LIST)
        return {"items": list(self.items.values()), "next_cursor": cursor, "missing": sorted(missing)}


def _merge(pages: list[_Page], limit: int) -> _Page:
    """One page of several workers' pages; nothing that one of them has not reached yet is passed."""
    reached = min((page.reached for page in pages if page.reached is not None), key=_order, default=None)
    # Of a number that moved between two questions, both have told.
    items = {place: item for page in pages for place, item in page.items.items()}
    places = sorted((place for place in items if reached is None or place.order <= reached.order), key=_order)
    if len(places) > limit:
        places = places[:limit]
        reached = places[-1]
    return _Page({place: items[place] for place in places}, reached)


def _order(place: Place) -> tuple[int, str]:
    return place.order


def number_of_delivery(delivery_id: str, count: int) -> int | None:
    """The number of a delivery, from its id alone (contracts 9.3); None: it is no delivery id."""
    digits = _ID.fullmatch(delivery_id)
    if digits is None:
        return None
    return int.from_bytes(base64.b32decode(digits[1].upper() + "======")[:4], "big") % count


def show_delivery(found: FoundDelivery, *, attempts: bool = False) -> dict[str, Any]:
    """A delivery as the API shows it; with its last 20 attempts where one is shown alone."""
    row = found.row
    shown: dict[str, Any] = {
        "id": row.delivery_id,
        "webhook_id": row.webhook_id,
        "event_id": row.event_id,
        "event_source": row.event_source,
        "event_type": row.event_type,
        "status": row.status.value,
        "in_flight": found.in_flight,
        "reason": None if row.reason is None else row.reason.value,
        "attempts": row.attempts,
        "response_code": row.status_code,
        "response_body": row.response_body,
        "last_error": row.error,
        "duration_ms": row.duration_ms,
        "created_at": format_time(row.created_at_ms),
        "next_attempt_at": _time(row.next_at_ms),
        "delivered_at": _time(row.delivered_at_ms),
        "origin": row.origin,
    }
    shown = {name: value for name, value in shown.items() if value is not None}
    if attempts:
        shown["attempt_log"] = [_show_attempt(attempt) for attempt in row.attempt_log]
    return shown


def _show_attempt(attempt: Attempt) -> dict[str, Any]:
    shown = {
        "attempt": attempt.attempt,
        "started_at": format_time(attempt.started_ms),
        "duration_ms": attempt.duration_ms,
        "outcome": attempt.result.value,
        "status_code": attempt.status_code,
        "error": attempt.error,
        "next_at": _time(attempt.next_at_ms),
    }
    return {name: value for name, value in shown.items() if value is not None}


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else format_time(at_ms)


def _read_query(given: dict[str, str]) -> DeliveryQuery:
    status, since = given.get("status"), given.get("since")
    if status is not None and status not in tuple(Status):
        raise _bad("status", f"one of {', '.join(Status)}")
    try:
        since_ms = None if since is None else parse_moment_ms(since)
    except ValueError:
        raise _bad("since", MOMENT_FORM) from None
    after = cursor_place(given, _LIST)
    return DeliveryQuery(
        webhook_id=given.get("webhook_id"),
        status=None if status is None else Status(status),
        event_id=given.get("event_id"),
        since_ms=since_ms,
        after=None if after is None else Place(*after),
    )


def _bad(field: str, message: str) -> Problem:
    error = FieldError(field, "invalid", message)
    return Problem(422, "invalid_query", "A query parameter is not understood.", errors=[error])


async def owned_delivery(readers: Readers, number: int, delivery_id: str) -> FoundDelivery:
    """A delivery of a number that is open here.

    Raises:
        Problem: 404, there is none of this id, or it is remembered no longer; 503, the number is being taken over.
    """
    found = await read_owned(readers, number, lambda unit, held: find_delivery(unit, held, delivery_id))
    if found is None:
        raise no_delivery()
    return found


def no_delivery() -> Problem:
    """404 for a delivery."""
    return Problem(404, "not_found", "There is no delivery of this id, or it is remembered no longer.")
