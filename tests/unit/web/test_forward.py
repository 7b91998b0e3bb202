import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDict

from app.settings import Settings
from app.web import Forwarder, WebServer, forward
from app.web.forward import HOP_HEADER


@dataclass(frozen=True)
class Worker:
    name: str
    url: str


class Assignment:
    """Number 0 is ours, number 1 another's, number 2 nobody's."""

    def __init__(self, other: str) -> None:
        self._other = other

    def is_mine(self, number: int) -> bool:
        return number == 0

    def owner(self, number: int) -> Worker | None:
        return Worker("worker-1", self._other) if number == 1 else None


class Owner:
    """The other worker: keeps what it was asked, and answers."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, CIMultiDict[str], bytes]] = []
        self.hangs = False

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, request.raw_path, CIMultiDict(request.headers), await request.read()))
        if self.hangs:
            await asyncio.Event().wait()
        return web.Response(
            status=409, body=b'{"code":"conflict"}', headers={"ETag": '"7"', "Set-Cookie": "a=b", "X-Other": "x"}
        )


@asynccontextmanager
async def listening(routes: list[web.RouteDef]) -> AsyncIterator[WebServer]:
    server = WebServer(Settings().model_copy(update={"web_port": 0}), routes)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def two_workers(owner: Owner) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    async with (
        listening([web.route("*", "/{tail:.*}", owner.answer)]) as other,
        aiohttp.ClientSession() as session,
    ):
        forwarder = Forwarder(Assignment(f"{other.url}/"), session)

        async def handle(request: web.Request) -> web.StreamResponse:
            return await forwarder.to_owner(request, int(request.match_info["number"])) or web.Response(text="mine")

        async with listening([web.route("*", "/rows/{number}/{rest:.*}", handle)]) as ours:
            yield ours.url, session


async def test_what_we_own_is_not_passed_on() -> None:
    owner = Owner()
    async with two_workers(owner) as (url, session), session.get(f"{url}/rows/0/a") as answer:
        assert await answer.text() == "mine"
    assert owner.requests == []


async def test_the_owner_gets_method_path_query_body_and_authorization_as_they_came() -> None:
    owner = Owner()
    headers = {"Authorization": "Bearer t", "If-Match": '"6"', "X-Request-Id": "r-1", "Cookie": "a=b"}
    async with (
        two_workers(owner) as (url, session),
        session.patch(f"{url}/rows/1/a%2Fb?x=%20y&x=2", headers=headers, json={"a": 1}),
    ):
        pass
    ((method, path, sent, body),) = owner.requests
    assert (method, path.replace("+", "%20"), body) == ("PATCH", "/rows/1/a%2Fb?x=%20y&x=2", b'{"a": 1}')
    assert sent[HOP_HEADER] == "1"
    assert (sent["Authorization"], sent["If-Match"], sent["X-Request-Id"]) == ("Bearer t", '"6"', "r-1")
    assert "Cookie" not in sent


async def test_the_answer_of_the_owner_is_ours() -> None:
    async with two_workers(Owner()) as (url, session), session.delete(f"{url}/rows/1/a") as answer:
        assert (answer.status, await answer.read(), answer.headers["ETag"]) == (409, b'{"code":"conflict"}', '"7"')
        assert "Set-Cookie" not in answer.headers
        assert "X-Other" not in answer.headers


@pytest.mark.parametrize(
    ("number", "headers", "code"),
    [(2, {}, "no_owner"), (1, {HOP_HEADER: "1"}, "not_owner"), (2, {HOP_HEADER: "1"}, "not_owner")],
)
async def test_there_is_one_hop_and_it_needs_an_owner(number: int, headers: dict[str, str], code: str) -> None:
    owner = Owner()
    async with (
        two_workers(owner) as (url, session),
        session.get(f"{url}/rows/{number}/a", headers=headers) as answer,
    ):
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (503, code)
        assert int(answer.headers["Retry-After"]) > 0
    assert owner.requests == []


async def test_an_owner_that_cannot_be_reached_is_503() -> None:
    async with aiohttp.ClientSession() as session:
        async with listening([]) as gone:
            url = gone.url
        forwarder = Forwarder(Assignment(url), session)

        async def handle(request: web.Request) -> web.StreamResponse:
            return await forwarder.to_owner(request, 1) or web.Response()

        async with (
            listening([web.get("/", handle)]) as ours,
            session.get(ours.url) as answer,
        ):
            assert (answer.status, (await answer.json(content_type=None))["code"]) == (503, "owner_unreachable")


async def test_an_owner_that_does_not_answer_in_time_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "TIMEOUT_S", 0.05)
    owner = Owner()
    owner.hangs = True
    async with two_workers(owner) as (url, session), session.get(f"{url}/rows/1/a") as answer:
        document = await answer.json(content_type=None)
        assert (answer.status, document["code"]) == (503, "owner_timeout")
        assert "may still do" in document["detail"]
