"""Governance in a worker, put together: status, export, verification and reports."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from app.engine.log_stream import LogStream
from app.integrations.reports import Reports, origin_of
from app.web.audit_trail import AuditApi
from app.web.audit_verifier import AuditVerifier
from app.web.governance import governance_routes
from app.web.reports import report_routes
from app.web.verifications import verification_routes
from tables.audit import AUDIT
from tables.audit_sealed import kept_since_ms

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from aiohttp import web

    from app.engine import Record
    from app.engine.engine import Engine
    from app.engine.readers import LogReaders
    from app.main import Program
    from app.settings import UpstreamSettings

__all__ = ["at_origin", "governance_of"]

TP = tuple[str, int]


def at_origin(settings: UpstreamSettings) -> UpstreamSettings:
    """The same upstream at the root of its endpoint's origin: reports may lie beside the endpoint's path."""
    if settings.endpoint is None:
        return settings
    return settings.model_copy(update={"endpoint": origin_of(settings.endpoint)})


class _AuditTopic:
    """The audit topic as a log, on the embedded cluster, too, which knows no times."""

    def __init__(self, stream: LogStream, readers: LogReaders) -> None:
        self._stream = stream
        self._readers = readers

    async def bounds(self) -> dict[TP, tuple[int, int]]:
        return await self._stream.bounds()

    async def offsets_at(self, partitions: Sequence[TP], at_ms: int) -> dict[TP, int | None]:
        if self._readers.api.committed_only:
            return await self._stream.offsets_at(partitions, at_ms)
        found: dict[TP, int | None] = dict.fromkeys(partitions)
        bounds = await self._stream.bounds()
        start, until = ({tp: places[side] for tp, places in bounds.items()} for side in (0, 1))
        async with aclosing(self._stream.read(start, until)) as blocks:
            async for records in blocks:
                for record in records:
                    tp = (record.topic, record.partition)
                    if found.get(tp) is None and record.timestamp >= at_ms:
                        found[tp] = record.offset
        return found

    def read(self, start: Mapping[TP, int], until: Mapping[TP, int]) -> AsyncGenerator[list[Record], None]:
        return self._stream.read(start, until)


def governance_of(program: Program) -> list[web.RouteDef]:
    """The routes of governance; the connections to the dashboard end with the application."""
    settings, engine, topics = program.settings, program.engine, program.topics
    client_id = f"{settings.app_id}-{settings.instance_id}-export"
    stream = LogStream(engine.connection, client_id, (topics.audit,), engine.readers.api, gapless=True)
    api = AuditApi(
        readers=program.audits,
        ownership=engine.ownership,
        forwarder=program.forwarder,
        log=_AuditTopic(stream, engine.readers),
        topic=topics.audit,
        sealing=program.upstreams["governance"] is not None,
        position=lambda partition: _position(engine, topics.audit, partition),
        outputs=engine.outputs,
        events=topics.events,
        source=f"/vault-stream/{settings.app_id}",
    )
    reports = None
    dashboard, downloads, endpoint = program.upstreams["governance"], program.downloads, settings.governance.endpoint
    if dashboard is not None and downloads is not None and endpoint is not None:
        program.app.after_stop.append(downloads.close)
        reports = Reports(dashboard, downloads, endpoint, settings.governance.path_reports)
    verifier = _verifier(program, api)
    # Before the connections that it reads by.
    program.app.after_stop.insert(0, verifier.close)
    return [*governance_routes(api), *verification_routes(api, verifier), *report_routes(reports)]


def _verifier(program: Program, api: AuditApi) -> AuditVerifier:
    settings, engine, clock = program.settings, program.engine, program.engine.clock
    return AuditVerifier(
        settings.instance_id,
        api.log,
        LogStream(
            engine.connection,
            f"{settings.app_id}-{settings.instance_id}-verify",
            (program.topics.changelog(AUDIT.name),),
            engine.readers.api,
        ),
        kept_since_ms=lambda: kept_since_ms(clock.now_ms(), settings.governance.retention_d),
        now_ms=clock.now_ms,
    )


def _position(engine: Engine, topic: str, partition: int) -> int:
    number = engine.numbers.get(partition % engine.numbers_count)
    tracker = number.trackers.get((topic, partition)) if number is not None else None
    return 0 if tracker is None else tracker.position
