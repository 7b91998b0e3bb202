"""Bytes that are no request, or no whole one: answered by a problem document, too, and never logged as they came."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest

from tests.support.listening import TOKENS
from tests.support.whole_api import WholeApi, raw, whole_api

POST = (b"POST /v1/webhooks HTTP/1.1", b"Host: localhost", b"Content-Type: application/json")
GET = (b"GET /v1/webhooks HTTP/1.1", b"Host: localhost")
SECRET = b"hunter2"


@pytest.fixture
async def api() -> AsyncIterator[WholeApi]:
    async with whole_api() as api:
        yield api
        assert api.untouched


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        pytest.param((b"hunter2",), b"", id="no-request-line"),
        pytest.param((b"\x16\x03\x01\x02\x00\x01hunter2",), b"", id="tls"),
        pytest.param((b"G@T /hunter2 HTTP/1.1", b"Host: localhost"), b"", id="method-that-is-no-token"),
        pytest.param((b"GET /hunter2 HTTP/9.9", b"Host: localhost"), b"", id="version"),
        pytest.param((b"GET /v1/webhooks hunter2 HTTP/1.1", b"Host: localhost"), b"", id="white-space-in-the-path"),
        pytest.param((b"GET /" + b"x" * 20_000 + SECRET + b" HTTP/1.1",), b"", id="path-of-20-kb"),
        pytest.param((*GET, b"Authorization: Bearer hunter2\x00"), b"", id="nul-in-a-header"),
        pytest.param((*GET, b"Authorization: Bearer hunter2\x01"), b"", id="control-character-in-a-header"),
        pytest.param((*GET, b"Author ization: Bearer hunter2"), b"", id="white-space-in-a-name"),
        pytest.param((*GET, b": Bearer hunter2"), b"", id="no-name"),
        pytest.param((*GET, b"Bearer hunter2"), b"", id="no-colon"),
        pytest.param((*GET, b"Authorization: " + b"x" * 20_000 + SECRET), b"", id="header-of-20-kb"),
        pytest.param((*POST, b"Content-Length: -1"), SECRET, id="negative-length"),
        pytest.param((*POST, b"Content-Length: 7", b"Content-Length: 8"), SECRET, id="two-lengths"),
        pytest.param((*POST, b"Content-Length: 7", b"Transfer-Encoding: chunked"), SECRET, id="length-and-chunks"),
        pytest.param((*POST, b"Content-Type: text/plain", b"Content-Length: 7"), SECRET, id="two-types"),
        pytest.param((*GET, b"Host: hunter2"), b"", id="two-hosts"),
        pytest.param((*POST, b"Transfer-Encoding: chunked"), b"hunter2\r\n{}\r\n0\r\n\r\n", id="chunk-without-size"),
        pytest.param((*POST, b"Content-Encoding: gzip", b"Content-Length: 7"), SECRET, id="no-gzip"),
        pytest.param((*POST, b"Content-Encoding: deflate", b"Content-Length: 7"), SECRET, id="no-deflate"),
    ],
)
async def test_what_cannot_be_read_is_400_and_is_not_logged(
    api: WholeApi, caplog: pytest.LogCaptureFixture, lines: tuple[bytes, ...], body: bytes
) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = await raw(api.caller, lines, body)
    assert (answer.status, answer.kind) == (400, "application/problem+json")
    assert (answer.document["status"], answer.document["type"]) == (400, "about:blank")
    assert SECRET.decode() not in caplog.text
    assert SECRET.decode() not in str(answer.document)
    assert "Traceback" not in caplog.text


async def test_an_expectation_that_nobody_can_meet_is_417(api: WholeApi) -> None:
    answer = await raw(api.caller, (*GET, b"Expect: hunter2"))
    assert (answer.status, answer.kind) == (417, "application/problem+json")
    assert answer.document["code"] == "expectation_failed"


async def test_another_encoding_than_we_know_is_400(api: WholeApi) -> None:
    answer = await raw(api.caller, (*POST, b"Content-Encoding: nonsense", b"Content-Length: 7"), SECRET)
    assert (answer.status, answer.kind) == (400, "application/problem+json")


async def test_a_token_that_is_no_text_is_401() -> None:
    async with whole_api(TOKENS) as api:
        answer = await raw(api.caller, (*GET, b"Authorization: Bearer \xff\xfe"))
    assert (answer.status, answer.document["code"]) == (401, "unauthorized")


async def test_a_key_that_is_no_text_is_422_and_named(api: WholeApi) -> None:
    answer = await raw(api.caller, (*POST, b"Idempotency-Key: a\xffb", b"Content-Length: 2"), b"{}")
    assert (answer.status, answer.document["errors"][0]["field"]) == (422, "Idempotency-Key")
