"""An export of the audit trail over HTTP: streamed, so that what is in memory of it is a few blocks of records.

A worker that passes an export on asks the owners where the chains can be taken up, and reads the topic itself.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from app.engine import LogUnreadable, OutputFailed, Revoked
from app.events import MOMENT_FORM, STRUCTURED_HEADERS, AdminEventType, format_time, new_event, parse_moment_ms
from app.integrations.export import FORMATS, Anchor, PartitionExport, Span, choose_anchor, writer_of
from app.web.audit_trail import EXPORTS_AT_ONCE, RETRY_AFTER_S, broker_away, decoded, still_missing
from app.web.auth import principal_of
from app.web.forward import HOP_HEADER
from app.web.problems import FieldError, Problem
from app.web.requests import query_of
from tables.audit_queries import LineState, anchors_near

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.engine import Record
    from app.integrations.export import Writer
    from app.web.audit_trail import AuditApi

__all__ = ["ExportHandler"]

log = logging.getLogger("app.web.governance")

EXPORTS_RETRY_AFTER_S: Final = 30
ANNOUNCE_S: Final = 5.0
MAX_RESOURCE_CHARS: Final = 1024
# Others want the loop, too.
_RECORDS_A_TURN: Final = 32
_QUERY: Final = ("from", "to", "resource", "format")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be exported."""

    from_ms: int | None
    to_ms: int | None
    resource: str | None
    format: str

    def show(self) -> dict[str, Any]:
        shown = {
            "from": None if self.from_ms is None else format_time(self.from_ms),
            "to": None if self.to_ms is None else format_time(self.to_ms),
            "resource": self.resource,
            "format": self.format,
        }
        return {name: value for name, value in shown.items() if value is not None}


