"""The console: one page at `/` and its assets, which are files of this package and nothing foreign.

The page holds no data. What it shows comes from the JSON API, with the token of whoever looks at it; so the page itself
is for everybody, and its policy lets it load and ask nothing but this worker.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from aiohttp import web

from app.web.auth import principal_of, public
from app.web.problems import Problem
from app.web.requests import query_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

__all__ = ["HEADERS", "console_routes"]

PAGE: Final = "index.html"
# Where the page names all modules, so that a browser asks for them at once and not import by import.
_MODULES: Final = b"<!-- modules -->"
KINDS: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Asked for again each time, and mostly answered by 304: a page and assets of two versions would not fit.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class _Asset:
    body: bytes
    kind: str
    etag: str


def console_routes() -> list[web.RouteDef]:
    """`/`, `/console/{asset}` and `GET /v1/session`."""
    # All of them in memory: a name that is not among these is no asset, however it is written.
    assets = _with_modules(dict(_read(files(__package__).joinpath("assets"))))

    @public
    async def page(request: web.Request) -> web.Response:
        return _answer(request, assets[PAGE])

    @public
    async def asset(request: web.Request) -> web.Response:
        found = assets.get(request.match_info["asset"])
        if found is None:
            raise Problem(404, "not_found", "The console has no such file.")
        return _answer(request, found)

    return [
        web.get("/", page),
        web.get("/console/{asset:.+}", asset),
        web.get("/v1/session", session),
    ]


async def session(request: web.Request) -> web.Response:
    """Who asks, and what he may do: `{name, role}`."""
    query_of(request, ())
    principal = principal_of(request)
    return web.json_response({"name": principal.name, "role": principal.role.name.lower()})


def _read(folder: Traversable, under: str = "") -> Iterator[tuple[str, _Asset]]:
    for entry in folder.iterdir():
        name = under + entry.name
        if entry.is_dir():
            yield from _read(entry, f"{name}/")
        elif (kind := KINDS.get(name[name.rfind(".") :])) is not None:
            yield name, _asset(entry.read_bytes(), kind)


def _with_modules(assets: dict[str, _Asset]) -> dict[str, _Asset]:
    page = assets[PAGE]
    links = (f'<link rel="modulepreload" href="/console/{name}">' for name in sorted(assets) if name.endswith(".js"))
    return {**assets, PAGE: _asset(page.body.replace(_MODULES, "\n    ".join(links).encode()), page.kind)}


def _asset(body: bytes, kind: str) -> _Asset:
    return _Asset(body, kind, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def _answer(request: web.Request, asset: _Asset) -> web.Response:
    headers = {**HEADERS, "ETag": asset.etag}
    known = request.if_none_match or ()
    if any(etag.value in {"*", asset.etag.strip('"')} for etag in known):
        return web.Response(status=304, headers=headers)
    return web.Response(body=asset.body, headers={**headers, "Content-Type": asset.kind})
