"""Dead letters sent again by filter, over HTTP and by the command, up to the receiver that gets them."""

from __future__ import annotations

import asyncio
import itertools
import json
import shlex
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from app.cli.dead_letters import dead_letters
from app.engine import Message, OutputFailed, Record, TopicLog
from app.events import format_time
from app.web import dead_letters as module
from app.web.dead_letters import dead_letter_routes
from app.web.resend import ResendApi
from app.web.webhook_commands import CommandGate
from app.webhooks.owned import DeliveryOptions
from app.webhooks.schedule import RetrySchedule
from tests.support.fake_log import FakeReader
from tests.support.listening import Caller, listening
from tests.support.memory_unit import START_MS, record
from tests.support.scripted_api import run
from tests.support.webhook_api import DELIVERIES, Owner, webhooks_api
from tests.support.webhooks import TOPICS, Desk, answer, webhook_row

MINUTE_MS = 60_000


class Outputs:
    """A broker that takes records until it has taken so many intents, and then none."""

    def __init__(self) -> None:
        self.intents: list[Message] = []
        self.at_once: list[int] = []
        self.room: int | None = None

    async def send_many(self, messages: Sequence[Message]) -> None:
        intents = [message for message in messages if message.topic == DELIVERIES]
        if intents:
            self.at_once.append(len(intents))
        left = len(intents) if self.room is None else max(0, self.room - len(self.intents))
        self.intents += intents[:left]
        if left < len(intents):
            raise OutputFailed("no broker")

    @property
    def delivery_ids(self) -> list[str]:
        return [dict(intent.headers)["vs-delivery-id"].decode() for intent in self.intents]


@asynccontextmanager
async def served(reader: FakeReader, outputs: Outputs) -> AsyncIterator[Caller]:
    owner, unused, keys = Owner(), cast("Any", None), itertools.count()
    await owner.write(webhook_row("wh_a"), webhook_row("wh_b"))
    api = ResendApi(
        gate=CommandGate(webhooks_api(owner)),
        outputs=cast("Any", outputs),
        deliveries=DELIVERIES,
        events=TOPICS.events,
        source="/vault-stream/test",
        dead_letters=TopicLog(reader, TOPICS.dead_letters, 1),
        log_of=unused,
        readers=unused,
        ownership=unused,
        forwarder=unused,
        now_ms=lambda: START_MS,
        random_bytes=lambda count: next(keys).to_bytes(count, "big"),
    )
    async with listening(dead_letter_routes(api)) as caller:
        yield caller


def letter(
    number: int,
    webhook: str = "wh_a",
    reason: str = "exhausted",
    type_: str = "dataset.created",
    **attributes: str,
) -> Record:
    """One given up a minute after the one before."""
    event = {"specversion": "1.0", "id": f"e-{number}", "source": "/vault", "type": f"llm.data-vault.{type_}"}
    event |= attributes
    data = {
        "delivery_id": f"dlv_{number}",
        "webhook_id": webhook,
        "reason": reason,
        "attempts": 3,
        "first_at": format_time(START_MS),
        "last_at": format_time(START_MS),
        "event": event,
        "origin": "vault.events/0/7",
    }
    at_ms = START_MS + number * MINUTE_MS
    value = json.dumps({"time": format_time(at_ms), "data": data}).encode()
    return record(value, topic=TOPICS.dead_letters, offset=number, key=webhook.encode(), timestamp=at_ms)


def minute(number: int) -> str:
    return format_time(START_MS + number * MINUTE_MS)


@pytest.mark.parametrize(
    ("chosen", "numbers"),
    [
        ({"all": True}, [0, 1, 2, 3]),
        ({"webhook_id": "wh_b"}, [1]),
        ({"reason": "rejected"}, [2]),
        ({"reason": "expired"}, []),
        ({"event_type": "access.granted"}, [3]),
        ({"event_type": "llm.data-vault.dataset.created"}, [0, 1, 2]),
        ({"since": minute(2)}, [2, 3]),
        ({"until": minute(2)}, [0, 1]),
        ({"since": minute(1), "until": minute(3), "reason": "exhausted"}, [1]),
    ],
)
async def test_a_filter_sends_again_what_it_means_and_nothing_else(chosen: dict[str, Any], numbers: list[int]) -> None:
    reader = FakeReader(letter(0), letter(1, "wh_b"), letter(2, reason="rejected"), letter(3, type_="access.granted"))
    outputs = Outputs()
    async with served(reader, outputs) as api:
        answered = await api.call("POST", "/v1/dead-letters/resend", chosen)
    assert (answered.status, answered.document["refused"]) == (202, [])
    assert answered.document["resent"] == outputs.delivery_ids == [f"dlv_{number}" for number in numbers]


