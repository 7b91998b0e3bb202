from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDict

from app.web import Forwarder, forward
from app.web.forward import HOP_HEADER
from tests.support.listening import Caller, listening


@dataclass(frozen=True)
class Worker:
    name: str
    url: str


class Assignment:
    """Number 0 is ours, number 2 nobody's; the others belong to the workers at these URLs."""

    def __init__(self, owners: dict[int, str]) -> None:
        self._owners = owners

    def is_mine(self, number: int) -> bool:
        return number == 0

    def owner(self, number: int) -> Worker | None:
        url = self._owners.get(number)
        return None if url is None else Worker("worker-1", url)


class Owner:
    """Another worker: keeps what it was asked, and answers."""

    def __init__(self, status: int = 409, body: bytes = b'{"code":"conflict"}') -> None:
        self.requests: list[tuple[str, str, CIMultiDict[str], bytes]] = []
        self.status = status
        self.body = body
        self.hangs = False
        self.released = asyncio.Event()
        self.meets: asyncio.Barrier | None = None

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, request.raw_path, CIMultiDict(request.headers), await request.read()))
        if self.hangs:
            await self.released.wait()
        if self.meets is not None:
            await self.meets.wait()
        headers = {"ETag": '"7"', "Set-Cookie": "a=b", "X-Other": "x"}
        return web.Response(status=self.status, body=self.body, headers=headers)


class Ours:
    """Our worker: passes on to the owner of a number, or asks the owners of many.

    Attributes:
        asked: What `ask_owners` gave.
        sessions: The clients that the forwarder made.
        reads_first: A handler reads the body before it passes the request on.
        entered: Owners are about to be asked.
    """

    def __init__(self, owners: dict[int, str]) -> None:
        self.asked: list[tuple[frozenset[int], str | None]] = []
        self.sessions: list[aiohttp.ClientSession] = []
        self.reads_first = False
        self.entered = asyncio.Event()
        self.forwarder = Forwarder(Assignment(owners), self._new_session)
        self.routes = [web.route("*", "/rows/{number}/{rest:.*}", self._pass_on), web.route("*", "/all", self._ask_all)]

    def _new_session(self) -> aiohttp.ClientSession:
        self.sessions.append(aiohttp.ClientSession())
        return self.sessions[-1]

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        if self.reads_first:
            await request.read()
        number = int(request.match_info["number"])
        return await self.forwarder.to_owner(request, number) or web.Response(text='"mine"')

    async def _ask_all(self, request: web.Request) -> web.Response:
        asyncio.get_running_loop().call_soon(self.entered.set)
        numbers = map(int, request.query["numbers"].split(","))
        self.asked = await self.forwarder.ask_owners(request, numbers, _word)
        return web.Response()


def _word(body: bytes) -> str:
    if not body.isalpha():
        raise ValueError("no word")
    return body.decode()


@asynccontextmanager
async def workers(owners: dict[int, Owner | str]) -> AsyncIterator[tuple[Caller, Ours]]:
    """Ours, and the owners of other numbers; a text is the URL of one that is not there."""
    async with AsyncExitStack() as stack:
        urls: dict[Owner, str] = {}
        for owner in owners.values():
            if isinstance(owner, Owner) and owner not in urls:
                caller = await stack.enter_async_context(listening([web.route("*", "/{tail:.*}", owner.answer)]))
                urls[owner] = f"{caller.url}/"
                stack.callback(owner.released.set)
        ours = Ours({number: urls[owner] if isinstance(owner, Owner) else owner for number, owner in owners.items()})
        stack.push_async_callback(ours.forwarder.close)
        yield await stack.enter_async_context(listening(ours.routes)), ours


