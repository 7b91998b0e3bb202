"""A server with routes of its own, one for each kind of handler, and a client of it."""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from app.observability.health import HealthRegistry, LoopWatch
from app.observability.logging import REQUEST_ID, USER_ID
from app.settings import ApiSettings, ApiToken, Settings
from app.web import FieldError, Problem, WebServer, json_body, page_limit, principal_of, query_of, reads
from app.web.operations import operations_routes

TOKENS = ApiSettings(
    admin_token="admin-token",
    viewer_token="viewer-token",
    tokens=(ApiToken(name="ci", role="admin", sha256=hashlib.sha256(b"ci-token").hexdigest()),),
)
ADMIN = {"Authorization": "Bearer admin-token"}
VIEWER = {"Authorization": "Bearer viewer-token"}


async def list_things(request: web.Request) -> web.Response:
    query = query_of(request, ("limit", "status"))
    return web.json_response({"limit": page_limit(query), "who": principal_of(request).name})


async def make_thing(request: web.Request) -> web.Response:
    return web.json_response({"got": await json_body(request), "who": principal_of(request).name}, status=201)


@reads
async def ask(_request: web.Request) -> web.Response:
    return web.json_response({"context": [REQUEST_ID.get(), USER_ID.get()]})


async def refuse(_request: web.Request) -> web.Response:
    raise Problem(
        422,
        "invalid",
        "The url is not usable.",
        errors=[FieldError("/url", "insecure_url", "must be https")],
        retry_after_s=3,
        extra={"id": "wh_1"},
    )


async def fail(_request: web.Request) -> web.Response:
    raise RuntimeError("hunter2")


ROUTES = [
    web.get("/v1/things", list_things),
    web.post("/v1/things", make_thing),
    web.get("/v1/things/{id}", list_things),
    web.post("/v1/ask", ask),
    web.post("/v1/refuse", refuse),
    web.get("/v1/fail", fail),
]


class Api:
    """A running server and a client of it."""

    def __init__(self, server: WebServer, session: aiohttp.ClientSession) -> None:
        self.server = server
        self._session = session

    async def call(self, method: str, path: str, **named: Any) -> tuple[int, Any, Any]:
        url = f"http://127.0.0.1:{self.server.port}{path}"
        async with self._session.request(method, url, **named) as answer:
            body = await answer.read()
            kind = answer.content_type
            return answer.status, json.loads(body) if kind.endswith("json") and body else body, answer.headers


@asynccontextmanager
async def serving(api: ApiSettings | None = None, health: HealthRegistry | None = None) -> AsyncIterator[Api]:
    settings = Settings(api=api or ApiSettings()).model_copy(update={"web_port": 0})
    operations = operations_routes(health or HealthRegistry(), LoopWatch(), {"numbers": lambda: {"held": 3}})
    server = WebServer(settings, [*operations, *ROUTES])
    await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Api(server, session)
    finally:
        await server.stop()