async def test_an_event_past_its_expirytime_is_refused_and_the_others_are_sent() -> None:
    now, soon = format_time(START_MS), format_time(START_MS + 1)
    reader, outputs = FakeReader(letter(0), letter(1, expirytime=now), letter(2, expirytime=soon)), Outputs()
    async with served(reader, outputs) as api:
        listed = (await api.get("/v1/dead-letters")).document["items"]
        many = (await api.call("POST", "/v1/dead-letters/resend", {"all": True})).document
        one = await api.call("POST", "/v1/dead-letters/0-1/resend", {})
    assert [item.get("event_expires_at") for item in listed] == [soon, now, None]
    assert many["resent"] == outputs.delivery_ids == ["dlv_0", "dlv_2"]
    assert many["refused"] == [{"id": "0-1", "delivery_id": "dlv_1", "code": "expired"}]
    assert one.code == (409, "expired")


async def test_more_than_a_request_sends_is_gone_on_with_by_cursor_and_each_is_sent_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RESEND_LIMIT", 5)
    monkeypatch.setattr(module, "BODIES_AT_ONCE", 2)
    reader, outputs = FakeReader(*map(letter, range(12))), Outputs()
    body: dict[str, Any] = {"reason": "exhausted"}
    resent: list[list[str]] = []
    async with served(reader, outputs) as api:
        while len(resent) < 4:
            page = (await api.call("POST", "/v1/dead-letters/resend", body)).document
            resent.append(page["resent"])
            if page["next_cursor"] is None:
                break
            body["cursor"] = page["next_cursor"]

    # The newest first, page by page; of a page the oldest.
    assert [[int(id_.removeprefix("dlv_")) for id_ in ids] for ids in resent] == [
        [7, 8, 9, 10, 11],
        [2, 3, 4, 5, 6],
        [0, 1],
    ]
    assert outputs.delivery_ids == [id_ for ids in resent for id_ in ids]
    assert outputs.at_once == [2, 2, 1, 2, 2, 1, 2]


class Redrive:
    """Seven deliveries that were given up, their receiver, which would take them now, and the command."""

    def __init__(self) -> None:
        self.desk = Desk(options=DeliveryOptions(schedule=RetrySchedule((0,)), disable_after_s=1e9))
        self.reader, self.outputs = FakeReader(), Outputs()
        self._offsets = itertools.count(1000)

    async def given_up(self, *event_ids: str) -> None:
        """These, too, are dead letters."""
        for event_id in event_ids:
            self.desk.receiver.will_answer(answer(500), event_id=event_id)
            await self.desk.deliver(self.desk.intent(event_id))
            self.desk.clock.advance(1)
        self.topic_grows()

    def topic_grows(self) -> None:
        """The topic has what the agent has said."""
        letters = self.desk.context.sent_to(TOPICS.dead_letters)
        self.reader.records = tuple(
            record(sent.value, topic=TOPICS.dead_letters, offset=offset, key=sent.key, timestamp=START_MS + offset)
            for offset, sent in enumerate(letters)
        )

    async def delivered(self) -> None:
        """The agent has what the broker took."""
        taken, self.outputs.intents = self.outputs.intents, []
        for intent in taken:
            offset = next(self._offsets)
            value, key, headers = intent.value, intent.key, intent.headers
            await self.desk.deliver(
                record(value, topic=TOPICS.deliveries, offset=offset, key=key, headers=headers),
            )
        self.topic_grows()

    def posted(self) -> Counter[str]:
        return Counter(self.desk.receiver.events())


@pytest.fixture
async def redrive() -> AsyncIterator[Redrive]:
    made = Redrive()
    await made.desk.open(webhook_row("wh_a"))
    await made.given_up(*(f"e-{number}" for number in range(7)))
    yield made
    await made.desk.context.close(made.desk.processor)


@pytest.mark.parametrize("taken", range(7))
async def test_a_run_that_broke_off_anywhere_is_repeated_as_it_says_and_nothing_is_sent_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redrive: Redrive, taken: int
) -> None:
    monkeypatch.setattr(module, "RESEND_LIMIT", 3)
    monkeypatch.setattr(module, "BODIES_AT_ONCE", 2)
    monkeypatch.chdir(tmp_path)
    async with served(redrive.reader, redrive.outputs) as api:
        monkeypatch.setenv("VAULT_STREAM_API__URL", api.url)
        # Given: the broker went away after so many. The newest of them failed again, and another one was given up, so
        # that every page begins elsewhere.
        redrive.outputs.room = taken
        redrive.desk.receiver.will_answer(answer(500), event_id="e-6")
        broken = await asyncio.to_thread(run, dead_letters, "resend", "--all", "--yes")
        await redrive.delivered()
        await redrive.given_up("e-7")

        # When: it is repeated as it says.
        redrive.outputs.room = None
        (hint,) = [line for line in broken.stderr.splitlines() if line.startswith("to repeat")]
        again = shlex.split(hint.partition(": ")[2])[1:]
        done = await asyncio.to_thread(run, dead_letters, *again)
        await redrive.delivered()

    # Then: all were sent again, each once.
    assert (broken.exit_code, done.exit_code) == (1, 0)
    assert redrive.posted() == Counter({f"e-{number}": 2 for number in range(8)})
