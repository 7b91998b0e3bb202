"""Sending deliveries again: what auditors hear of it, and when."""

from collections.abc import Sequence
from typing import Any, cast

import orjson
import pytest

from app.engine import Message, OutputFailed
from app.web.problems import Problem
from app.web.resend import Again, ResendApi, Resender

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
