"""The API described for machines: OpenAPI 3.1 at `/openapi.json`, without a token (contracts 8.3).

Each module of routes has its operations here, in an `Area`; a test holds what is served against what is described.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from app.web.auth import public
from app.web.openapi.building import Area
from app.web.openapi.deliveries import DEAD_LETTERS, DELIVERIES, QUARANTINE, RESEND
from app.web.openapi.operations import DOCUMENT, OPERATIONS
from app.web.openapi.replays import REPLAYS
from app.web.openapi.shared import SHARED
from app.web.openapi.webhooks import KEYS, MATCH, WEBHOOK_CHANGES, WEBHOOKS
from app.web.requests import query_of

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["AREAS", "Area", "openapi_document", "openapi_routes"]

AREAS: Final = (
    WEBHOOKS,
    WEBHOOK_CHANGES,
    MATCH,
    KEYS,
    DELIVERIES,
    RESEND,
    DEAD_LETTERS,
    QUARANTINE,
    REPLAYS,
    OPERATIONS,
    DOCUMENT,
)
API_VERSION: Final = "1"


def openapi_document(areas: Iterable[Area]) -> dict[str, Any]:
    """The document of some areas."""
    paths: dict[str, dict[str, Any]] = {}
    schemas = dict(SHARED)
    for area in areas:
        schemas |= area.schemas
        for path, methods in area.paths.items():
            described = {method: operation.document(area.tag) for method, operation in methods.items()}
            paths.setdefault(path, {}).update(described)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "vault-stream",
            "version": API_VERSION,
            "description": "Errors are problem documents (RFC 9457) with a stable `code`.",
        },
        "servers": [{"url": "/"}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def openapi_routes(areas: Iterable[Area] = AREAS) -> list[web.RouteDef]:
    """`GET /openapi.json`."""
    document = openapi_document(areas)

    @public
    async def show(request: web.Request) -> web.Response:
        query_of(request, ())
        return web.json_response(document, headers={"Cache-Control": "public, max-age=300"})

    return [web.get("/openapi.json", show)]
