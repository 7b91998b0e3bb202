"""The public halves of our signing keys, for receivers that verify `v1a` (contracts 8.3; RFC 7517, RFC 8037)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from app.web.auth import public
from app.web.requests import query_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.webhooks.signing import SigningKey

__all__ = ["signing_key_routes"]

# A key that is to sign is published by a restart before the one that makes it the first of the list.
CACHE_CONTROL = "public, max-age=300"


def signing_key_routes(keys: Sequence[SigningKey]) -> list[web.RouteDef]:
    """`GET /.well-known/webhook-keys.json`: all keys, the one that signs first; without a token."""

    @public
    async def show(request: web.Request) -> web.Response:
        query_of(request, ())
        document = {"keys": [key.public_jwk() for key in keys]}
        return web.json_response(document, headers={"Cache-Control": CACHE_CONTROL})

    return [web.get("/.well-known/webhook-keys.json", show)]
