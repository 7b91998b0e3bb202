"""However an engine fails, on a real socket, there is no decision; and never an allow."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.devstack.standins import Fault, Observations, Rule
from app.devstack.standins import PolicyEngine as Standin
from app.integrations.policy import Dialect, PolicyEngineClient, PolicyUnavailable
from app.integrations.upstream import UpstreamConfig
from tests.support.bytewise import bytewise, saying
from tests.support.certificates import Authority

DIALECTS = [Dialect(name="vault"), Dialect(name="authzen")]
ALLOWS = {
    "vault": b'{"allowed":true,"reason":"","matched_policies":[],"obligations":[]}',
    "authzen": b'{"decision":true}',
}
FAULTS = [
    *(Fault(status) for status in (201, 204, 302, 400, 401, 403, 404, 409, 422, 429, 500, 503)),
    Fault(drop=True),
    Fault(drop=True, accept=True),
    Fault(200, delay_s=30.0),
    Fault(200, body="malformed"),
    Fault(200, body="mistyped"),
    Fault(200, body="oversized"),
    Fault(200, body="dripping"),
    Fault(200, body="compressed"),
    Fault(307, body="redirect"),
]

dialects = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)


@pytest.fixture
async def engine() -> AsyncIterator[Standin]:
    engine = Standin(Observations())
    engine.rules = [Rule(True)]
    await engine.start()
    yield engine
    await engine.stop()


async def allowed(client: PolicyEngineClient) -> bool | None:
    """The decision; None if there is none."""
    try:
        return (await client.evaluate_access("alice", "read", "ds-1")).decision.verdict.allowed
    except PolicyUnavailable:
        return None


@asynccontextmanager
async def asking(url: str, dialect: Dialect, **options: Any) -> AsyncIterator[Callable[[], Awaitable[bool | None]]]:
    config = UpstreamConfig(url, **{"timeout_s": 20.0, **options})
    async with PolicyEngineClient(config, dialect=dialect) as client:
        yield lambda: allowed(client)


@dialects
@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.status}-{f.body}-{f.drop}-{f.accept}-{f.delay_s:g}")
async def test_a_fault_is_no_decision(engine: Standin, dialect: Dialect, fault: Fault) -> None:
    waits = fault.delay_s > 0 or fault.body == "dripping"
    engine.fault = fault
    async with asking(engine.url, dialect, timeout_s=0.3 if waits else 20.0) as ask:
        assert await ask() is None
    assert engine.redirected == 0


@dialects
async def test_after_a_fault_there_is_a_decision_again(engine: Standin, dialect: Dialect) -> None:
    engine.fault = Fault(503)
    async with asking(engine.url, dialect) as ask:
        assert await ask() is None
        engine.fault = None
        assert await ask() is True


@dialects
async def test_an_expired_token_is_no_decision(engine: Standin, dialect: Dialect) -> None:
    engine.token = "new"
    async with asking(engine.url, dialect, token="old") as ask:
        assert await ask() is None


@dialects
async def test_a_stranger_with_the_same_address_is_no_engine(engine: Standin, dialect: Dialect, tmp_path: Path) -> None:
    ours, strangers = Authority(tmp_path, "ours"), Authority(tmp_path, "strangers")
    await engine.stop()
    engine.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    engine.tls.load_cert_chain(*strangers.issue("server"))
    await engine.start()
    async with asking(engine.url, dialect, ssl_ca=str(ours.file)) as ask:
        assert await ask() is None
    async with asking(engine.url, dialect, ssl_ca=str(strangers.file)) as ask:
        assert await ask() is True


@dialects
@pytest.mark.parametrize(
    ("headers", "decision"),
    [
        (b"Content-Type: application/json\r\n", True),
        (b"Content-Type: text/html\r\n", None),
        (b"", None),
        (b"Content-Type: application/json\r\nContent-Encoding: gzip\r\n", None),
        (b"Content-Type: application/json; charset=utf-16\r\n", None),
    ],
)
async def test_an_allow_that_is_not_said_to_be_plain_json_is_no_decision(
    dialect: Dialect, headers: bytes, decision: bool | None
) -> None:
    body = ALLOWS[dialect.name]
    head = b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n" % (headers, len(body))
    async with bytewise(saying(head + body)) as url, asking(url, dialect) as ask:
        assert await ask() is decision


@dialects
async def test_an_allow_whose_connection_breaks_off_is_no_decision(dialect: Dialect) -> None:
    body = ALLOWS[dialect.name]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (len(body) + 1)
    async with bytewise(saying(head + body)) as url, asking(url, dialect) as ask:
        assert await ask() is None
