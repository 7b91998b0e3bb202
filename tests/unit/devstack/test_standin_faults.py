"""A stand-in misbehaves as it is told, and the upstream client takes none of it for a success."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from app.devstack.standins import Fault, Observations, PolicyEngine
from app.integrations.upstream import HttpUpstream, Malformed, Rejected, Unavailable, UpstreamConfig
from tests.support.certificates import Authority

QUESTION = b'{"principal_id":"bob","action":"read","resource_id":"ds","context":{}}'
PATH = "/api/v1/evaluate/access"


@pytest.fixture
async def engine() -> AsyncIterator[PolicyEngine]:
    engine = PolicyEngine(Observations())
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture
async def client(engine: PolicyEngine) -> AsyncIterator[HttpUpstream]:
    client = HttpUpstream(UpstreamConfig(engine.url, timeout_s=2.5, token="one"))
    yield client
    await client.close()


async def outcome(client: HttpUpstream) -> Any:
    try:
        return (await client.send("POST", PATH, QUESTION)).object()["allowed"]
    except (Unavailable, Rejected, Malformed) as error:
        return type(error), error.status


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(503), (Unavailable, 503)),
        (Fault(401), (Unavailable, 401)),
        (Fault(422), (Rejected, 422)),
        (Fault(drop=True), (Unavailable, None)),
        (Fault(drop=True, accept=True), (Unavailable, None)),
        (Fault(200, delay_s=20.0), (Unavailable, None)),
        (Fault(200, body="malformed"), (Malformed, 200)),
        (Fault(200, body="mistyped"), (Malformed, 200)),
        (Fault(200, body="oversized"), (Malformed, 200)),
        (Fault(200, body="dripping"), (Malformed, 200)),
        (Fault(200, body="compressed"), (Malformed, 200)),
        (Fault(307, body="redirect"), (Unavailable, 307)),
    ],
    ids=lambda value: f"{value.status}-{value.body}" if isinstance(value, Fault) else "",
)
async def test_no_fault_is_taken_for_a_success(
    engine: PolicyEngine, client: HttpUpstream, fault: Fault, expected: Any
) -> None:
    engine.fault = fault
    assert await outcome(client) == expected
    assert engine.evaluations == int(fault.accept)
    engine.fault = None
    assert await outcome(client) is True
    assert engine.redirected == 0


async def test_a_fault_may_concern_one_path(engine: PolicyEngine, client: HttpUpstream) -> None:
    engine.fault = Fault(path="/violations")
    assert await outcome(client) is True
    engine.fault = Fault(path="/evaluate")
    assert await outcome(client) == (Unavailable, 503)


async def test_an_expired_token_is_refused_until_it_is_changed(engine: PolicyEngine, client: HttpUpstream) -> None:
    async with (
        aiohttp.ClientSession(engine.url) as session,
        session.put("/token", json={"token": "two"}) as response,
    ):
        assert response.status == 204
    assert await outcome(client) == (Unavailable, 401)
    client.renew(UpstreamConfig(engine.url, 1.5, token="two"))
    assert await outcome(client) is True
    assert engine.unauthorized == 1


async def test_a_token_may_be_asked_for_in_another_header(engine: PolicyEngine, client: HttpUpstream) -> None:
    engine.token, engine.auth_header = "key", "X-Api-Key"
    assert await outcome(client) == (Unavailable, 401)
    client.renew(UpstreamConfig(engine.url, 1.5, token="key", auth_header="X-Api-Key"))
    assert await outcome(client) is True


async def test_the_tap_hears_each_request_whole(engine: PolicyEngine, client: HttpUpstream) -> None:
    heard: list[tuple[str, bytes]] = []
    engine.tap = lambda path, sent: heard.append((path, sent))
    await outcome(client)
    ((path, sent),) = heard
    assert path == f"POST {PATH}"
    assert all(part in sent for part in (b"POST " + PATH.encode(), b"Authorization: Bearer one", QUESTION))


async def test_a_standin_may_speak_tls(tmp_path: Any) -> None:
    authority = Authority(tmp_path, "authority")
    engine = PolicyEngine(Observations())
    engine.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    engine.tls.load_cert_chain(*authority.issue("server"))
    await engine.start()
    client = HttpUpstream(UpstreamConfig(engine.url, 20.0, ssl_ca=str(authority.file)))
    assert engine.url.startswith("https://")
    assert await outcome(client) is True
    await client.close()
    await engine.stop()


@pytest.mark.parametrize(
    "fault",
    [
        {"status": "503"},
        {"times": True},
        {"body": "good"},
        {"delay_s": "1"},
        {"drop": 1},
        {"naming": 7},
        {"statsu": 503},
        [],
        None,
    ],
)
async def test_what_is_no_fault_is_refused_by_name(engine: PolicyEngine, fault: Any) -> None:
    async with aiohttp.ClientSession(engine.url) as session, session.post("/control", json=fault) as response:
        told = await response.json()
    assert response.status == 422
    assert told["error"]
    assert engine.fault is None


async def test_a_hanging_answer_ends_with_its_client(engine: PolicyEngine, client: HttpUpstream) -> None:
    engine.fault = Fault(200, body="dripping")
    asked = asyncio.create_task(outcome(client))
    async with asyncio.timeout(20):
        while not engine.requests:
            await asyncio.sleep(0.01)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await engine.stop()
