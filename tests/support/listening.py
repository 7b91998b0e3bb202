"""A listener with the real middlewares around some routes, and a client of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from app.settings import ApiSettings, Settings
from app.web import WebServer
from tests.support.canaries import CREDENTIALS, WATCH

DEADLINE_S = 10.0
TOKENS = ApiSettings(admin_token=CREDENTIALS["admin token"], viewer_token=CREDENTIALS["viewer token"])
ADMIN = {"Authorization": f"Bearer {CREDENTIALS['admin token']}"}
VIEWER = {"Authorization": f"Bearer {CREDENTIALS['viewer token']}"}


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        document: The JSON value; None without a body.
    """

    status: int
    document: Any
    headers: Mapping[str, str]
    text: str

    @property
    def code(self) -> tuple[int, str]:
        """Status and stable name of a problem."""
        return self.status, self.document["code"]

    @property
    def fields(self) -> list[str]:
        """The fields that a problem names."""
        return [error["field"] for error in self.document["errors"]]


@dataclass(frozen=True)
class Caller:
    """Sends requests to one listener."""

    url: str
    session: aiohttp.ClientSession

    async def call(self, method: str, path: str, body: Any = None, **named: Any) -> Answer:
        if body is not None:
            named["json"] = body
        async with self.session.request(method, self.url + path, **named) as answer:
            text = await answer.text()
            WATCH.look(f"the answer to {method} {path}", f"{dict(answer.headers)}{text}".encode())
            return Answer(answer.status, json.loads(text) if text else None, answer.headers, text)

    async def get(self, path: str, **named: Any) -> Answer:
        return await self.call("GET", path, **named)


@asynccontextmanager
async def listening(routes: Iterable[web.RouteDef], tokens: ApiSettings | None = None) -> AsyncIterator[Caller]:
    """Serve the routes on a free port while the block runs; without tokens every caller is an admin."""
    settings = Settings(api=tokens or ApiSettings()).model_copy(update={"web_port": 0})
    server = WebServer(settings, routes)
    await server.start()
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE_S)) as session:
            yield Caller(server.url, session)
    finally:
        await server.stop()


async def walk(callers: Sequence[Caller], path: str) -> AsyncIterator[dict[str, Any]]:
    """All pages of a list, each asked of the next caller in turn.

    Args:
        path: With a query.
    """
    cursor: str | None = None
    for turn in range(1000):
        caller = callers[turn % len(callers)]
        answer = await caller.get(path if cursor is None else f"{path}&cursor={cursor}")
        assert answer.status == 200
        yield answer.document
        cursor = answer.document["next_cursor"]
        if cursor is None:
            return
    raise AssertionError("the list has no end")
