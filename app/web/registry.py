"""The registry over HTTP: synchronise, link, and look at one dataset, at any worker (contracts 8.3 and 9.5).

A synchronisation has no home: every number counts for itself, and whoever is asked puts the counts together.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from app.engine import OutputFailed, Revoked
from app.events import STRUCTURED_HEADERS, format_time
from app.integrations.registry import DELETED, document, is_clean, status_of
from app.integrations.registry_links import MAX_LINKS, RELATIONSHIPS
from app.integrations.registry_messages import SYNC_ASKED, key_of_number, link_message, sync_message
from app.integrations.registry_sync import SyncMode, merge_parts
from app.web.forward import HOP_HEADER
from app.web.owned_rows import taken_over
from app.web.problems import FieldError, Problem
from app.web.requests import fields_of, query_of
from app.web.webhook_commands import uuid7

if TYPE_CHECKING:
    from app.engine import Ownership
    from app.integrations.registry import DatasetRow, Link
    from app.web.forward import Forwarder
    from app.web.webhook_commands import Sends
    from tables.datasets import DatasetReaders

__all__ = ["RegistryApi", "registry_routes", "show_dataset"]

RETRY_AFTER_S: Final = 2
OFF_RETRY_AFTER_S: Final = 10
SEND_S: Final = 5.0
# Until then a number may not have heard of it: the log between is read in order.
YOUNG_MS: Final = 60_000
MAX_SYNCS: Final = 20
MAX_ID_CHARS: Final = 512
MAX_MODEL_CHARS: Final = 256
_UUID7: Final = 7

Part = dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class RegistryApi:
    """What the routes work with.

    Attributes:
        datasets: The topic by which the owners of datasets hear of everything.
        source: Of what is sent there.
        mode: Of a synchronisation that does not say.
        off: There is no registry.
        now_ms: Wall clock.
    """

    readers: DatasetReaders
    ownership: Ownership
    forwarder: Forwarder
    outputs: Sends
    datasets: str
    source: str
    mode: SyncMode
    off: bool
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    random_bytes: Callable[[int], bytes] = secrets.token_bytes


def registry_routes(api: RegistryApi) -> list[web.RouteDef]:
    """How it is, synchronise, watch, link, show."""
    handlers = _Handlers(api)
    return [
        web.get("/v1/registry/status", handlers.status),
        web.post("/v1/registry/sync", handlers.sync),
        web.get("/v1/registry/sync/{id}", handlers.watch),
        web.post("/v1/registry/links", handlers.link),
        web.get("/v1/registry/datasets/{id}", handlers.dataset),
    ]


class _Handlers:
    def __init__(self, api: RegistryApi) -> None:
        self._api = api

    async def status(self, request: web.Request) -> web.Response:
        query_of(request, ())
        api = self._api
        numbers = range(api.ownership.count)
        own = await asyncio.gather(*(self._own_status(number) for number in numbers))
        known = {number: told for number, told in zip(numbers, own, strict=True) if told is not None}
        missing = set(numbers) - known.keys()
        ids = {sync_id for told, _ in known.values() for sync_id in told}
        waiting = sum(count for _, count in known.values())
        if missing and HOP_HEADER not in request.headers:
            answers = await api.forwarder.ask_owners(request, sorted(missing), _read_status)
            told_by = [page for _, page in answers if page is not None]
            ids |= {sync.id for page in told_by for sync in page.syncs}
            waiting += sum(page.waiting for page in told_by)
            missing = set(
                chain.from_iterable(asked if page is None else asked & page.missing for asked, page in answers)
            )
        # By their ids they are in the order of time.
        syncs = [{"id": one, "asked_at": format_time(_asked_ms(one) or 0)} for one in sorted(ids, reverse=True)]
        shown = {"off": api.off, "mode": api.mode.value, "waiting": waiting, "syncs": syncs[:MAX_SYNCS]}
        return web.json_response({**shown, "missing": sorted(missing)})

    async def _own_status(self, number: int) -> tuple[list[str], int] | None:
        """What is known here; None where the number is not owned."""
        reader = self._api.readers.get(number)
        if reader is None or not self._api.ownership.is_mine(number):
            return None
        try:
            return await reader.syncs()
        except Revoked:
            return None

    async def sync(self, request: web.Request) -> web.Response:
        query_of(request, ())
        api, body = self._api, await fields_of(request, ("mode",))
        mode = _one_of(body, "mode", tuple(SyncMode), api.mode.value)
        if api.off:
            setting = "VAULT_STREAM_REGISTRY__ENDPOINT"
            detail = f"There is no dataset registry to tell or ask: set {setting} and restart the workers."
            raise Problem(503, "registry_off", detail, retry_after_s=OFF_RETRY_AFTER_S, setting=setting)
        now_ms = api.now_ms()
        sync_id = uuid7(now_ms, api.random_bytes)
        value = sync_message(SYNC_ASKED, sync_id, SyncMode(mode), api.source, now_ms)
        await self._send(key_of_number(0, api.ownership.count), value)
        return web.json_response({"id": sync_id}, status=202, headers={"Location": f"/v1/registry/sync/{sync_id}"})

    async def watch(self, request: web.Request) -> web.Response:
        query_of(request, ())
        api, sync_id = self._api, request.match_info["id"]
        asked_ms = _asked_ms(sync_id)
        parts = {} if asked_ms is None else await self._parts(request, sync_id)
        young = asked_ms is not None and api.now_ms() - asked_ms < YOUNG_MS
        found = merge_parts(sync_id, parts, api.ownership.count, young=young)
        if asked_ms is None or (found is None and HOP_HEADER not in request.headers):
            detail = "There is no synchronisation of this id, or no worker remembers it. Ask for another one."
            raise Problem(404, "not_found", detail)
        shown = {"id": sync_id, "state": "failed"} if found is None else found.show()
        missing = sorted(set(range(api.ownership.count)) - parts.keys())
        told = {str(number): part for number, part in sorted(parts.items())}
        return web.json_response({**shown, "missing": missing, "parts": told})

    async def _parts(self, request: web.Request, sync_id: str) -> dict[int, Part]:
        """By number, of every owner that answers."""
        api = self._api
        numbers = range(api.ownership.count)
        own = await asyncio.gather(*(self._own_part(number, sync_id) for number in numbers))
        parts = {number: told[0] for number, told in zip(numbers, own, strict=True) if told}
        if HOP_HEADER not in request.headers:
            others = [number for number in numbers if number not in parts]
            for _, answer in await api.forwarder.ask_owners(request, others, _read_parts):
                parts |= answer or {}
        return parts

    async def _own_part(self, number: int, sync_id: str) -> tuple[Part, ...]:
        """What is known of it here; empty where the number is not owned."""
        reader = self._api.readers.get(number)
        if reader is None or not self._api.ownership.is_mine(number):
            return ()
        try:
            return (await reader.sync(sync_id),)
        except Revoked:
            return ()

    async def link(self, request: web.Request) -> web.StreamResponse:
        query_of(request, ())
        api, body = self._api, await fields_of(request, ("dataset_id", "model_id", "relationship"))
        dataset_id, model_id = _text(body, "dataset_id", MAX_ID_CHARS), _text(body, "model_id", MAX_MODEL_CHARS)
        relationship = _one_of(body, "relationship", RELATIONSHIPS)
        row = await self._owned(request, dataset_id)
        if isinstance(row, web.StreamResponse):
            return row
        if row is None:
            raise _unknown()
        if status_of(row) == DELETED:
            raise Problem(409, "deleted", "The dataset is deleted: link the model to one that is there.")
        known = next((one for one in row.links if (one.model_id, one.relationship) == (model_id, relationship)), None)
        if known is not None and known.status != "refused":
            return web.json_response(_show_link(row, known), status=202)
        if len(row.links) >= MAX_LINKS:
            raise Problem(409, "too_many_links", f"A dataset has at most {MAX_LINKS} links.")
        now_ms = api.now_ms()
        named = {"dataset_id": dataset_id, "model_id": model_id, "relationship": relationship}
        value = link_message(id_=uuid7(now_ms, api.random_bytes), source=api.source, at_ms=now_ms, **named)
        await self._send(dataset_id.encode(), value)
        return web.json_response({**named, "linked_at": format_time(now_ms), "status": "waiting"}, status=202)

    async def dataset(self, request: web.Request) -> web.StreamResponse:
        query_of(request, ())
        row = await self._owned(request, request.match_info["id"])
        if isinstance(row, web.StreamResponse):
            return row
        if row is None:
            raise _unknown()
        return web.json_response(show_dataset(row))

    async def _owned(self, request: web.Request, dataset_id: str) -> DatasetRow | web.StreamResponse | None:
        """The row, by its owner's table, or the answer of its owner."""
        number = self._api.ownership.number_of(dataset_id.encode())
        if (answer := await self._api.forwarder.to_owner(request, number)) is not None:
            return answer
        reader = self._api.readers.get(number)
        try:
            if reader is not None:
                return await reader.dataset(dataset_id)
        except Revoked:
            pass
        raise taken_over()

    async def _send(self, key: bytes, value: bytes) -> None:
        try:
            async with asyncio.timeout(SEND_S):
                await self._api.outputs.send(self._api.datasets, key, value, STRUCTURED_HEADERS)
        except (OutputFailed, TimeoutError) as error:
            detail = "Kafka does not answer; what was asked for may happen all the same. Try again."
            raise Problem(503, "unconfirmed", detail, retry_after_s=RETRY_AFTER_S) from error


