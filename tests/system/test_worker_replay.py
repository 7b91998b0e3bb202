"""The log again, for one webhook: what it gets, what it does not get twice, and what a kill leaves to be asked for."""

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from confluent_kafka import Producer

from app.devstack.kafka import KafkaServer
from app.events import delivery_id, encode_binary, record_key, topic_of
from app.publishing import VaultEvent, VaultEventType
from app.webhooks.commands import Command, Op, WebhookPatch, encode_command
from tests.support.cli import Cli
from tests.support.workers import DEADLINE_S, Deployment, Hook, RunningWorker, TimedReceiver, until

pytestmark = pytest.mark.kafka

FROM_THE_BEGINNING = {"since": "2020-01-01T00:00:00Z"}
RECOVERY_S = 150.0


class Recorder(TimedReceiver):
    """An honest receiver that keeps the bytes it was sent."""

    def __init__(self, observations: Any) -> None:
        super().__init__("honest", observations)
        self.bodies: dict[str, bytes] = {}

    async def _take(self, request: web.Request) -> web.Response:
        self.bodies[request.headers["webhook-id"]] = await request.read()
        return await super()._take(request)


async def hook_of(deployment: Deployment, pattern: str = "*") -> tuple[Hook, Recorder]:
    """A webhook whose receiver keeps what it gets."""
    receiver = Recorder(deployment.observations)
    return await deployment.hook(pattern, receiver=receiver), receiver


def events_of(count: int, word: str) -> list[VaultEvent]:
    """Events of three types and ten datasets."""
    kinds: tuple[tuple[VaultEventType, dict[str, Any]], ...] = (
        (VaultEventType.DATASET_CREATED, {"name": word}),
        (VaultEventType.DATASET_ARCHIVED, {}),
        (VaultEventType.RECORDS_INGESTED, {"record_count": 1}),
    )
    return [
        VaultEvent.new(type_, "/vault", {"dataset_id": f"ds-{place % 10}", **data})
        for place in range(count)
        for type_, data in (kinds[place % len(kinds)],)
    ]


async def call(worker: RunningWorker, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and body."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with (
        aiohttp.ClientSession(timeout=timeout) as client,
        client.request(method, worker.url + path, json=body) as answer,
    ):
        return answer.status, await answer.json()


async def ask(worker: RunningWorker, hook: Hook, **request: Any) -> dict[str, Any]:
    """A replay that was accepted, asked for again while the number of the webhook has no owner."""

    async def accepted() -> dict[str, Any] | None:
        status, answer = await call(worker, "POST", f"/v1/webhooks/{hook.id}/replay", request)
        assert status in {202, 503}, answer
        return answer if status == 202 else None

    return await until(accepted, "a replay is accepted") or {}


