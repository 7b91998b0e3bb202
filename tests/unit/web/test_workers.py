"""The figures of all workers, asked of one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from app.engine import Ownership
from app.observability import metrics
from app.web import figures
from app.web.forward import HOP_HEADER, Forwarder
from app.web.workers import worker_list_routes
from tests.support.listening import Caller, listening


class Peer:
    """A worker as another one knows it."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url


@pytest.fixture
async def workers() -> AsyncIterator[tuple[list[Caller], list[Ownership]]]:
    """`a` owns 0 and 1, `b` 2; nobody owns 3."""
    async with AsyncExitStack() as stack:
        callers, ownerships = [], []
        for name in ("a", "b"):
            ownership = Ownership(4, lambda _: False)
            forwarder = Forwarder(ownership)
            stack.push_async_callback(forwarder.close)
            routes = worker_list_routes(name, lambda name=name: {"worker": name}, ownership, forwarder)
            callers.append(await stack.enter_async_context(listening(routes)))
            ownerships.append(ownership)
        a, b = (Peer(name, caller.url) for name, caller in zip("ab", callers, strict=True))
        for ownership in ownerships:
            ownership.update({0: a, 1: a, 2: b})
        yield callers, ownerships


async def test_any_worker_tells_of_all_and_begins_with_itself(
    workers: tuple[list[Caller], list[Ownership]],
) -> None:
    (a, b), _ = workers
    assert (await a.get("/v1/workers")).document == {"items": [{"worker": "a"}, {"worker": "b"}], "missing": [3]}
    assert (await b.get("/v1/workers")).document == {"items": [{"worker": "b"}, {"worker": "a"}], "missing": [3]}


async def test_a_worker_that_is_asked_by_another_one_tells_of_itself(
    workers: tuple[list[Caller], list[Ownership]],
) -> None:
    (a, _), _ = workers
    answer = await a.get("/v1/workers", headers={HOP_HEADER: "1"})
    assert answer.document == {"items": [{"worker": "a"}], "missing": []}


async def test_who_does_not_answer_is_missing(workers: tuple[list[Caller], list[Ownership]]) -> None:
    (a, _), (ownership, _) = workers
    ownership.update({0: Peer("a", a.url), 1: Peer("gone", "http://127.0.0.1:1"), 2: Peer("a", a.url)})
    assert (await a.get("/v1/workers")).document == {"items": [{"worker": "a"}], "missing": [1, 3]}


def test_the_figures_are_those_of_the_metrics() -> None:
    before = figures.flow(), figures.webhooks()
    metrics.EVENTS_CONSUMED.labels(type="unknown", outcome="routed").inc(3)
    metrics.ATTEMPTS.labels("2xx").inc(2)
    metrics.ATTEMPTS.labels("5xx").inc()
    metrics.DELIVERIES_WAITING.labels(reason="rate").inc(4)
    metrics.DELIVERIES.labels(status="delivered").inc(2)
    metrics.WEBHOOKS.labels(health="failing").inc()
    try:
        flow, webhooks = figures.flow(), figures.webhooks()
    finally:
        metrics.DELIVERIES_WAITING.labels(reason="rate").dec(4)
        metrics.WEBHOOKS.labels(health="failing").dec()
    assert flow["events"] - before[0]["events"] == 3
    assert flow["attempts"] - before[0]["attempts"] == 3
    assert flow["waiting"]["rate"] - before[0]["waiting"].get("rate", 0) == 4
    assert flow["deliveries"]["delivered"] - before[0]["deliveries"].get("delivered", 0) == 2
    assert webhooks["failing"] - before[1].get("failing", 0) == 1
