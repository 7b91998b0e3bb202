"""What an idle worker does less often, and what it must not wait longer for."""

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from app.engine.fetching import FETCH_MAX_WAIT_MS, QUIET_AFTER_S, QUIET_FETCH_MAX_WAIT_MS, ConsumerThread
from app.engine.taking import Taken


class Fetcher(SimpleNamespace):
    """Nothing arrives, but what is in `records`."""

    def __init__(self) -> None:
        subscriptions = SimpleNamespace(reassignment_in_progress=False, fetch_context=contextlib.nullcontext)
        super().__init__(_closed=False, _subscriptions=subscriptions, _records={}, _fetch_max_wait_ms=0)

    def _create_fetch_waiter(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()


def thread(*, poked: bool = False, quiet_s: float = 0.0, taken: Taken | None = None) -> Any:
    now = asyncio.get_running_loop().time()
    return SimpleNamespace(
        consumer=SimpleNamespace(flow_active=True, poked=poked),
        unreadable={},
        _found_at=now - quiet_s,
        _take=lambda *_: taken,
        _wait_for_a_fetch=lambda *_: asyncio.sleep(0),
    )


async def test_a_number_that_has_room_again_does_not_wait_for_the_records_of_others() -> None:
    async with asyncio.timeout(30):
        await ConsumerThread._wait_for_a_fetch(thread(poked=True), Fetcher(), 3600.0)


async def test_what_arrives_ends_the_wait() -> None:
    fetcher = Fetcher()
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    fetcher._create_fetch_waiter = lambda: waiter
    asyncio.get_running_loop().call_later(0.1, waiter.set_result, None)

    async with asyncio.timeout(30):
        await ConsumerThread._wait_for_a_fetch(thread(), fetcher, 3600.0)


@pytest.mark.parametrize(
    ("quiet_s", "taken", "wait_ms"),
    [
        (0.0, None, FETCH_MAX_WAIT_MS),
        (2 * QUIET_AFTER_S, None, QUIET_FETCH_MAX_WAIT_MS),
        (2 * QUIET_AFTER_S, Taken([object()]), FETCH_MAX_WAIT_MS),
    ],
    ids=["lately", "quiet", "quiet until now"],
)
async def test_the_broker_keeps_an_empty_fetch_for_longer_only_while_it_is_quiet(
    quiet_s: float, taken: Taken | None, wait_ms: int
) -> None:
    fetcher = Fetcher()
    fetcher._records = {} if taken is None else {("in", 0): taken}
    consumer = SimpleNamespace(_closed=False, _fetcher=fetcher)

    await ConsumerThread._fetch_records(thread(quiet_s=quiet_s, taken=taken), consumer, {("in", 0)}, timeout=0.1)

    assert fetcher._fetch_max_wait_ms == wait_ms
