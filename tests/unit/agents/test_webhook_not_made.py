"""Attempts that were not made, for a reason of ours: a key that is missing here, or our own proxy.

They cost the delivery nothing of its schedule, and say nothing of the receiver.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from functools import partial
from itertools import pairwise

import pytest

from app.engine import Record
from app.observability import metrics
from app.webhooks.commands import Op, WebhookPatch
from app.webhooks.model import DeliveryRow, Health, Ordering, Reason, SealedSecret, Status
from app.webhooks.owned import DeliveryOptions
from app.webhooks.pace import GlobalSlots
from app.webhooks.secrets import KeyRing, Secret
from tests.support.webhooks import KEYS, OK, PROXY_DOWN, SCHEDULE, SECRET, TOPICS, Desk, answer, webhook_row

GONE = KeyRing(["k2:" + base64.b64encode(b"2" * 32).decode()], bytes)
SLOTS = 8


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = await Desk(slots=GlobalSlots(SLOTS)).open(webhook_row())
    yield made
    assert made.slots.free == SLOTS
    await made.context.close(made.processor)


def attempts(label: str) -> float:
    return metrics.REGISTRY.get_sample_value("vault_stream_attempts_total", {"class": label}) or 0


def row_of(desk: Desk, event: str) -> DeliveryRow:
    row = desk.row(event)
    assert row is not None
    return row


async def rotate(desk: Desk, keys: KeyRing, *before: Record) -> None:
    """New secrets come with the slice that brings these records: they have their slots, and no attempt has begun."""
    sealed = SealedSecret(sealed=keys.seal("wh_a", Secret(SECRET)))
    command_id = f"c-{len(desk.context.sent)}-{desk.clock.now_ms()}"
    await desk.deliver(*before, desk.command(Op.ROTATE, secrets=(sealed,), command_id=command_id))


def nothing_was_said_of_the_receiver(desk: Desk) -> None:
    holdings, webhook = desk.processor._holdings, desk.webhook()
    assert desk.sent(TOPICS.attempts) == []
    assert webhook is not None
    assert (webhook.health, webhook.first_failure_ms, webhook.failures) == (Health.OK, None, 0)
    owned = holdings.webhooks["wh_a"]
    assert (owned.heart.failures, owned.recent, owned.unjudged, owned.flights) == (0, None, 0, 0)
    receiver = holdings.scheduler._receivers["wh_a"]
    assert (receiver.in_flight, receiver.pace.paced, receiver.pace.calm) == (0, False, True)


async def test_a_key_that_vanishes_between_the_slot_and_the_attempt_costs_nothing(desk: Desk) -> None:
    before = attempts("no_key")
    await rotate(desk, GONE, desk.intent("e1"))

    row = row_of(desk, "e1")
    assert (row.status, row.reason, row.attempts, row.body is not None) == (Status.PENDING, Reason.NO_KEY, 0, True)
    assert (row.attempt_log, row.error, row.first_at_ms) == ((), None, None)
    assert (desk.receiver.requests, desk.context.unfinished) == ([], [])
    assert attempts("no_key") == before + 1
    nothing_was_said_of_the_receiver(desk)

    await desk.pass_time(29)
    assert attempts("no_key") == before + 1
    await rotate(desk, KEYS)
    await desk.pass_time(31)

    assert desk.receiver.events() == ["e1"]
    assert (row_of(desk, "e1").status, row_of(desk, "e1").attempts) == (Status.DELIVERED, 1)


async def test_a_retry_that_lacks_its_key_keeps_its_place_in_the_schedule(desk: Desk) -> None:
    desk.receiver.will_answer(answer(500), PROXY_DOWN)
    await desk.deliver(desk.intent("e1"))
    failed = row_of(desk, "e1")
    await desk.pass_time(5)

    row = row_of(desk, "e1")
    assert desk.receiver.kept_back == 1
    assert (row.status, row.reason, row.attempts) == (Status.RETRYING, Reason.SLOT, 1)
    assert (row.next_at_ms, row.attempt_log) == (failed.next_at_ms, failed.attempt_log)
    desk.receiver.will_answer(answer(500))
    await desk.pass_time(1)
    assert row_of(desk, "e1").attempts == 2
    wait_ms = (row_of(desk, "e1").next_at_ms or 0) - desk.clock.now_ms()
    assert wait_ms == SCHEDULE.steps_s[2] * 1000


async def test_behind_a_dead_proxy_a_webhook_asks_once_at_a_time_ever_less_often_and_is_never_disabled(
    desk: Desk,
) -> None:
    before = attempts("proxy")
    desk.receiver.always(PROXY_DOWN)
    await desk.deliver(*(desk.intent(f"e{n}") for n in range(6)))
    first = desk.receiver.kept_back
    assert first <= 4  # the slots that it had when the proxy failed
    tries = []
    for _ in range(8):
        kept_back = desk.receiver.kept_back
        await desk.until(partial(lambda before: desk.receiver.kept_back > before, kept_back), within_s=40)
        tries.append(round(desk.clock.monotonic_s()))
        assert desk.receiver.kept_back == kept_back + 1
    assert [b - a for a, b in pairwise(tries)] == [2, 4, 8, 16, 30, 30, 30]
    await desk.pass_time(6 * 86_400)

    assert attempts("proxy") - before == desk.receiver.kept_back
    assert {row_of(desk, f"e{n}").attempts for n in range(6)} == {0}
    assert {row_of(desk, f"e{n}").reason for n in range(6)} == {Reason.SLOT}
    nothing_was_said_of_the_receiver(desk)
    desk.receiver.always(OK)
    await desk.pass_time(31)
    assert sorted(desk.receiver.events()) == [f"e{n}" for n in range(6)]


async def test_what_waits_too_long_for_the_proxy_expires(desk: Desk) -> None:
    desk.receiver.always(PROXY_DOWN)
    await desk.deliver(desk.intent("e1"))
    await desk.pass_time(7 * 86_400 + 3600)

    assert (row_of(desk, "e1").status, row_of(desk, "e1").reason) == (Status.FAILED, Reason.EXPIRED)
    assert [letter["data"]["reason"] for letter in desk.sent(TOPICS.dead_letters)] == ["expired"]


@pytest.mark.parametrize("ordering", Ordering)
async def test_a_delivery_that_was_put_back_is_not_overtaken_by_a_later_one_of_its_subject(ordering: Ordering) -> None:
    desk = await Desk().open(webhook_row(ordering=ordering))
    desk.receiver.will_answer(PROXY_DOWN, PROXY_DOWN, event_id="e0")
    await desk.deliver(*(desk.intent(f"e{n}", subject="d1") for n in range(3)))
    await desk.deliver(desk.intent("e3", subject="d1"))
    await desk.pass_time(10)

    assert desk.receiver.kept_back == 2
    assert desk.receiver.events() == ["e0", "e1", "e2", "e3"]
    await desk.context.close(desk.processor)


async def test_its_order_is_the_same_for_the_next_owner() -> None:
    desk = await Desk().open(webhook_row())
    desk.receiver.always(PROXY_DOWN)
    await desk.deliver(*(desk.intent(f"e{n}", subject="d1") for n in range(2)))
    again = desk.context.unfinished[:]
    await desk.context.close(desk.processor)

    second = await Desk(rows=desk.context.rows, clock=desk.clock).open()
    await second.deliver(*again, second.intent("e2", subject="d1"))
    await second.pass_time(10)
    assert second.receiver.events() == ["e0", "e1", "e2"]
    await second.context.close(second.processor)


async def test_the_number_is_taken_away_before_it_is_written_that_no_attempt_was_made() -> None:
    desk = await Desk().open(webhook_row())
    desk.receiver.always(PROXY_DOWN)
    desk.receiver.hold()
    record = desk.intent("e1")
    await desk.deliver(record)
    await desk.context.close(desk.processor)
    desk.receiver.release()
    await desk.settle()
    assert desk.row("e1") is None
    assert desk.context.unfinished == [record]

    second = await Desk(rows=desk.context.rows, clock=desk.clock).open()
    await second.deliver(record)
    assert second.receiver.events() == ["e1"]
    await second.context.close(second.processor)


@pytest.mark.parametrize(("op", "status"), [(Op.DISABLE, Status.MISSED), (Op.DELETE, Status.CANCELLED)])
async def test_of_a_webhook_that_ended_meanwhile_nothing_waits(desk: Desk, op: Op, status: Status) -> None:
    desk.receiver.always(PROXY_DOWN)
    desk.receiver.hold()
    await desk.deliver(desk.intent("e1"))
    await desk.deliver(desk.command(op))
    desk.receiver.release()
    await desk.settle()

    assert (row_of(desk, "e1").status, row_of(desk, "e1").body) == (status, None)
    assert desk.context.unfinished == []
    assert (desk.webhook() is None) == (op is Op.DELETE)


async def test_a_webhook_that_is_changed_meanwhile_is_asked_as_it_is_then(desk: Desk) -> None:
    desk.receiver.will_answer(PROXY_DOWN)
    desk.receiver.hold()
    await desk.deliver(desk.intent("e1"))
    await desk.deliver(desk.command(Op.UPDATE, patch=WebhookPatch(url="https://new.example.com/")))
    desk.receiver.release()
    await desk.pass_time(2)

    assert [request.url for request in desk.receiver.requests] == ["https://new.example.com/"]


async def test_what_it_took_of_the_webhooks_rate_is_given_back() -> None:
    desk = await Desk().open(webhook_row(rate_limit_per_s=0.001))
    desk.receiver.will_answer(PROXY_DOWN)
    await desk.deliver(desk.intent("e1"))
    await desk.pass_time(2)

    assert desk.receiver.events() == ["e1"]
    await desk.context.close(desk.processor)


async def test_the_slot_of_another_webhook_is_not_kept_from_it() -> None:
    desk = await Desk(slots=GlobalSlots(1), options=DeliveryOptions(schedule=SCHEDULE)).open(
        webhook_row(), webhook_row("wh_b")
    )
    desk.receiver.will_answer(*[PROXY_DOWN] * 20, event_id="e1")
    await desk.deliver(desk.intent("e1"), desk.intent("e2", "wh_b"), desk.intent("e3", "wh_b"))
    await desk.pass_time(2)

    assert desk.receiver.events() == ["e2", "e3"]
    await desk.context.close(desk.processor)