def show_dataset(row: DatasetRow) -> dict[str, Any]:
    """A dataset as the API shows it."""
    told = document(row)
    if told is None and status_of(row) != DELETED:
        state = "unnamed"
    elif is_clean(row):
        state = "synced"
    else:
        state = "refused" if row.refused >= row.version else "waiting"
    shown = {
        "id": row.id,
        "status": status_of(row),
        "state": state,
        "origin": row.origin,
        "state_version": row.version,
        "acknowledged_version": row.pushed,
        "registration_id": row.registration_id,
        "document": told,
        "vault_changed_at": _time(row.vault_ms),
        "registry_changed_at": _time(row.seen_ms),
        "deleted_at": _time(row.deleted_ms),
    }
    shown = {name: value for name, value in shown.items() if value is not None}
    return {**shown, "links": [_show_link(row, link) for link in row.links]}


def _show_link(row: DatasetRow, link: Link) -> dict[str, Any]:
    return {
        "dataset_id": row.id,
        "model_id": link.model_id,
        "relationship": link.relationship,
        "linked_at": format_time(link.asked_ms),
        "status": link.status,
    }


class _Answer(msgspec.Struct):
    """What is read of another worker's answer."""

    parts: dict[str, Part]


class _Sync(msgspec.Struct):
    id: str


