"""The API described for machines: OpenAPI 3.1 at `/openapi.json`, without a token (contracts 8.3).

Each module of routes has its operations here, in an `Area`; a test holds what is served against what is described. What
an answer looks like is written down by hand, not derived from the code that makes it: a fuzzer holds one against the
other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from app.web.auth import public
from app.web.openapi.building import Area
from app.web.openapi.console import CONSOLE
from app.web.openapi.deliveries import DELIVERIES, RESEND
from app.web.openapi.events import EVENTS
from app.web.openapi.governance import GOVERNANCE
from app.web.openapi.match import KEYS, MATCH
from app.web.openapi.operations import DOCUMENT, OPERATIONS
from app.web.openapi.policy import POLICY
from app.web.openapi.redrive import DEAD_LETTERS, QUARANTINE
from app.web.openapi.registry import REGISTRY
from app.web.openapi.replays import REPLAYS
from app.web.openapi.shared import HEADERS, RESPONSES, SHARED
from app.web.openapi.webhooks import WEBHOOK_CHANGES, WEBHOOKS
from app.web.requests import query_of

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["AREAS", "Area", "openapi_document", "openapi_routes"]

AREAS: Final = (
    WEBHOOKS,
    WEBHOOK_CHANGES,
    MATCH,
    EVENTS,
    KEYS,
    DELIVERIES,
    RESEND,
    DEAD_LETTERS,
    QUARANTINE,
    REPLAYS,
    POLICY,
    REGISTRY,
    GOVERNANCE,
    OPERATIONS,
    CONSOLE,
    DOCUMENT,
)
API_VERSION: Final = "1"
_ABOUT: Final = """\
Any worker takes any request, and passes on what another one owns.

Errors are problem documents (RFC 9457, `application/problem+json`) with a stable `code`; `errors` names the fields,
parameters or headers that are wrong. What is no HTTP is a 400 in the same form. An unknown query parameter is 422.

Lists are pages: ask again with `next_cursor` as `cursor` until it is null. A short page is not the end.

A body is JSON in UTF-8, read in one way only: a key given twice, an integer beyond 64 bits, NaN and what is nested
deeper than 64 are refused. What answers to GET answers to HEAD, too.
"""
_WHO: Final = """\
A viewer reads, an admin writes. Where no token is configured, the API answers on loopback only, to everybody there.
"""


def openapi_document(areas: Iterable[Area]) -> dict[str, Any]:
    """The document of some areas."""
    paths: dict[str, dict[str, Any]] = {}
    schemas = dict(SHARED)
    tags: dict[str, None] = {}
    for area in areas:
        schemas |= area.schemas
        tags[area.tag] = None
        for path, methods in area.paths.items():
            described = {method: operation.document(area.tag) for method, operation in methods.items()}
            paths.setdefault(path, {}).update(described)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "vault-stream",
            "version": API_VERSION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": _ABOUT,
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in tags],
        "paths": dict(sorted(paths.items())),
        "components": {
            "headers": HEADERS,
            "responses": RESPONSES,
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": _WHO}},
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