class ExportHandler:
    """`GET /v1/governance/export`."""

    def __init__(self, api: AuditApi) -> None:
        self._api = api

    async def export(self, request: web.Request) -> web.StreamResponse:
        """See the class."""
        asked = _read_query(query_of(request, _QUERY))
        if request.method == "HEAD":
            return web.Response(headers=_headers(asked.format))
        bounds = await self._api.bounds()
        spans = await self._spans(asked, bounds)
        local, missing = await self._local_anchors(spans)
        if HOP_HEADER in request.headers:
            return web.json_response(_AnchorPage.of(local, missing))
        if missing:
            answers = await self._api.forwarder.ask_owners(request, sorted(missing), _AnchorPage.read)
            for _, page in answers:
                local |= page.anchors() if page is not None else {}
            missing = still_missing(answers)
        if missing:
            raise Problem(503, "no_owner", "A partition is being taken over. Try again.", retry_after_s=RETRY_AFTER_S)
        found = [
            Span(partition, *places, choose_anchor(local.get(partition, ()), bounds[partition][0], places[0]))
            for partition, places in sorted(spans.items())
        ]
        if self._api.exports.locked():
            detail = f"{EXPORTS_AT_ONCE} exports run at this worker. Try again when one has ended."
            raise Problem(429, "too_many_exports", detail, retry_after_s=EXPORTS_RETRY_AFTER_S)
        async with self._api.exports:
            await self._announce(asked, principal_of(request).name)
            return await self._stream(request, asked, found)

    async def _spans(self, asked: _Asked, bounds: Mapping[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
        """By partition the first offset that is asked for, and the one behind the last."""
        places = [(self._api.topic, partition) for partition in bounds]
        try:
            firsts = {} if asked.from_ms is None else await self._api.log.offsets_at(places, asked.from_ms)
            untils = {} if asked.to_ms is None else await self._api.log.offsets_at(places, asked.to_ms)
        except LogUnreadable:
            raise broker_away() from None
        spans: dict[int, tuple[int, int]] = {}
        for partition, (begin, end) in bounds.items():
            tp = (self._api.topic, partition)
            first = firsts.get(tp, begin) if asked.from_ms is None else firsts.get(tp)
            until = untils.get(tp, end) if asked.to_ms is None else untils.get(tp)
            first = end if first is None else min(max(first, begin), end)
            spans[partition] = first, max(first, end if until is None else min(until, end))
        return spans

    async def _local_anchors(self, spans: Mapping[int, tuple[int, int]]) -> tuple[dict[int, list[Anchor]], set[int]]:
        """Where the chains can be taken up, of what is owned here; and the numbers that are not."""
        api = self._api
        if not api.sealing:
            return {}, set()
        found: dict[int, list[Anchor]] = {}
        missing: set[int] = set()
        for number in range(api.ownership.count):
            reader = api.readers.get(number)
            wanted = {p: spans[p][0] for p in api.partitions_of(number, spans)}
            if reader is None or not api.ownership.is_mine(number):
                missing.add(number)
                continue
            try:
                found |= await reader.read(
                    lambda unit, states, wanted=wanted: {  # type: ignore[misc]  # a default binds it
                        partition: anchors_near(unit, partition, first, _head_of(states, partition))
                        for partition, first in wanted.items()
                    }
                )
            except Revoked:
                missing.add(number)
        return found, missing

    async def _announce(self, asked: _Asked, actor: str) -> None:
        """What the auditors do not know of does not happen."""
        api = self._api
        event = new_event(
            id=str(uuid.uuid4()),
            source=api.source,
            type=str(AdminEventType.OPERATOR_EXPORTED),
            subject=api.topic,
            data={"id": api.topic, **asked.show(), "actor": {"id": actor, "type": "token"}},
        )
        try:
            async with asyncio.timeout(ANNOUNCE_S):
                await api.outputs.send(api.events, api.topic.encode(), event.posted, STRUCTURED_HEADERS)
        except (OutputFailed, TimeoutError):
            raise broker_away() from None

    async def _stream(self, request: web.Request, asked: _Asked, spans: Sequence[Span]) -> web.StreamResponse:
        writer = writer_of(asked.format)
        response = web.StreamResponse(headers=_headers(asked.format))
        await response.prepare(request)
        try:
            await self._write(
                response, writer, {span.partition: PartitionExport(span, asked.resource) for span in spans}
            )
        except (LogUnreadable, ConnectionError) as error:
            # The status is gone out: only an answer that breaks off says that it is not whole.
            log.warning("an export broke off", extra={"error": str(error)})
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _write(self, response: web.StreamResponse, writer: Writer, folds: Mapping[int, PartitionExport]) -> None:
        start = {(self._api.topic, partition): fold.span.start for partition, fold in folds.items()}
        until = {(self._api.topic, partition): fold.span.until for partition, fold in folds.items()}
        await response.write(writer.head())
        async with aclosing(self._api.log.read(start, until)) as blocks:
            async for records in blocks:
                for at in range(0, len(records), _RECORDS_A_TURN):
                    await response.write(_lines(records[at : at + _RECORDS_A_TURN], folds, writer))
                    await asyncio.sleep(0)
        for fold in folds.values():
            await response.write(writer.trailer(fold.trailer(len(folds))))
        await response.write_eof()


def _headers(format_: str) -> dict[str, str]:
    disposition = f'attachment; filename="audit.{format_}"'
    return {"Content-Disposition": disposition, "Content-Type": f"{writer_of(format_).kind}; charset=utf-8"}


def _lines(records: Sequence[Record], folds: Mapping[int, PartitionExport], writer: Writer) -> bytes:
    found = (folds[record.partition].add(record.offset, record.timestamp, record.value) for record in records)
    return b"".join(writer.entry(entry) for entry in found if entry is not None)


def _head_of(states: Mapping[int, LineState], partition: int) -> Any:
    state = states.get(partition)
    return state.head if state else None


class _AnchorRow(msgspec.Struct):
    partition: int
    first: int
    previous_hash: str


class _AnchorPage(msgspec.Struct):
    """What another worker knows of where chains can be taken up."""

    items: list[_AnchorRow]
    missing: frozenset[int]

    @classmethod
    def of(cls, anchors: Mapping[int, Iterable[Anchor]], missing: Iterable[int]) -> dict[str, Any]:
        items = [
            {"partition": partition, "first": anchor.first, "previous_hash": anchor.previous_hash}
            for partition, found in sorted(anchors.items())
            for anchor in found
        ]
        return {"items": items, "missing": sorted(missing)}

    @classmethod
    def read(cls, body: bytes) -> _AnchorPage:
        """Another worker's answer.

        Raises:
            ValueError: It is none.
        """
        return decoded(body, cls)

    def anchors(self) -> dict[int, list[Anchor]]:
        found: dict[int, list[Anchor]] = {}
        for row in self.items:
            found.setdefault(row.partition, []).append(Anchor(row.first, row.previous_hash))
        return found


def _read_query(given: Mapping[str, str]) -> _Asked:
    from_ms, to_ms = _time(given, "from"), _time(given, "to")
    if from_ms is not None and to_ms is not None and to_ms <= from_ms:
        raise _bad("to", "after from")
    resource, format_ = given.get("resource"), given.get("format", FORMATS[0])
    if resource is not None and not 1 <= len(resource) <= MAX_RESOURCE_CHARS:
        raise _bad("resource", f"the id of a resource or dataset, 1 to {MAX_RESOURCE_CHARS} characters")
    if format_ not in FORMATS:
        raise _bad("format", f"one of {', '.join(FORMATS)}")
    return _Asked(from_ms, to_ms, resource, format_)


def _time(given: Mapping[str, str], name: str) -> int | None:
    try:
        return parse_moment_ms(given[name]) if name in given else None
    except ValueError:
        raise _bad(name, MOMENT_FORM) from None


def _bad(field_: str, message: str) -> Problem:
    error = FieldError(field_, "invalid", message)
    return Problem(422, "invalid_query", "A query parameter is not understood.", errors=[error])