class _StatusPage(msgspec.Struct):
    """What is read of another worker's status."""

    waiting: int
    syncs: list[_Sync]
    missing: frozenset[int]


def _read_status(body: bytes) -> _StatusPage:
    """Another worker's status.

    Raises:
        ValueError: It is none.
    """
    try:
        return msgspec.json.decode(body, type=_StatusPage)
    except msgspec.MsgspecError as error:
        raise ValueError("not the status of the registry") from error


def _read_parts(body: bytes) -> dict[int, Part]:
    """Another worker's parts.

    Raises:
        ValueError: They are none.
    """
    try:
        parts = msgspec.json.decode(body, type=_Answer).parts
    except msgspec.MsgspecError as error:
        raise ValueError("no parts of a synchronisation") from error
    return {int(number): part for number, part in parts.items()}


def _asked_ms(sync_id: str) -> int | None:
    """When a synchronisation was asked for, by its id; None: it is no such id."""
    try:
        found = uuid.UUID(sync_id)
    except ValueError:
        return None
    return found.int >> 80 if found.version == _UUID7 and str(found) == sync_id else None


def _text(body: dict[str, Any], name: str, most: int) -> str:
    value = body.get(name)
    if isinstance(value, str) and 0 < len(value) <= most:
        return value
    raise _refused(name, f"a string of 1 to {most} characters", missing=value is None)


def _one_of(body: dict[str, Any], name: str, known: tuple[str, ...], default: str | None = None) -> str:
    value = body.get(name, default)
    if isinstance(value, str) and value in known:
        return value
    raise _refused(name, f"one of {', '.join(known)}", missing=value is None)


def _refused(name: str, told: str, *, missing: bool) -> Problem:
    told = f"is missing: {told}" if missing else told
    field = FieldError(f"/{name}", "missing" if missing else "invalid", told)
    return Problem(422, "invalid_field", f"/{name}: {told}", errors=[field])


def _unknown() -> Problem:
    return Problem(404, "not_found", "Neither vault nor registry has told of a dataset of this id.")


def _time(at_ms: int) -> str | None:
    return format_time(at_ms) if at_ms >= 0 else None
