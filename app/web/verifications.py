"""Verifications of the audit trail over HTTP: started at the worker that is asked, watched and cancelled at any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from app.web.audit_trail import decoded
from app.web.audit_verifier import VerificationRuns
from app.web.forward import HOP_HEADER
from app.web.problems import Problem
from app.web.requests import fields_of, query_of

if TYPE_CHECKING:
    from app.web.audit_trail import AuditApi
    from app.web.audit_verifier import AuditVerifier

__all__ = ["verification_routes"]

_PATH: Final = "/v1/governance/verifications"
_UNKNOWN: Final = "No worker remembers a verification of this id. Start another one."
ID_LIMIT: Final = 128


def verification_routes(api: AuditApi, verifier: AuditVerifier) -> list[web.RouteDef]:
    """Start, list, watch, cancel."""
    handlers = _Handlers(api, verifier)
    return [
        web.post(_PATH, handlers.start),
        web.get(_PATH, handlers.index),
        web.get(_PATH + "/{id}", handlers.show),
        web.delete(_PATH + "/{id}", handlers.cancel),
    ]


class _Handlers:
    def __init__(self, api: AuditApi, verifier: AuditVerifier) -> None:
        self._api = api
        self._verifier = verifier

    async def start(self, request: web.Request) -> web.Response:
        query_of(request, ())
        await fields_of(request, ())
        try:
            begun = self._verifier.start()
        except VerificationRuns as error:
            detail = f"This worker verifies already, as {error.running.id}: watch that one, or cancel it."
            raise Problem(409, "verification_runs", detail) from None
        return web.json_response({"id": begun.id}, status=202, headers={"Location": f"{_PATH}/{begun.id}"})

    async def index(self, request: web.Request) -> web.Response:
        query_of(request, ())
        items = [one.show() for one in self._verifier.all]
        missing: set[int] = set()
        if HOP_HEADER not in request.headers:
            for asked, page in await self._others(request):
                items += [] if page is None else page
                missing |= asked if page is None else set()
        items.sort(key=lambda item: str(item["started_at"]), reverse=True)
        return web.json_response({"items": items, "missing": sorted(missing)})

    async def show(self, request: web.Request) -> web.Response:
        query_of(request, ())
        found = self._verifier.find(_id_of(request))
        return await self._found(request, None if found is None else found.show())

    async def cancel(self, request: web.Request) -> web.Response:
        query_of(request, ())
        found = self._verifier.find(_id_of(request))
        if found is not None:
            await self._verifier.cancel(found)
        return await self._found(request, None if found is None else found.show())

    async def _found(self, request: web.Request, item: dict[str, Any] | None) -> web.Response:
        """The one of this worker, or of another; a worker that is asked by another one answers with a list."""
        if HOP_HEADER in request.headers:
            return web.json_response({"items": [] if item is None else [item], "missing": []})
        if item is None:
            item = next((page[0] for _, page in await self._others(request) if page), None)
        if item is None:
            raise Problem(404, "not_found", _UNKNOWN)
        return web.json_response(item)

    async def _others(self, request: web.Request) -> list[tuple[frozenset[int], list[dict[str, Any]] | None]]:
        ownership = self._api.ownership
        numbers = [number for number in range(ownership.count) if not ownership.is_mine(number)]
        return await self._api.forwarder.ask_owners(request, numbers, _read)


def _id_of(request: web.Request) -> str:
    """What the path asks for, where that can be an id at all: no other worker need be asked for anything else."""
    id_ = request.match_info["id"]
    if not id_ or len(id_) > ID_LIMIT:
        raise Problem(404, "not_found", _UNKNOWN)
    return id_


class _Page(msgspec.Struct):
    items: list[dict[str, Any]]


def _read(body: bytes) -> list[dict[str, Any]]:
    """Another worker's verifications.

    Raises:
        ValueError: They are none.
    """
    return decoded(body, _Page).items
