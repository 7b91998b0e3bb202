"""Sending deliveries again: what auditors hear of it, and when."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import orjson
import pytest

from app.engine import Message, OutputFailed, Ownership
from app.events import delivery_id, format_time
from app.web.forward import Forwarder
from app.web.problems import Problem
from app.web.resend import Again, ResendApi, Resender, resend_routes
from app.web.webhook_commands import CommandGate
from tests.support.listening import Caller, listening
from tests.support.webhook_api import Owner, webhooks_api
from tests.support.webhooks import TIMEOUT, Desk, webhook_row

EVENTS, INTENTS = "app.events", "app.deliveries"
START_MS = 1_790_000_000_000


class _Outputs:
    """Takes messages until it is told to refuse."""

    def __init__(self) -> None:
        self.taken: list[Message] = []
        self.refuses = ""

    async def send_many(self, messages: Sequence[Message]) -> None:
        if any(message.topic == self.refuses for message in messages):
            raise OutputFailed("no broker")
        self.taken += messages

    def to(self, topic: str) -> list[Message]:
        return [message for message in self.taken if message.topic == topic]


@pytest.fixture
def outputs() -> _Outputs:
    return _Outputs()


@pytest.fixture
def resender(outputs: _Outputs) -> Resender:
    unused: Any = None
    api = ResendApi(
        gate=unused,
        outputs=cast("Any", outputs),
        deliveries=INTENTS,
        events=EVENTS,
        source="/vault-stream/test",
        dead_letters=unused,
        log_of=unused,
        readers=unused,
        ownership=unused,
        forwarder=unused,
        now_ms=lambda: START_MS,
        random_bytes=bytes,
    )
    return Resender(api)


def again(delivery_id: str, webhook_id: str = "wh_a") -> Again:
    return Again(delivery_id, webhook_id, "topic/0/1", b"{}")


async def test_auditors_hear_who_sent_which_deliveries_again_before_anything_is_sent(
    outputs: _Outputs, resender: Resender
) -> None:
    await resender.send([again("dlv_1"), again("dlv_2"), again("dlv_3", "wh_b")], "r1", "night-shift")

    assert [message.topic for message in outputs.taken] == [EVENTS, EVENTS, INTENTS, INTENTS, INTENTS]
    told = [orjson.loads(message.value or b"") for message in outputs.to(EVENTS)]
    assert {event["type"] for event in told} == {"llm.data-vault.operator.replayed"}
    assert [(event["subject"], event["data"]["deliveries"]) for event in told] == [
        ("wh_a", ["dlv_1", "dlv_2"]),
        ("wh_b", ["dlv_3"]),
    ]
    assert all(event["data"]["actor"] == {"id": "night-shift", "type": "token"} for event in told)


async def test_a_request_that_is_repeated_is_told_under_the_same_ids(outputs: _Outputs, resender: Resender) -> None:
    for _ in range(2):
        await resender.send([again("dlv_1")], "r1", "night-shift")
    await resender.send([again("dlv_1")], "r2", "night-shift")

    first, repeated, other = (orjson.loads(message.value or b"")["id"] for message in outputs.to(EVENTS))
    assert first == repeated != other


async def test_what_auditors_cannot_be_told_is_not_done(outputs: _Outputs, resender: Resender) -> None:
    outputs.refuses = EVENTS

    with pytest.raises(Problem) as refused:
        await resender.send([again("dlv_1")], "r1", "night-shift")

    assert (refused.value.status, refused.value.code) == (503, "unconfirmed")
    assert outputs.taken == []


@asynccontextmanager
async def served(desk: Desk, outputs: _Outputs) -> AsyncIterator[Caller]:
    """The deliveries of a desk, all of them here."""
    owner, unused = Owner(), cast("Any", None)
    await owner.write(webhook_row("wh_a"))
    ownership = Ownership(1, lambda _: True)
    forwarder = Forwarder(ownership)
    api = ResendApi(
        gate=CommandGate(webhooks_api(owner)),
        outputs=cast("Any", outputs),
        deliveries=INTENTS,
        events=EVENTS,
        source="/vault-stream/test",
        dead_letters=unused,
        log_of=unused,
        readers=desk.readers,
        ownership=ownership,
        forwarder=forwarder,
        now_ms=desk.clock.now_ms,
        random_bytes=bytes,
    )
    async with listening(resend_routes(api)) as caller:
        yield caller
    await forwarder.close()
    await desk.context.close(desk.processor)


async def test_a_delivery_is_sent_again_until_its_event_expires(outputs: _Outputs) -> None:
    desk = await Desk().open(webhook_row("wh_a"))
    desk.receiver.always(TIMEOUT)
    await desk.deliver(desk.intent("e-1", expirytime=format_time(desk.clock.now_ms() + 60_000)))
    path = f"/v1/deliveries/{delivery_id('wh_a', '/vault', 'e-1')}/resend"
    async with served(desk, outputs) as api:
        in_time = await api.call("POST", path, {})
        desk.clock.advance(60)
        late = await api.call("POST", path, {})

    assert (in_time.status, late.code) == (202, (409, "expired"))
    assert len(outputs.to(INTENTS)) == 1
