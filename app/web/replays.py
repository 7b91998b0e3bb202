"""Replays over HTTP: ask for one, watch it, cancel it, at any worker (contracts 8.3 and 9.5, Replay).

A replay runs at the owner of its webhook, and its id begins with the name of that worker; so the question how far it is
goes there, too.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from app.engine import OutputFailed
from app.events import STRUCTURED_HEADERS, AdminEventType, format_time, new_event, parse_time_ms
from app.replays import TooManyReplays
from app.web.auth import principal_of
from app.web.cursors import cursor_of, cursor_place
from app.web.forward import HOP_HEADER
from app.web.owned_rows import read_owned
from app.web.problems import FieldError, Problem
from app.web.requests import json_body, page_limit, query_of
from app.webhooks.errors import InvalidField
from app.webhooks.replay import DisabledTime, Selection
from app.webhooks.replay_request import read_replay, show_request
from tables.webhooks import WEBHOOKS, webhook_key

if TYPE_CHECKING:
    from app.engine import Ownership, Replica
    from app.replays import Replay, Replays
    from app.web.forward import Forwarder
    from app.web.webhook_commands import Sends
    from app.webhooks.model import WebhookRow
    from app.webhooks.replay_request import ReplayLimits, ReplayRequest
    from tables.delivery_queries import Readers

__all__ = ["ReplaysApi", "replay_routes"]

RETRY_AFTER_S: Final = 2
# A place is free when one of them ends.
QUEUE_RETRY_AFTER_S: Final = 30
ANNOUNCE_S: Final = 5.0
# Between what the owner has in its table and what its own copy of the log shows.
COPY_S: Final = 3.0
_LIST: Final = "replays"


@dataclass(frozen=True, slots=True)
class ReplaysApi:
    """What the routes work with.

    Attributes:
        replica: All webhooks, in memory.
        outputs: Takes the events for the auditors.
        events: `{prefix}.events`.
        source: Of those events.
        now_ms: Wall clock.
    """

    replays: Replays
    replica: Replica[WebhookRow]
    readers: Readers
    ownership: Ownership
    forwarder: Forwarder
    outputs: Sends
    events: str
    source: str
    limits: ReplayLimits
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000


def replay_routes(api: ReplaysApi) -> list[web.RouteDef]:
    """Ask for one, list, show and cancel."""
    handlers = _Handlers(api)
    return [
        web.post("/v1/webhooks/{id}/replay", handlers.create),
        web.get("/v1/replays", handlers.index),
        web.get("/v1/replays/{id}", handlers.show),
        web.delete("/v1/replays/{id}", handlers.cancel),
    ]


class _Handlers:
    def __init__(self, api: ReplaysApi) -> None:
        self._api = api

    async def create(self, request: web.Request) -> web.StreamResponse:
        query_of(request, ())
        api, webhook_id = self._api, request.match_info["id"]
        wanted = self._read(await json_body(request))
        number = api.ownership.number_of(webhook_key(webhook_id))
        if (answer := await api.forwarder.to_owner(request, number)) is not None:
            return answer
        row = await self._own_row(webhook_id, number)
        if not row.enabled:
            detail = "The webhook is disabled, and would miss what is replayed to it: enable it first."
            raise Problem(409, "webhook_disabled", detail)
        if wanted.since_disabled and row.disabled_at_ms is None:
            raise _refused(InvalidField("the webhook was never disabled: use since", field="/since_disabled"))
        replay = api.replays.active(webhook_id, wanted)
        if replay is None:
            replay = await self._begin(row, wanted, principal_of(request).name)
        return web.json_response(replay.show(), status=202, headers={"Location": f"/v1/replays/{replay.id}"})

    def _read(self, body: Any) -> ReplayRequest:
        try:
            return read_replay(body, self._api.limits, self._api.now_ms(), lambda: str(uuid.uuid4()))
        except InvalidField as error:
            raise _refused(error) from None

    async def _own_row(self, webhook_id: str, number: int) -> WebhookRow:
        """The webhook by the owner's table, once this worker's copy has it, too: the replay goes by the copy."""
        key, replica = webhook_key(webhook_id), self._api.replica
        row = await read_owned(self._api.readers, number, lambda unit, _held: unit.get(WEBHOOKS, key))
        if row is None or row.deleting:
            raise Problem(404, "not_found", "There is no webhook of this id.")
        if not await replica.wait_for(lambda: _shows(replica.rows.get(key), row), COPY_S):
            detail = "This worker is still reading the webhooks. Try again."
            raise Problem(503, "starting", detail, retry_after_s=RETRY_AFTER_S)
        return row

    async def _begin(self, row: WebhookRow, wanted: ReplayRequest, actor: str) -> Replay:
        """Tell the auditors, then start: what they do not know of does not happen."""
        api = self._api
        try:
            replay = api.replays.new(row.webhook_id, wanted, actor)
        except TooManyReplays:
            detail = "Too many replays wait at the owner of this webhook. Try again, or cancel one."
            raise Problem(429, "too_many_replays", detail, retry_after_s=QUEUE_RETRY_AFTER_S) from None
        disabled = None
        if row.disabled_at_ms is not None:
            enabled_at_ms = api.now_ms() if row.enabled_at_ms is None else row.enabled_at_ms
            disabled = DisabledTime(row.disabled_at_ms, enabled_at_ms)
        await self._announce(replay)
        api.replays.start(replay, Selection.of(wanted, disabled, api.limits.history_ms))
        return replay

    async def _announce(self, replay: Replay) -> None:
        asked = show_request(replay.request)
        event = new_event(
            id=replay.id,
            source=self._api.source,
            type=str(AdminEventType.OPERATOR_REPLAYED),
            subject=replay.webhook_id,
            time=format_time(replay.created_at_ms),
            data={
                "id": replay.id,
                "webhook_id": replay.webhook_id,
                "request": asked,
                "actor": {"id": replay.actor, "type": "token"},
            },
        )
        try:
            async with asyncio.timeout(ANNOUNCE_S):
                await self._api.outputs.send(
                    self._api.events, replay.webhook_id.encode(), event.posted, STRUCTURED_HEADERS
                )
        except (OutputFailed, TimeoutError) as error:
            detail = "Kafka does not answer, so that nothing was started. Try again, with the same request_id."
            raise Problem(503, "broker_unavailable", detail, retry_after_s=RETRY_AFTER_S) from error

    async def show(self, request: web.Request) -> web.StreamResponse:
        query_of(request, ())
        found = await self._find(request)
        return found if isinstance(found, web.StreamResponse) else web.json_response(found.show())

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        query_of(request, ())
        found = await self._find(request)
        if isinstance(found, web.StreamResponse):
            return found
        await self._api.replays.cancel(found)
        return web.json_response(found.show())

    async def _find(self, request: web.Request) -> Replay | web.StreamResponse:
        """The replay that is asked for, or the answer of the worker that has it."""
        api, replay_id = self._api, request.match_info["id"]
        worker = replay_id.rpartition(".")[0]
        if worker == api.replays.worker:
            if (replay := api.replays.get(replay_id)) is None:
                detail = (
                    "This worker has no replay of this id: it was started since, or 100 others have ended since."
                    " Ask for it again with the same request_id; nothing is sent twice."
                )
                raise Problem(404, "not_found", detail)
            return replay
        owner = api.ownership.worker(worker)
        if owner is None or HOP_HEADER in request.headers:
            detail = (
                "No worker has a replay of this id; if its worker is gone, so is the replay."
                " Ask for it again with the same request_id; nothing is sent twice."
            )
            raise Problem(404, "not_found", detail)
        return await api.forwarder.to_worker(request, owner)

    async def index(self, request: web.Request) -> web.StreamResponse:
        query = query_of(request, ("cursor", "limit"))
        limit, after = page_limit(query), cursor_place(query, _LIST)
        api = self._api
        shown = [(replay.place, replay.show()) for replay in api.replays.all()]
        pages = [_Page.of([item for item in shown if after is None or _order(item[0]) > _order(after)], limit)]
        missing: set[int] = set()
        if HOP_HEADER not in request.headers:
            others = [number for number in range(api.ownership.count) if not self._is_here(number)]
            answers = await api.forwarder.ask_owners(request, others, _Page.read)
            pages += [page for _, page in answers if page is not None]
            missing = {number for asked, page in answers if page is None for number in asked}
        items = {item["id"]: (place, item) for page in pages for place, item in page.items}
        merged = _Page.of(list(items.values()), limit)
        more = merged.more or any(page.more for page in pages)
        cursor = cursor_of(*merged.items[-1][0], _LIST) if more and merged.items else None
        document = {"items": [item for _, item in merged.items], "next_cursor": cursor, "missing": sorted(missing)}
        return web.json_response(document)

    def _is_here(self, number: int) -> bool:
        owner = self._api.ownership.owner(number)
        return owner is not None and owner.name == self._api.replays.worker


class _Answer(msgspec.Struct):
    """What is read of a page that another worker answers with."""

    items: list[dict[str, Any]]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class _Page:
    """A part of a list, newest first, each item with its place.

    Attributes:
        more: Whether there is something behind it.
    """

    items: list[tuple[tuple[int, str], dict[str, Any]]]
    more: bool

    @classmethod
    def of(cls, items: list[tuple[tuple[int, str], dict[str, Any]]], limit: int) -> _Page:
        items = sorted(items, key=lambda item: _order(item[0]))
        return cls(items[:limit], len(items) > limit)

    @classmethod
    def read(cls, body: bytes) -> _Page:
        """Another worker's page.

        Raises:
            ValueError: It is none.
        """
        try:
            answer = msgspec.json.decode(body, type=_Answer)
            items = [(_place(item), item) for item in answer.items]
        except (msgspec.MsgspecError, KeyError, TypeError) as error:
            raise ValueError("not a page of replays") from error
        return cls(items, answer.next_cursor is not None)


def _place(item: dict[str, Any]) -> tuple[int, str]:
    return parse_time_ms(item["created_at"]), str(item["id"]).rpartition(".")[2]


def _order(place: tuple[int, str]) -> tuple[int, str]:
    at_ms, id_ = place
    return -at_ms, id_


def _shows(copy: WebhookRow | None, row: WebhookRow) -> bool:
    """Whether a copy is not older than the row, as far as a replay cares."""
    if copy is None:
        return False
    return copy.version >= row.version and (copy.enabled == row.enabled or copy.version > row.version)


def _refused(error: InvalidField) -> Problem:
    field = FieldError(error.field, error.code, error.detail)
    return Problem(422, error.code, f"{error.field or 'the body'}: {error.detail}", errors=[field])
