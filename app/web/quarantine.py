"""Quarantine over HTTP: list, show, and republish one by one or by filter (contracts 8.3 and 9.2). Any worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from confluent_kafka import KafkaException

from app.engine import LogUnavailable
from app.redrive.entries import REASONS, Entry, Filter, plan_of, read_entry, show_bytes, show_entry
from app.redrive.republish import Redriven, batches, redrive
from app.web.auth import principal_of
from app.web.log_lists import LogList, log_cursor, one, time_of, whole
from app.web.problems import FieldError, Problem
from app.web.requests import fields_of, flag_of, page_limit, query_of

if TYPE_CHECKING:
    from app.engine import Record, TopicLog
    from app.redrive.operator import Transactions
    from app.topics import Topics

__all__ = ["QuarantineApi", "quarantine_routes"]

REPUBLISH_LIMIT: Final = 10_000
RETRY_AFTER_S: Final = 2
_TEXTS: Final = ("reason", "agent", "type", "topic", "origin")
_FILTER: Final = (*_TEXTS, "since", "until")


@dataclass(frozen=True, slots=True)
class QuarantineApi:
    """What the routes work with.

    Attributes:
        log: The quarantine topic.
        producer: Makes a producer of transactions that is this worker's alone; it blocks.
    """

    log: TopicLog
    topics: Topics
    producer: Callable[[], Transactions]


def quarantine_routes(api: QuarantineApi) -> list[web.RouteDef]:
    """List, show, republish."""
    handlers = _Quarantine(api)
    return [
        web.get("/v1/quarantine", handlers.index),
        web.post("/v1/quarantine/republish", handlers.republish_many),
        web.get("/v1/quarantine/{id}", handlers.show),
        web.post("/v1/quarantine/{id}/republish", handlers.republish),
    ]


class _Quarantine:
    def __init__(self, api: QuarantineApi) -> None:
        self._api = api
        self._entries = LogList(api.log, _listed, lambda entry: entry.record.first_origin)
        # A second producer under the same transactional id would fence the first.
        self._one_at_a_time = asyncio.Lock()

    async def index(self, request: web.Request) -> web.Response:
        given = query_of(request, (*_FILTER, "cursor", "limit"))
        limit, only = page_limit(given), _filter_of(given, "")
        page = await self._entries.page(only.takes, log_cursor(given.get("cursor"), self._api.log), limit)
        return web.json_response(
            {"items": [show_entry(entry) for entry in page.items], "next_cursor": page.next_cursor}
        )

    async def show(self, request: web.Request) -> web.Response:
        query_of(request, ())
        entry = await self._entry(request.match_info["id"])
        return web.json_response({**show_entry(entry), **show_bytes(entry)})

    async def republish(self, request: web.Request) -> web.Response:
        query_of(request, ())
        await fields_of(request, ())
        entry = await self._entry(request.match_info["id"])
        done = await self._put_back([entry], {"ids": 1}, request)
        if (reason := done.refused.get(entry.id)) is not None:
            raise Problem(409, "refused", f"It cannot be put back: {reason}.")
        return web.json_response({"id": entry.id, "to": done.republished[entry.id]})

    async def republish_many(self, request: web.Request) -> web.Response:
        """Those of a filter, in the order of their origins; `dry_run` says what would be done."""
        query_of(request, ())
        body = await fields_of(request, (*_FILTER, "all", "dry_run"))
        only, dry_run = _filter_of(body, "/"), flag_of(body, "dry_run")
        if flag_of(body, "all") != only.empty:
            error = FieldError("", "invalid", f"a filter of {', '.join(_FILTER)}, or all: true")
            raise Problem(422, "invalid_field", "Say what is to be republished.", errors=[error])
        chosen = await self._entries.all(only.takes, REPUBLISH_LIMIT)
        if chosen is None:
            detail = f"More than {REPUBLISH_LIMIT} records are meant; narrow it, by since and until for example."
            raise Problem(409, "too_many", detail)
        if dry_run:
            return web.json_response(plan_of(chosen))
        done = await self._put_back(chosen, only.words, request)
        return web.json_response({"republished": done.republished, "refused": done.refused})

    async def _put_back(self, chosen: Sequence[Entry], words: Mapping[str, Any], request: web.Request) -> Redriven:
        actor = {"id": principal_of(request).name, "type": "token"}
        done = Redriven()
        if not chosen:
            return done
        async with self._one_at_a_time:
            try:
                producer = await asyncio.to_thread(self._api.producer)
                for part in batches(sorted(chosen, key=lambda entry: entry.place)):
                    entries = await self._whole(part)
                    put_back = partial(redrive, producer, self._api.topics, iter(entries), producer.partitions)
                    some = await asyncio.to_thread(put_back, words, _ignore, actor)
                    done.republished |= some.republished
                    done.refused |= some.refused
            except (KafkaException, LogUnavailable):
                told = f"The broker failed after {len(done.republished)} records; the audit trail names them."
                raise Problem(503, "log_unavailable", told, retry_after_s=RETRY_AFTER_S) from None
        return done

    async def _whole(self, part: Sequence[Entry]) -> list[Entry]:
        """The same entries with their bytes; what retention took meanwhile is left out."""
        found = await whole(self._api.log, (entry.id for entry in part), _entry_of)
        return [found[entry.id] for entry in part if entry.id in found]

    async def _entry(self, id_: str) -> Entry:
        entry = await one(self._api.log, id_, _entry_of)
        if entry is None:
            raise Problem(404, "not_found", "Nothing in quarantine has this id, or it is kept no longer.")
        return entry


def _entry_of(record: Record) -> Entry | None:
    return read_entry(record.partition, record.offset, record.timestamp, record.value, record.headers)


def _listed(record: Record) -> Entry | None:
    entry = _entry_of(record)
    return None if entry is None else entry.without_bytes()


def _filter_of(given: Mapping[str, Any], before: str) -> Filter:
    errors = [
        FieldError(f"{before}{name}", "invalid", "a text")
        for name in _TEXTS
        if not isinstance(given.get(name), str | None)
    ]
    if not errors and given.get("reason") not in (None, *REASONS):
        errors.append(FieldError(f"{before}reason", "invalid", f"one of {', '.join(REASONS)}"))
    if errors:
        raise Problem(422, "invalid_query", "A filter is not understood.", errors=errors)
    since_ms, until_ms = (time_of(given, name, f"{before}{name}") for name in ("since", "until"))
    return Filter(**{name: given.get(name) for name in _TEXTS}, since_ms=since_ms, until_ms=until_ms)


def _ignore(_: int) -> None:
    """Progress, which nobody watches here."""
