"""The engine over real HTTP: what it is asked in each dialect, and each way in which it can fail."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from app.devstack.kafka import free_port
from app.integrations.policy import (
    Dialect,
    InvalidationTail,
    Lifetimes,
    PolicyEngineClient,
    PolicyUnavailable,
    authzen_question,
)
from app.integrations.policy import engine as engine_module
from app.integrations.upstream import UpstreamConfig
from tests.support.policy import authzen
from tests.support.scripted_upstream import ScriptedUpstream

ANSWER = {"allowed": True, "reason": "owner", "matched_policies": [], "obligations": []}
SHORT_S = 0.3
LONG_S = 30.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Upstream:
    """A policy engine; `handler` answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.handler: Handler | None = None
        self.answer: Any = ANSWER

    async def take(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        self.asked.append((request.method, request.raw_path, json.loads(text) if text else None))
        if self.handler is not None:
            return await self.handler(request)
        return web.json_response(self.answer)


@asynccontextmanager
async def listening(engine: Upstream) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", engine.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def engine() -> AsyncIterator[tuple[Upstream, str]]:
    upstream = Upstream()
    async with listening(upstream) as url:
        yield upstream, url


async def test_in_the_dialect_of_the_vault(engine: tuple[Upstream, str]) -> None:
    upstream, url = engine
    async with PolicyEngineClient(url) as client:
        answered = await client.evaluate_access("alice", "read", "ds-1", {"ip": "10.0.0.1"})
        assert answered.decision.verdict.allowed
        upstream.answer = [{"id": "p-1"}]
        assert await client.applicable_policies("a/b c") == [{"id": "p-1"}]
    asked = {"principal_id": "alice", "action": "read", "resource_id": "ds-1", "context": {"ip": "10.0.0.1"}}
    assert upstream.asked == [
        ("POST", "/api/v1/evaluate/access", asked),
        ("GET", "/api/v1/policies/applicable/a%2Fb%20c", None),
    ]


async def test_in_authzen_types_are_settings_and_properties_come_from_the_context(
    engine: tuple[Upstream, str],
) -> None:
    upstream, url = engine
    upstream.answer = {"decision": True}
    context = {"subject_properties": {"department": "sales"}, "ip": "10.0.0.1"}
    async with PolicyEngineClient(url, dialect=Dialect("authzen", subject_type="user")) as client:
        await client.evaluate_access("alice", "read", "ds-1", context)
        await client.evaluate_access("alice", "read", "ds-1")
    subject = {"type": "user", "id": "alice"}
    rest = {"action": {"name": "read"}, "resource": {"type": "resource", "id": "ds-1"}}
    assert [asked for _, _, asked in upstream.asked] == [
        {"subject": {**subject, "properties": {"department": "sales"}}, **rest, "context": context},
        {"subject": subject, **rest},
    ]


async def test_what_was_asked_in_authzen_goes_on_with_its_types_and_properties(engine: tuple[Upstream, str]) -> None:
    upstream, url = engine
    asked = authzen(context={"ip": "10.0.0.1"}) | {"action": {"name": "read", "properties": {"method": "GET"}}}
    question = authzen_question({**asked, "unknown": 1})
    async with PolicyEngineClient(url) as client:
        await client._evaluator.evaluate(question)
    upstream.answer = {"decision": True}
    async with PolicyEngineClient(url, dialect=Dialect("authzen")) as client:
        await client._evaluator.evaluate(question)
    in_vault, in_authzen = (document for _, _, document in upstream.asked)
    assert in_authzen == asked
    assert in_vault["context"] == {
        "ip": "10.0.0.1",
        "authzen": {
            "subject": {"type": "user"},
            "action": {"properties": {"method": "GET"}},
            "resource": {"type": "dataset"},
        },
    }


def answers(status: int = 200, body: bytes | None = None, **headers: str) -> Handler:
    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=json.dumps(ANSWER).encode() if body is None else body, headers=headers)

    return handle


