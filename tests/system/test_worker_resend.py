"""What was given up is sent again: by its delivery, by its dead letter, by a filter; from the log, on any worker."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from confluent_kafka import OFFSET_END, TopicPartition
from confluent_kafka.admin import AdminClient

from app.devstack.workload import make_workload
from app.publishing import VaultEvent
from tests.support.cli import Cli
from tests.support.workers import Deployment, Hook, RunningWorker, until

pytestmark = pytest.mark.kafka

EVENTS = 24


async def given_up(deployment: Deployment, worker: RunningWorker, count: int) -> list[dict[str, Any]]:
    """All dead letters, once there are so many."""

    async def listed() -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        path = "/v1/dead-letters?limit=5"
        cursor = ""
        while cursor is not None:
            status, page = await worker.get(f"{path}&cursor={cursor}" if cursor else path)
            if status != 200:
                return []
            items += page["items"]
            cursor = page["next_cursor"]
        return items if len(items) == count else []

    return await until(listed, f"{count} dead letters")


async def post(worker: RunningWorker, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as client,
        client.post(worker.url + path, json={} if body is None else body, headers=headers) as answer,
    ):
        return answer.status, orjson.loads(await answer.read())


def delete_events(deployment: Deployment) -> None:
    """Retention takes everything that the vault has published."""
    admin = AdminClient({"bootstrap.servers": deployment.brokers})
    known = admin.list_topics(timeout=20).topics
    places = [
        TopicPartition(topic, partition, OFFSET_END)
        for topic in deployment.topics.vault
        for partition in known[topic].partitions
    ]
    for done in admin.delete_records(places).values():
        done.result(30)


def accepted(hook: Hook, events: Sequence[VaultEvent]) -> bool:
    return hook.receiver.accepted == hook.expected(events)


@pytest.fixture
async def stubborn(deployment: Deployment) -> tuple[list[RunningWorker], Hook, list[VaultEvent]]:
    """Two workers, and a receiver that made them give up on everything, and would take it now."""
    deployment.settings["WEBHOOKS__RETRY_SCHEDULE_S"] = "[0,0]"
    workers = await deployment.start("w1", "w2")
    hook = await deployment.hook("*", "flaky")
    events = list(make_workload(EVENTS, seed=1, start_ms=1_790_000_000_000).events)
    await deployment.publish(events)
    await deployment.observed(lambda: len(hook.receiver.attempts) == len(hook.expected(events)), "all were tried")
    return workers, hook, events


async def test_what_was_given_up_is_sent_again_with_the_same_id_and_bytes_though_its_origin_is_gone(
    deployment: Deployment, stubborn: tuple[list[RunningWorker], Hook, list[VaultEvent]], tmp_path: Path
) -> None:
    (first, second), hook, events = stubborn
    wanted = hook.expected(events)
    letters = await given_up(deployment, first, len(wanted))
    assert {(letter["event_source"], letter["event_id"]) for letter in letters} == wanted
    assert {letter["reason"] for letter in letters} == {"exhausted"}
    assert hook.receiver.accepted == set()

    # From where it came, by whichever worker does not own it.
    status, sent = await post(second, f"/v1/deliveries/{letters[0]['delivery_id']}/resend")
    assert (status, sent["delivery_id"]) == (202, letters[0]["delivery_id"])
    await deployment.observed(lambda: len(hook.receiver.accepted) == 1, "from its origin")

    await asyncio.to_thread(delete_events, deployment)
    status, _ = await post(first, f"/v1/deliveries/{letters[1]['delivery_id']}/resend")
    assert status == 202
    await deployment.observed(lambda: len(hook.receiver.accepted) == 2, "from its dead letter")

    status, _ = await post(second, f"/v1/dead-letters/{letters[2]['id']}/resend")
    assert status == 202
    await deployment.observed(lambda: len(hook.receiver.accepted) == 3, "a dead letter itself")

    # A request that is repeated repeats nothing.
    key = {"Idempotency-Key": "once"}
    for _ in range(2):
        status, answer = await post(first, "/v1/dead-letters/resend", {"webhook_id": hook.id}, **key)
        assert (status, answer["refused"], answer["next_cursor"]) == (202, [], None)
        assert len(answer["resent"]) == len(wanted)
    await deployment.observed(lambda: accepted(hook, events), "all of the filter")
    await deployment.idle()

    assert hook.receiver.bodies_changed == 0
    assert len(hook.receiver.attempts) == len(wanted)
    # The three that were sent before, once more each.
    assert hook.receiver.duplicates == 3
    _, shown = await first.get(f"/v1/deliveries/{letters[0]['delivery_id']}")
    assert (shown["status"], shown["attempts"]) == ("delivered", 4)
    cli = Cli({"API__URL": first.url}, tmp_path)
    listed = await asyncio.to_thread(cli.json, "dead-letters", "list", "--webhook", hook.id, "--limit", "3")
    assert [item["id"] for item in listed["items"]] == [letter["id"] for letter in letters[:3]]
    _, whole = await second.get(f"/v1/dead-letters/{letters[0]['id']}")
    assert whole["event"]["id"] == letters[0]["event_id"]


async def test_what_cannot_be_sent_again_says_why(
    deployment: Deployment, stubborn: tuple[list[RunningWorker], Hook, list[VaultEvent]]
) -> None:
    (first, second), hook, events = stubborn
    letters = await given_up(deployment, first, len(hook.expected(events)))
    one = letters[0]

    status, _ = await post(second, f"/v1/webhooks/{hook.id}/disable")
    assert status == 200
    for path in (f"/v1/deliveries/{one['delivery_id']}/resend", f"/v1/dead-letters/{one['id']}/resend"):
        status, problem = await post(second, path)
        assert (status, problem["code"]) == (409, "disabled")
    status, answer = await post(second, "/v1/dead-letters/resend", {"all": True})
    assert (status, answer["resent"], len(answer["refused"])) == (202, [], len(letters))
    for path in ("/v1/dead-letters/0-999999/resend", "/v1/deliveries/dlv_" + "a" * 26 + "/resend"):
        status, problem = await post(second, path)
        assert (status, problem["code"]) == (404, "not_found")
