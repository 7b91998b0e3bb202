"""How far the audit trail is, over HTTP, and the routes of its export, at any worker (contracts 8.3 and 9.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from app.engine import Revoked
from app.web.audit_export import ExportHandler
from app.web.audit_trail import decoded, still_missing
from app.web.forward import HOP_HEADER
from app.web.requests import query_of

if TYPE_CHECKING:
    from app.web.audit_trail import AuditApi
    from tables.audit_queries import LineState

__all__ = ["governance_routes"]

OFF: Final = (
    "Governance is off: nothing is sealed or sent. The topic keeps every record; set"
    " VAULT_STREAM_GOVERNANCE__ENDPOINT and restart the workers."
)


def governance_routes(api: AuditApi) -> list[web.RouteDef]:
    """Status and export."""
    return [
        web.get("/v1/governance/status", _StatusHandler(api).status),
        web.get("/v1/governance/export", ExportHandler(api).export),
    ]


class _StatusHandler:
    def __init__(self, api: AuditApi) -> None:
        self._api = api

    async def status(self, request: web.Request) -> web.StreamResponse:
        query_of(request, ())
        bounds = await self._api.bounds()
        rows, missing = await self._local_rows(bounds)
        if missing and HOP_HEADER not in request.headers:
            answers = await self._api.forwarder.ask_owners(request, sorted(missing), _StatusPage.read)
            for _, page in answers:
                if page is not None:
                    rows |= {row["partition"]: row for row in page.partitions}
            missing = still_missing(answers)
        document = {"partitions": [rows[partition] for partition in sorted(rows)], "missing": sorted(missing)}
        state = {"state": "on"} if self._api.sealing else {"state": "off", "detail": OFF}
        return web.json_response(state | document)

    async def _local_rows(self, bounds: Mapping[int, tuple[int, int]]) -> tuple[dict[int, dict[str, Any]], set[int]]:
        api = self._api
        if not api.sealing:
            return {partition: _row(partition, None, *places, 0) for partition, places in bounds.items()}, set()
        rows: dict[int, dict[str, Any]] = {}
        missing: set[int] = set()
        for number in range(api.ownership.count):
            states = await self._states(number)
            if states is None:
                missing.add(number)
                continue
            for partition in api.partitions_of(number, bounds):
                places = bounds[partition]
                rows[partition] = _row(partition, states.get(partition), *places, api.position(partition))
        return rows, missing

    async def _states(self, number: int) -> Mapping[int, LineState] | None:
        reader = self._api.readers.get(number)
        if reader is None or not self._api.ownership.is_mine(number):
            return None
        try:
            return await reader.read(lambda _unit, states: dict(states))
        except Revoked:
            return None


def _row(partition: int, state: LineState | None, begin: int, end: int, position: int) -> dict[str, Any]:
    head = state.head if state else None
    # What is in no sealed batch: read and waiting, or not read yet.
    read_to = max(begin, position, state.next_offset if state else 0, head.sequence + 1 if head else 0)
    return {
        "partition": partition,
        "head_sequence": head.sequence if head else None,
        "head_hash": head.hash if head else None,
        "unsealed": (state.waiting if state else 0) + max(0, end - read_to),
        "sealed": state.sealed if state else 0,
        "oldest_unaccepted_s": state.oldest_unaccepted_s if state else None,
    }


class _StatusPage(msgspec.Struct):
    """What is read of another worker's status."""

    partitions: list[dict[str, Any]]
    missing: frozenset[int]

    @classmethod
    def read(cls, body: bytes) -> _StatusPage:
        """Another worker's answer.

        Raises:
            ValueError: It is none.
        """
        page = decoded(body, cls)
        if not all(isinstance(row.get("partition"), int) for row in page.partitions):
            raise ValueError("not the status of partitions")
        return page