class TestOneRow:
    async def test_what_we_own_is_not_passed_on(self) -> None:
        owner = Owner()
        async with workers({1: owner}) as (caller, ours):
            assert (await caller.get("/rows/0/a")).document == "mine"
        assert owner.requests == []
        assert ours.sessions == []

    @pytest.mark.parametrize("reads_first", [False, True])
    async def test_the_owner_gets_method_path_query_body_and_authorization_as_they_came(
        self, reads_first: bool
    ) -> None:
        owner = Owner()
        headers = {"Authorization": "Bearer t", "If-Match": '"6"', "X-Request-Id": "r-1", "Cookie": "a=b"}
        async with workers({1: owner}) as (caller, ours):
            ours.reads_first = reads_first
            await caller.call("PATCH", "/rows/1/a%2Fb?x=%20y&x=2", {"a": 1}, headers=headers)
        ((method, path, sent, body),) = owner.requests
        assert (method, path.replace("+", "%20"), body) == ("PATCH", "/rows/1/a%2Fb?x=%20y&x=2", b'{"a": 1}')
        assert sent[HOP_HEADER] == "1"
        assert (sent["Authorization"], sent["If-Match"], sent["X-Request-Id"]) == ("Bearer t", '"6"', "r-1")
        assert sent["Content-Type"] == "application/json"
        assert "Cookie" not in sent

    async def test_the_answer_of_the_owner_is_ours(self) -> None:
        async with workers({1: Owner()}) as (caller, _):
            answer = await caller.call("DELETE", "/rows/1/a")
        assert (answer.status, answer.text, answer.headers["ETag"]) == (409, '{"code":"conflict"}', '"7"')
        assert "Set-Cookie" not in answer.headers
        assert "X-Other" not in answer.headers

    @pytest.mark.parametrize(
        ("number", "headers", "code"),
        [(2, {}, "no_owner"), (1, {HOP_HEADER: "1"}, "not_owner"), (2, {HOP_HEADER: "1"}, "not_owner")],
    )
    async def test_there_is_one_hop_and_it_needs_an_owner(
        self, number: int, headers: dict[str, str], code: str
    ) -> None:
        owner = Owner()
        async with workers({1: owner}) as (caller, _):
            answer = await caller.get(f"/rows/{number}/a", headers=headers)
        assert answer.code == (503, code)
        assert int(answer.headers["Retry-After"]) > 0
        assert owner.requests == []

    @pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[", "nonsense"])
    async def test_an_owner_that_cannot_be_reached_is_503(self, url: str) -> None:
        async with workers({1: url}) as (caller, _):
            assert (await caller.get("/rows/1/a")).code == (503, "owner_unreachable")

    async def test_an_owner_that_does_not_answer_in_time_is_503(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(forward, "TIMEOUT_S", 0.05)
        owner = Owner()
        owner.hangs = True
        async with workers({1: owner}) as (caller, _):
            answer = await caller.get("/rows/1/a")
        assert answer.code == (503, "owner_timeout")
        assert "may still do" in answer.document["detail"]

    async def test_an_answer_beyond_the_limit_is_503(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(forward, "MAX_ANSWER_BYTES", 8)
        async with workers({1: Owner(200, b'"x23456"'), 3: Owner(200, b'"x234567"')}) as (caller, _):
            assert (await caller.get("/rows/1/a")).document == "x23456"
            assert (await caller.get("/rows/3/a")).code == (503, "owner_unreachable")


class TestManyOwners:
    async def test_each_is_asked_once_the_same_question(self) -> None:
        first, second = Owner(200, b"first"), Owner(200, b"second")
        async with workers({1: first, 3: second, 4: first}) as (caller, ours):
            await caller.get("/all?numbers=1,3,4&x=2", headers={"Authorization": "Bearer t"})
        assert ours.asked == [(frozenset({1, 4}), "first"), (frozenset({3}), "second")]
        for owner in (first, second):
            ((method, path, sent, _),) = owner.requests
            assert (method, path.replace("%2C", ","), sent["Authorization"]) == (
                "GET",
                "/all?numbers=1,3,4&x=2",
                "Bearer t",
            )
            assert sent[HOP_HEADER] == "1"

    async def test_a_body_goes_to_all_of_them(self) -> None:
        first, second = Owner(200, b"first"), Owner(200, b"second")
        async with workers({1: first, 3: second}) as (caller, _):
            await caller.call("POST", "/all?numbers=1,3", {"a": 1})
        assert [owner.requests[0][3] for owner in (first, second)] == [b'{"a": 1}', b'{"a": 1}']

    async def test_a_body_that_is_still_on_its_way_is_waited_for_once(self) -> None:
        first, second = Owner(200, b"first"), Owner(200, b"second")
        async with workers({1: first, 3: second}) as (caller, ours):

            async def slowly() -> AsyncIterator[bytes]:
                yield b'{"a":'
                await ours.entered.wait()
                yield b"1}"

            headers = {"Content-Type": "application/json"}
            await caller.call("POST", "/all?numbers=1,3", data=slowly(), headers=headers)
        assert [owner.requests[0][3] for owner in (first, second)] == [b'{"a":1}', b'{"a":1}']

    async def test_they_are_asked_side_by_side(self) -> None:
        first, second = Owner(200, b"first"), Owner(200, b"second")
        first.meets = second.meets = asyncio.Barrier(2)
        async with asyncio.timeout(5), workers({1: first, 3: second}) as (caller, ours):
            await caller.get("/all?numbers=1,3")
        assert [answer for _, answer in ours.asked] == ["first", "second"]

    @pytest.mark.parametrize("owner", [Owner(503, b"word"), Owner(200, b"17"), Owner(200, b""), "http://127.0.0.1:1"])
    async def test_one_that_refuses_is_not_there_or_talks_nonsense_has_no_answer(self, owner: Owner | str) -> None:
        async with workers({1: owner, 3: Owner(200, b"word")}) as (caller, ours):
            await caller.get("/all?numbers=1,2,3")
        assert ours.asked == [(frozenset({1}), None), (frozenset({2}), None), (frozenset({3}), "word")]

    async def test_one_that_hangs_has_no_answer_after_its_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(forward, "TIMEOUT_S", 0.05)
        owner = Owner()
        owner.hangs = True
        async with workers({1: owner}) as (caller, ours):
            await caller.get("/all?numbers=1")
        assert ours.asked == [(frozenset({1}), None)]

    async def test_nobody_is_asked_for_nothing(self) -> None:
        async with workers({}) as (caller, ours):
            await caller.get("/all?numbers=2")
        assert ours.asked == [(frozenset({2}), None)]
        assert ours.sessions == []


async def test_one_client_is_made_for_all_requests_and_closed_at_the_end() -> None:
    async with workers({1: Owner()}) as (caller, ours):
        await caller.get("/rows/1/a")
        await caller.get("/rows/1/b")
        (session,) = ours.sessions
        assert not session.closed
    assert session.closed


async def test_a_forwarder_that_asked_nobody_closes_and_may_be_closed_twice() -> None:
    forwarder = Forwarder(Assignment({}))
    await forwarder.close()
    await forwarder.close()
