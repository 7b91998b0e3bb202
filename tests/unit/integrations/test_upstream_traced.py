"""Each call of an upstream whose trace is kept is a span, and the upstream follows from that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.trace import SpanKind, StatusCode

from app.integrations.policy import CALLER_TRACE, Dialect, PolicyEngine
from app.integrations.policy.questions import vault_question
from app.integrations.upstream import Rejected, Unavailable, UpstreamConfig
from app.integrations.upstream.traced import TracedUpstream
from tests.support.spans import PARENT, PARENT_ID, UNSAMPLED, Spans, attributes, parent_id, traceparent_of_span

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def upstream(handler: Handler, spans: Spans) -> AsyncIterator[TracedUpstream]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    server = TestServer(app)
    await server.start_server()
    client = TracedUpstream(UpstreamConfig(str(server.make_url("/base/")), 5.0, token="hush"), spans.tracer)
    try:
        yield client
    finally:
        await client.close()
        await server.close()


def answering(seen: list[Mapping[str, str]], status: int = 200, body: bytes = b"{}") -> Handler:
    async def handler(request: web.Request) -> web.Response:
        seen.append(dict(request.headers))
        return web.Response(status=status, body=body, content_type="application/json")

    return handler


async def test_a_call_is_a_client_span_under_its_cause_and_over_the_upstream() -> None:
    spans, seen = Spans(), []
    async with upstream(answering(seen, 201), spans) as client:
        headers = {"Idempotency-Key": "ds-1:1", "traceparent": PARENT}
        await client.send("POST", "/v1/datasets?hush=1", b'{"ssn":1}', headers=headers)
    span = spans.named("POST")
    assert (span.kind, parent_id(span), span.status.status_code) == (SpanKind.CLIENT, PARENT_ID, StatusCode.UNSET)
    shown = attributes(span)
    port = shown.pop("server.port")
    assert shown == {
        "http.request.method": "POST",
        "url.full": f"http://127.0.0.1:{port}/base/v1/datasets?REDACTED",
        "server.address": "127.0.0.1",
        "http.response.status_code": 201,
    }
    (received,) = seen
    assert received["traceparent"] == traceparent_of_span(span)
    assert received["Idempotency-Key"] == "ds-1:1"


@pytest.mark.parametrize(("status", "raised"), [(503, Unavailable), (422, Rejected), (302, Unavailable)])
async def test_an_answer_that_is_none_is_an_error(status: int, raised: type[Exception]) -> None:
    spans = Spans()
    async with upstream(answering([], status), spans) as client:
        with pytest.raises(raised):
            await client.send("POST", "/a", headers={"traceparent": PARENT})
    span = spans.named("POST")
    assert (attributes(span)["error.type"], attributes(span)["http.response.status_code"]) == (str(status), status)
    assert span.status.status_code is StatusCode.ERROR


async def test_a_status_that_the_caller_accepts_is_none() -> None:
    spans = Spans()
    async with upstream(answering([], 409), spans) as client:
        await client.send("POST", "/a", headers={"traceparent": PARENT}, accept={409})
    assert spans.named("POST").status.status_code is StatusCode.UNSET


async def test_no_answer_and_an_abandoned_call_are_errors() -> None:
    spans = Spans()
    called = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        called.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with upstream(hang, spans) as client:
        task = asyncio.create_task(client.send("GET", "/a", headers={"traceparent": PARENT}))
        await called.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    dead = TracedUpstream(UpstreamConfig("http://127.0.0.1:9", 5.0), spans.tracer)
    with pytest.raises(Unavailable):
        await dead.send("GET", "/a", headers={"traceparent": PARENT})
    await dead.close()
    assert [attributes(span)["error.type"] for span in spans.ended] == ["cancelled", "unavailable"]


@pytest.mark.parametrize("trace", [{}, {"traceparent": UNSAMPLED}])
async def test_a_call_of_an_event_that_is_not_kept_has_no_span(trace: dict[str, str]) -> None:
    spans, seen = Spans(), []
    async with upstream(answering(seen), spans) as client:
        await client.send("POST", "/a", headers={"Idempotency-Key": "k", **trace})
    assert spans.ended == []
    (received,) = seen
    assert received.get("traceparent") == trace.get("traceparent")


async def test_a_call_that_nobody_caused_begins_a_trace() -> None:
    spans, seen = Spans(), []
    async with upstream(answering(seen), spans) as client:
        await client.send("GET", "/a")
    assert spans.named("GET").parent is None
    assert seen[0]["traceparent"] == traceparent_of_span(spans.named("GET"))


async def test_a_question_to_the_policy_engine_follows_from_whoever_asked() -> None:
    spans, seen = Spans(), []
    verdict = b'{"allowed":true,"reason":"","matched_policies":[],"obligations":[]}'
    question = vault_question({"principal_id": "p-1", "action": "read", "resource_id": "r-1"})
    async with upstream(answering(seen, body=verdict), spans) as client:
        engine = PolicyEngine(client, Dialect())
        token = CALLER_TRACE.set({"traceparent": PARENT})
        await engine.verdict(question)
        CALLER_TRACE.reset(token)
        await engine.verdict(question)
    asked, alone = spans.ended
    assert (parent_id(asked), alone.parent) == (PARENT_ID, None)
    assert [one["traceparent"] for one in seen] == [traceparent_of_span(asked), traceparent_of_span(alone)]
    assert "p-1" not in repr([attributes(span) for span in spans.ended])