async def ended(worker: RunningWorker, replay: dict[str, Any], *, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
    """The replay once it has all been sent."""

    async def over() -> dict[str, Any] | None:
        status, found = await call(worker, "GET", f"/v1/replays/{replay['id']}")
        return found if status == 200 and found["state"] not in {"queued", "running"} else None

    found = await until(over, f"replay {replay['id']} has ended", deadline_s) or {}
    assert found["state"] == "done", found
    return found


def expected_ids(hook: Hook, events: Sequence[VaultEvent]) -> set[str]:
    return {delivery_id(hook.id, event.source, event.id) for event in events}


def accepted_times(receiver: TimedReceiver) -> dict[str, int]:
    """How often each delivery was accepted."""
    return {id_: len(times) for id_, times in receiver.accepted_at.items()}


async def test_a_webhook_made_today_gets_what_happened_before_once_and_as_it_would_have_been(
    deployment: Deployment,
) -> None:
    first, second = await deployment.start("w1", "w2")
    _, live = await hook_of(deployment)
    events = events_of(300, "before")
    await deployment.publish(events)
    await deployment.observed(lambda: len(live.accepted) == len(events), "the live webhook has everything")
    await deployment.idle()

    hook, late = await hook_of(deployment)
    request = {**FROM_THE_BEGINNING, "request_id": "catch-up"}
    replay = await ask(second, hook, **request)
    done = await ended(first, replay)
    await deployment.observed(lambda: len(late.accepted) == len(events), "the late webhook has everything")
    assert (done["matched"], done["sent"], done["scanned"]) == (len(events), len(events), done["total"])
    assert (late.signatures_bad, late.bodies_changed) == (0, 0)
    assert late.bodies.keys() == expected_ids(hook, events)
    assert sorted(late.bodies.values()) == sorted(live.bodies.values())
    assert set(accepted_times(late).values()) == {1}

    again = await ended(second, await ask(first, hook, **request))
    await deployment.idle()
    assert (again["matched"], again["skipped"], again["sent"]) == (len(events), len(events), 0)
    assert set(accepted_times(late).values()) == {1}
    assert live.duplicates == 0

    other = await ended(first, await ask(second, hook, **FROM_THE_BEGINNING, event_types=["records.*"]))
    ingested = [event for event in events if event.type.endswith("records.ingested")]
    await deployment.observed(lambda: late.duplicates == len(ingested), "another request sends again")
    assert other["sent"] == len(ingested)
    assert late.bodies_changed == 0

    status, listed = await call(second, "GET", "/v1/replays")
    assert (status, listed["missing"]) == (200, [])
    assert [item["id"] for item in listed["items"]] == [other["id"], again["id"], replay["id"]]
    told = [json.loads(message.value()) for message in await deployment.read(deployment.topics.events)]
    told = [event for event in told if event["type"] == "llm.data-vault.operator.replayed"]
    assert {event["data"]["id"] for event in told} == {item["id"] for item in listed["items"]}
    assert {event["data"]["actor"]["id"] for event in told} == {"local"}
    assert await deployment.read(deployment.topics.quarantine) == []


async def test_records_in_binary_mode_and_records_that_are_no_events_are_replayed_as_they_were_routed(
    deployment: Deployment,
) -> None:
    (worker,) = await deployment.start("w1")
    _, live = await hook_of(deployment)
    events = events_of(5, "binary")
    await produce_binary(deployment, events)
    await deployment.observed(lambda: len(live.accepted) == len(events), "the live webhook has everything")
    hook, late = await hook_of(deployment)
    done = await ended(worker, await ask(worker, hook, **FROM_THE_BEGINNING))
    await deployment.observed(lambda: len(late.accepted) == len(events), "the late webhook has everything")
    assert done["malformed"] == 1
    assert sorted(late.bodies.values()) == sorted(live.bodies.values())


async def produce_binary(deployment: Deployment, events: Sequence[VaultEvent]) -> None:
    """The events as headers and data, and one record that is none."""
    producer = Producer({"bootstrap.servers": deployment.brokers})
    prefix = deployment.topics.prefix
    for event in events:
        headers, value = encode_binary(event)
        producer.produce(topic_of(event.type, prefix), value, record_key(event), headers=headers)
    producer.produce(deployment.topics.events, b"{", b"k")
    assert await asyncio.to_thread(producer.flush, 30) == 0


async def test_since_it_was_disabled_brings_exactly_what_was_missed(deployment: Deployment) -> None:
    first, second = await deployment.start("w1", "w2")
    hook, receiver = await hook_of(deployment)
    before, waited, missed, live = (events_of(60, word) for word in ("before", "waited", "missed", "live"))
    await deployment.publish(before)
    await deployment.observed(lambda: len(receiver.accepted) == 60, "the first are there")
    await change(deployment, hook, Op.HOLD, WebhookPatch(hold_until_ms=now_ms() + 3_600_000))
    await deployment.publish(waited)
    await deployment.idle()
    await change(deployment, hook, Op.DISABLE)
    await deployment.publish(missed)
    await until(lambda: missed_of(first, hook, len(waited) + len(missed)), "all of them were missed")
    refused = await call(first, "POST", f"/v1/webhooks/{hook.id}/replay", {"since_disabled": True})
    assert (refused[0], refused[1]["code"]) == (409, "webhook_disabled")
    await change(deployment, hook, Op.HOLD, WebhookPatch(hold_until_ms=None))
    await change(deployment, hook, Op.ENABLE)
    await deployment.publish(live)
    await deployment.observed(lambda: len(receiver.accepted) == 120, "the last are there")
    await deployment.idle()

    done = await ended(second, await ask(first, hook, since_disabled=True))
    everything = [*before, *waited, *missed, *live]
    await deployment.observed(lambda: len(receiver.accepted) == len(everything), "the missed ones are there")
    await deployment.idle()
    assert done["sent"] == len(waited) + len(missed)
    assert accepted_times(receiver) == dict.fromkeys(expected_ids(hook, everything), 1)
    again = await ended(second, await ask(first, hook, since_disabled=True))
    assert again["sent"] == 0


async def missed_of(worker: RunningWorker, hook: Hook, count: int) -> bool:
    """Whether so many deliveries were missed."""
    status, page = await worker.get(f"/v1/deliveries?webhook_id={hook.id}&status=missed&limit=200")
    return status == 200 and len(page["items"]) == count


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def change(deployment: Deployment, hook: Hook, op: Op, patch: WebhookPatch | None = None) -> None:
    """Send a command for a webhook, and wait until every worker shows its effect."""
    command = Command(
        command_id=str(uuid.uuid4()),
        op=op,
        webhook_id=hook.id,
        expires_at=now_ms() + 60_000,
        actor="test",
        at=now_ms(),
        patch=patch or WebhookPatch(),
    )
    producer = Producer({"bootstrap.servers": deployment.brokers, "partitioner": "murmur2_random"})
    producer.produce(deployment.topics.commands, encode_command(command), hook.id.encode())
    assert await asyncio.to_thread(producer.flush, 30) == 0

    def has_it(webhook: dict[str, Any]) -> bool:
        if op is Op.HOLD:
            return ("hold_until" in webhook) is (command.patch.hold_until_ms is not None)
        return webhook["enabled"] is (op is Op.ENABLE)

    async def shown() -> bool:
        answers = [await worker.get(f"/v1/webhooks/{hook.id}") for worker in deployment.workers.values()]
        return all(status == 200 and has_it(body) for status, body in answers)

    await until(shown, f"{op} has its effect")


async def test_a_replay_that_is_cancelled_sends_nothing_more(deployment: Deployment) -> None:
    first, second = await deployment.start("w1", "w2")
    events = events_of(200, "many")
    await deployment.publish(events)
    await deployment.idle()
    hook, receiver = await hook_of(deployment)
    replay = await ask(first, hook, **FROM_THE_BEGINNING, rate_per_s=2, request_id="slow")
    await deployment.observed(lambda: len(receiver.accepted) >= 3, "it has begun")
    status, cancelled = await call(second, "DELETE", f"/v1/replays/{replay['id']}")
    assert (status, cancelled["state"]) == (200, "cancelled")
    assert cancelled["sent"] < len(events)
    await deployment.idle()
    # What was under way when it was cancelled may be in the log.
    assert cancelled["sent"] <= len(receiver.accepted) <= cancelled["sent"] + 1

    cli = Cli({"API__URL": second.url}, deployment.workers["w1"].data_dir.parent)
    done = await asyncio.to_thread(
        cli.json, "webhooks", "replay", hook.id, "--since", "2020-01-01T00:00:00Z", "--request-id", "slow", "--wait"
    )
    assert (done["state"], done["sent"] + done["skipped"]) == ("done", len(events))
    assert 0 < cancelled["sent"] <= done["skipped"] <= cancelled["sent"] + 1
    await deployment.observed(lambda: len(receiver.accepted) == len(events), "everything is there")
    await deployment.idle()
    assert set(accepted_times(receiver).values()) == {1}

    for worker in (first, second):
        await ask(worker, hook, **FROM_THE_BEGINNING, rate_per_s=1)
    assert await deployment.stop() == [0, 0]


async def test_after_a_kill_in_the_middle_asking_again_brings_everything(deployment: Deployment) -> None:
    await deployment.start("w1", "w2")
    events = events_of(600, "killed")
    await deployment.publish(events)
    await deployment.idle()
    hook, receiver = await hook_of(deployment)
    workers = deployment.workers
    replay = await ask(workers["w1"], hook, **FROM_THE_BEGINNING, rate_per_s=20, request_id="again")
    await deployment.observed(lambda: len(receiver.accepted) >= 60, "it is in the middle")
    name = replay["id"].rpartition(".")[0]
    killed = workers.pop(name)
    (survivor,) = workers.values()
    await killed.kill()
    await deployment.ready(survivor)

    async def gone() -> bool:
        status, answer = await call(survivor, "GET", f"/v1/replays/{replay['id']}")
        assert status in {404, 503}
        return status == 404 and "same request_id" in answer["detail"]

    await until(gone, "the replay is gone with its worker")
    assert len(receiver.accepted) < len(events)
    done = await ended(survivor, await ask(survivor, hook, **FROM_THE_BEGINNING, request_id="again"))
    assert (done["matched"], done["sent"] + done["skipped"]) == (len(events), len(events))
    assert done["skipped"] > 0
    await deployment.observed(lambda: len(receiver.accepted) == len(events), "everything is there")
    await deployment.idle()
    assert receiver.bodies.keys() == expected_ids(hook, events)
    assert receiver.bodies_changed == 0
    # The kill repeated what was in flight, and rows of one checkpoint; asking again repeats nothing.
    repeated = accepted_times(receiver)
    last = await ended(survivor, await ask(survivor, hook, **FROM_THE_BEGINNING, request_id="again"))
    assert (last["skipped"], last["sent"]) == (len(events), 0)
    await deployment.idle()
    assert accepted_times(receiver) == repeated


async def test_a_broker_that_dies_in_the_middle_is_waited_for(
    own_kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path
) -> None:
    async with Deployment(own_kafka.bootstrap, unique("app"), tmp_path) as deployment:
        (worker,) = await deployment.start("w1")
        events = events_of(400, "outage")
        await deployment.publish(events)
        await deployment.idle()
        hook, receiver = await hook_of(deployment)
        replay = await ask(worker, hook, **FROM_THE_BEGINNING, rate_per_s=40)
        await deployment.observed(lambda: len(receiver.accepted) >= 40, "it is in the middle")
        await asyncio.to_thread(own_kafka.kill)
        await asyncio.to_thread(own_kafka.start)
        done = await ended(worker, replay, deadline_s=RECOVERY_S)
        assert (done["sent"], done["scanned"]) == (len(events), done["total"])
        await deployment.observed(lambda: len(receiver.accepted) == len(events), "everything is there", RECOVERY_S)
        assert receiver.bodies.keys() == expected_ids(hook, events)
        assert receiver.bodies_changed == 0