async def hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def hangs_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def breaks_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(json.dumps(ANSWER).encode())
    assert request.transport is not None
    request.transport.close()
    return response


async def drips(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'{"allowed": true')
    await asyncio.Event().wait()
    return response


FAILURES: dict[str, Handler] = {
    **{
        f"status-{status}": answers(status)
        for status in (201, 202, 204, 206, 300, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 425, 429, 500)
    },
    **{f"status-{status}": answers(status) for status in (501, 502, 503, 504, 599)},
    **{f"redirect-{status}": answers(status, Location="/api/v1/evaluate/access") for status in (301, 302, 307, 308)},
    "time-out": hangs,
    "reset": hangs_up,
    "breaks-off": breaks_off,
    "drips": drips,
    "empty": answers(body=b""),
    "html": answers(body=b"<html>ok</html>"),
    "an-empty-object": answers(body=b"{}"),
    "allowed-is-text": answers(body=json.dumps({**ANSWER, "allowed": "true"}).encode()),
    "no-obligations": answers(body=json.dumps({n: ANSWER[n] for n in ANSWER if n != "obligations"}).encode()),
    "a-key-twice": answers(body=json.dumps(ANSWER).replace("{", '{"allowed": false, ', 1).encode()),
    "ten-megabytes": answers(body=json.dumps({**ANSWER, "reason": "x" * 10_000_000}).encode()),
    "compressed": answers(body=b"\x1f\x8b\x08", **{"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("handler", FAILURES.values(), ids=FAILURES)
async def test_every_way_to_fail_is_no_decision(engine: tuple[Upstream, str], handler: Handler) -> None:
    upstream, url = engine
    upstream.handler = handler
    for dialect in (Dialect(), Dialect("authzen")):
        async with PolicyEngineClient(UpstreamConfig(url, SHORT_S), dialect=dialect) as client:
            with pytest.raises(PolicyUnavailable):
                await client.evaluate_access("alice", "read", "ds-1")
            with pytest.raises(PolicyUnavailable):
                await client.applicable_policies("ds-1")


async def test_nobody_there_is_no_decision() -> None:
    async with PolicyEngineClient(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(PolicyUnavailable, match="connect"):
            await client.evaluate_access("alice", "read", "ds-1")


async def test_no_more_calls_than_some_are_under_way_and_who_waits_too_long_for_a_turn_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_module, "TURN_S", 0.05)
    upstream = ScriptedUpstream(body=lambda _: json.dumps(ANSWER).encode())
    upstream.gate.clear()
    client = PolicyEngineClient(upstream)
    asking = [
        asyncio.create_task(client.evaluate_access(f"p{number}", "read", "ds-1"))
        for number in range(engine_module.MAX_CALLS + 10)
    ]
    async with asyncio.timeout(LONG_S):
        while sum(task.done() for task in asking) < 10:
            await asyncio.sleep(0.01)
    assert upstream.most_under_way == engine_module.MAX_CALLS
    upstream.gate.set()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert sum(isinstance(one, PolicyUnavailable) for one in found) == 10
    await client.close()


async def test_a_client_without_a_tail_asks_each_time(engine: tuple[Upstream, str]) -> None:
    upstream, url = engine
    async with PolicyEngineClient(url) as client:
        for _ in range(3):
            assert (await client.evaluate_access("alice", "read", "ds-1")).source == "engine"
    assert len(upstream.asked) == 3


async def test_a_tail_that_was_told_of_shorter_lifetimes_is_refused() -> None:
    with pytest.raises(ValueError, match="longest_s"):
        PolicyEngineClient("http://127.0.0.1:1", tail=InvalidationTail("b:1", longest_s=60), lifetimes=Lifetimes())


def test_importing_the_client_brings_neither_faust_nor_a_store() -> None:
    told = (
        "import sys; from app.integrations.policy import InvalidationTail, PolicyEngineClient\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'faust', 'mode', 'rocksdict', 'agents'}))"
    )
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
