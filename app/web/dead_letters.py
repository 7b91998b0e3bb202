"""Dead letters over HTTP: list, show, and resend one by one or by filter (contracts 8.3). Any worker, no owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web

from app.engine import LogUnavailable
from app.web.auth import principal_of
from app.web.log_lists import LogList, log_cursor, one, time_of, unavailable, whole
from app.web.problems import FieldError, Problem
from app.web.requests import fields_of, flag_of, page_limit, query_of
from app.web.resend import Again, Resender, letter_of
from app.webhooks.dead_letters import DeadLetterFilter, show_dead_letter
from app.webhooks.model import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from app.engine import Record
    from app.web.resend import ResendApi
    from app.webhooks.dead_letters import DeadLetter

__all__ = ["dead_letter_routes"]

_FILTER: Final = ("webhook_id", "reason", "event_type", "since", "until")
_REASONS: Final = tuple(map(str, (Reason.EXHAUSTED, Reason.REJECTED, Reason.EXPIRED)))
# Sent in one request; the cursor of its answer goes on.
RESEND_LIMIT: Final = 500
# An event may have 256 KiB.
BODIES_AT_ONCE: Final = 100


def dead_letter_routes(api: ResendApi) -> list[web.RouteDef]:
    """List, show, resend."""
    handlers = _DeadLetters(api)
    return [
        web.get("/v1/dead-letters", handlers.index),
        web.post("/v1/dead-letters/resend", handlers.resend_many),
        web.get("/v1/dead-letters/{id}", handlers.show),
        web.post("/v1/dead-letters/{id}/resend", handlers.resend),
    ]


class _DeadLetters:
    def __init__(self, api: ResendApi) -> None:
        self._log = api.dead_letters
        self._resender = Resender(api)

    async def index(self, request: web.Request) -> web.Response:
        given = query_of(request, (*_FILTER, "cursor", "limit"))
        limit, only = page_limit(given), _filter_of(given, "")
        letters = LogList(self._log, _listed, lambda letter: letter.delivery_id)
        page = await letters.page(only.takes, log_cursor(given.get("cursor"), self._log), limit)
        items = [show_dead_letter(letter) for letter in page.items]
        return web.json_response({"items": items, "next_cursor": page.next_cursor}, dumps=_dumps)

    async def show(self, request: web.Request) -> web.Response:
        query_of(request, ())
        letter = await self._letter(request.match_info["id"])
        shown = {**show_dead_letter(letter), "event": orjson.Fragment(letter.event or b"null")}
        return web.json_response(shown, dumps=_dumps)

    async def resend(self, request: web.Request) -> web.Response:
        query_of(request, ())
        await fields_of(request, ())
        request_id = self._resender.request_id(request)
        letter = await self._letter(request.match_info["id"])
        if (why := self._resender.refusal(letter.webhook_id, letter.event_expires_ms)) is not None:
            raise Problem(409, *why)
        if letter.event is None:
            raise Problem(410, "body_gone", "This dead letter does not have the event, so there is nothing to send.")
        ids = await self._resender.send([_again(letter, letter.event)], request_id, principal_of(request).name)
        answer = {"delivery_id": letter.delivery_id, "request_id": ids[letter.delivery_id]}
        return web.json_response(answer, status=202)

    async def resend_many(self, request: web.Request) -> web.Response:
        """Those of a filter, some hundred a request, the newest first; of those the oldest goes first."""
        query_of(request, ())
        body = await fields_of(request, (*_FILTER, "all", "cursor"))
        if flag_of(body, "all") == any(body.get(name) is not None for name in _FILTER):
            error = FieldError("", "invalid", f"a filter of {', '.join(_FILTER)}, or all: true")
            raise Problem(422, "invalid_field", "Say which dead letters are to be sent again.", errors=[error])
        only, request_id = _filter_of(body, "/"), self._resender.request_id(request)
        letters = LogList(self._log, _listed, lambda letter: letter.delivery_id)
        below = log_cursor(_text(body, "cursor", "/"), self._log, "/cursor")
        page = await letters.page(only.takes, below, RESEND_LIMIT)
        resent: list[str] = []
        refused: list[dict[str, str]] = []
        oldest_first = page.items[::-1]
        for start in range(0, len(oldest_first), BODIES_AT_ONCE):
            again: list[Again] = []
            for letter in await self._whole(oldest_first[start : start + BODIES_AT_ONCE]):
                why = self._resender.refusal(letter.webhook_id, letter.event_expires_ms)
                if why is None and letter.event is not None:
                    again.append(_again(letter, letter.event))
                else:
                    code = "body_gone" if why is None else why[0]
                    refused.append({"id": letter.id, "delivery_id": letter.delivery_id, "code": code})
            if again:
                resent += await self._resender.send(again, request_id, principal_of(request).name)
        answer = {"resent": resent, "refused": refused, "next_cursor": page.next_cursor}
        return web.json_response(answer, status=202)

    async def _whole(self, listed: Sequence[DeadLetter]) -> list[DeadLetter]:
        """The same dead letters with their events, as far as retention has left them."""
        try:
            found = await whole(self._log, (letter.id for letter in listed), letter_of)
        except LogUnavailable:
            raise unavailable() from None
        return [found.get(letter.id, letter) for letter in listed]

    async def _letter(self, id_: str) -> DeadLetter:
        letter = await one(self._log, id_, letter_of)
        if letter is None:
            raise Problem(404, "not_found", "There is no dead letter of this id, or it is kept no longer.")
        return letter


def _listed(record: Record) -> DeadLetter | None:
    letter = letter_of(record)
    return None if letter is None else letter.without_event()


def _again(letter: DeadLetter, event: bytes) -> Again:
    return Again(letter.delivery_id, letter.webhook_id, letter.origin, event)


def _filter_of(given: Mapping[str, Any], before: str) -> DeadLetterFilter:
    reason = _text(given, "reason", before)
    if reason not in (None, *_REASONS):
        error = FieldError(f"{before}reason", "invalid", f"one of {', '.join(_REASONS)}")
        raise Problem(422, "invalid_query", "A filter is not understood.", errors=[error])
    return DeadLetterFilter(
        webhook_id=_text(given, "webhook_id", before),
        reason=reason,
        event_type=_text(given, "event_type", before),
        since_ms=time_of(given, "since", f"{before}since"),
        until_ms=time_of(given, "until", f"{before}until"),
    )


def _text(given: Mapping[str, Any], name: str, before: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        error = FieldError(f"{before}{name}", "invalid", "a text")
        raise Problem(422, "invalid_query", "A filter is not understood.", errors=[error])
    return value


def _dumps(value: Any) -> str:
    return orjson.dumps(value).decode()
