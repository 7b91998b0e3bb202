"""What the owner of a webhook sees of its receiver, asked over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.engine import Ownership
from app.events import format_time
from app.web import Forwarder
from app.web.activity import ActivityApi, activity_routes
from app.web.webhook_commands import CommandGate
from app.webhooks.owned import DeliveryOptions
from app.webhooks.pace import PaceRules
from tables.delivery_queries import Readers
from tests.support.listening import Caller, listening
from tests.support.memory_unit import START_MS
from tests.support.webhook_api import Owner, webhooks_api
from tests.support.webhooks import SCHEDULE, Desk, answer, webhook_row


@pytest.fixture
def desk() -> Desk:
    """It goes slowly with a webhook that failed three times."""
    return Desk(options=DeliveryOptions(schedule=SCHEDULE, pace=PaceRules(after_failures=3, after_s=0)))


@pytest.fixture
async def owner() -> Owner:
    owner = Owner()
    await owner.write(webhook_row("wh_a"), webhook_row("wh_b"))
    return owner


@pytest.fixture
async def api(desk: Desk, owner: Owner) -> AsyncIterator[Caller]:
    await desk.open(webhook_row("wh_a"), webhook_row("wh_b"))
    ownership = Ownership(1, lambda _: True)
    gate = CommandGate(webhooks_api(owner))
    forwarder = Forwarder(ownership)
    async with listening(
        activity_routes(ActivityApi(gate, desk.readers, ownership, forwarder, desk.clock.now_ms))
    ) as caller:
        yield caller
    await forwarder.close()
    await desk.context.close(desk.processor)


async def activity(api: Caller, webhook_id: str = "wh_a") -> dict[str, object]:
    shown = await api.get(f"/v1/webhooks/{webhook_id}/activity")
    assert shown.status == 200
    return dict(shown.document)


def sums(shown: dict[str, object]) -> tuple[int, int]:
    buckets = shown["buckets"]
    assert isinstance(buckets, list)
    return sum(one["delivered"] for one in buckets), sum(one["failed"] for one in buckets)


async def test_a_webhook_that_had_nothing_to_do_has_an_hour_without_attempts(api: Caller) -> None:
    shown = await activity(api)
    buckets = shown.pop("buckets")
    assert isinstance(buckets, list)
    assert {(one["delivered"], one["failed"]) for one in buckets} == {(0, 0)}
    assert shown == {
        "since": format_time(START_MS),
        "bucket_s": 300,
        "in_flight": 0,
        "failures": 0,
        "blocked": None,
        "paced": False,
    }


async def test_attempts_are_counted_where_they_end(api: Caller, desk: Desk) -> None:
    await desk.deliver(desk.intent("e-1"), desk.intent("e-2"), desk.intent("e-3", "wh_b"))
    assert sums(await activity(api)) == (2, 0)
    assert sums(await activity(api, "wh_b")) == (1, 0)


async def test_one_that_only_fails_says_that_it_goes_slowly(api: Caller, desk: Desk) -> None:
    desk.receiver.always(answer(500))
    await desk.deliver(*(desk.intent(f"e-{number}") for number in range(30)))
    shown = await activity(api)
    delivered, failed = sums(shown)
    assert delivered == 0
    assert failed >= 3
    assert (shown["failures"], shown["paced"], shown["blocked"]) == (failed, True, "pace")


async def test_there_is_none_of_what_is_not_there(api: Caller, owner: Owner) -> None:
    assert (await api.get("/v1/webhooks/wh_none/activity")).code == (404, "not_found")
    assert (await api.get("/v1/webhooks/wh_a/activity?x=1")).status == 422


async def test_while_its_number_moves_it_is_503() -> None:
    owner, ownership = Owner(), Ownership(1, lambda _: True)
    await owner.write(webhook_row("wh_a"))
    forwarder = Forwarder(ownership)
    routes = activity_routes(ActivityApi(CommandGate(webhooks_api(owner)), Readers(), ownership, forwarder))
    async with listening(routes) as api:
        told = await api.get("/v1/webhooks/wh_a/activity")
    await forwarder.close()
    assert (told.code, told.headers["Retry-After"]) == ((503, "no_owner"), "2")
