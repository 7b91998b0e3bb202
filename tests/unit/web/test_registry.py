"""The registry over HTTP, at the owner of the datasets and at a worker that owns nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from app.engine import OutputFailed
from app.integrations.registry_sync import SyncMode
from tables.datasets import DatasetReaders
from tests.support.listening import ADMIN, TOKENS, VIEWER, Caller, listening
from tests.support.registry_api import RegistryWorker, WorldLog
from tests.support.registry_world import RegistryWorld

LINK = {"dataset_id": "ds-1", "model_id": "m/1", "relationship": "training_data"}
SYNC = "/v1/registry/sync"
LINKS = "/v1/registry/links"


@dataclass
class Cluster:
    world: RegistryWorld
    owner: RegistryWorker
    other: RegistryWorker
    callers: dict[str, Caller]


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    world = RegistryWorld(mode=SyncMode.PULL, interval_s=3600)
    await world.open()
    log = WorldLog(world)
    owner, other = RegistryWorker(world.readers, log), RegistryWorker(type(world.readers)(), log, owns=False)
    async with AsyncExitStack() as stack:
        callers = {}
        for name, worker in (("owner", owner), ("other", other)):
            callers[name] = await stack.enter_async_context(listening(worker.routes(), TOKENS))
            stack.push_async_callback(worker.forwarder.close)
        other.know(callers["owner"].url)
        yield Cluster(world, owner, other, callers)
    await world.close()


at_any = pytest.mark.parametrize("at", ["owner", "other"])


@at_any
async def test_a_synchronisation_is_asked_for_and_watched_at_any_worker(cluster: Cluster, at: str) -> None:
    world, caller = cluster.world, cluster.callers[at]
    world.created("ds-1")
    world.book.change("ds-2")
    await world.turn()
    asked = await caller.call("POST", SYNC, {"mode": "both"}, headers=ADMIN)
    assert asked.status == 202
    assert asked.headers["Location"] == f"{SYNC}/{asked.document['id']}"
    before = await caller.get(asked.headers["Location"], headers=VIEWER)
    assert (before.status, before.document["state"]) == (200, "running")
    await world.advance(1)
    after = (await caller.get(asked.headers["Location"], headers=VIEWER)).document
    assert (after["state"], after["mode"], after["pushed"], after["missing"]) == ("done", "both", 1, [])
    assert (after["conflicts"], after["failed"]) == ([], [])
    assert world.ours() == world.theirs()


async def test_without_a_mode_it_is_that_of_the_settings(cluster: Cluster) -> None:
    cluster.world.created()
    asked = await cluster.callers["owner"].call("POST", SYNC, headers=ADMIN)
    await cluster.world.advance(1)
    found = await cluster.callers["owner"].get(asked.headers["Location"], headers=VIEWER)
    assert (found.document["mode"], found.document["pushed"]) == ("push", 1)


async def test_one_that_was_lost_with_its_worker_has_failed(cluster: Cluster) -> None:
    caller = cluster.callers["other"]
    asked = await caller.call("POST", SYNC, {"mode": "push"}, headers=ADMIN)
    cluster.owner.now_ms = cluster.other.now_ms = cluster.other.now_ms + 60_001
    lost = await caller.get(asked.headers["Location"], headers=VIEWER)
    assert lost.code == (404, "not_found")


@pytest.mark.parametrize(
    "sync_id", ["x", "0189f7ea-ae2c-4b2a-8d5f-000000000000", "0189F7EA-AE2C-7B2A-8D5F-000000000000"]
)
async def test_what_is_no_id_of_one_is_not_found(cluster: Cluster, sync_id: str) -> None:
    assert (await cluster.callers["owner"].get(f"{SYNC}/{sync_id}", headers=VIEWER)).code == (404, "not_found")


async def test_numbers_without_an_owner_are_named(cluster: Cluster) -> None:
    asked = await cluster.callers["other"].call("POST", SYNC, headers=ADMIN)
    cluster.owner.owns = False
    found = await cluster.callers["other"].get(asked.headers["Location"], headers=VIEWER)
    assert (found.document["state"], found.document["missing"]) == ("running", [0])


async def test_without_a_registry_there_is_nothing_to_be_in_step_with(cluster: Cluster) -> None:
    worker = RegistryWorker(cluster.world.readers, off=True)
    async with listening(worker.routes(), TOKENS) as caller:
        answer = await caller.call("POST", SYNC, {}, headers=ADMIN)
    assert answer.code == (503, "registry_off")
    assert answer.document["setting"] == "VAULT_STREAM_REGISTRY__ENDPOINT"
    assert "set VAULT_STREAM_REGISTRY__ENDPOINT" in answer.document["detail"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (SYNC, {"mode": "sideways"}, "/mode"),
        (SYNC, {"mode": None}, "/mode"),
        (SYNC, {"made": "push"}, "/made"),
        (LINKS, {**LINK, "relationship": "friend"}, "/relationship"),
        (LINKS, {**LINK, "dataset_id": ""}, "/dataset_id"),
        (LINKS, {**LINK, "model_id": "m" * 257}, "/model_id"),
        (LINKS, {**LINK, "model_id": 7}, "/model_id"),
        (LINKS, {**LINK, "since": "now"}, "/since"),
    ],
)
async def test_a_field_that_is_wrong_is_named(cluster: Cluster, path: str, body: dict[str, str], field: str) -> None:
    answer = await cluster.callers["owner"].call("POST", path, body, headers=ADMIN)
    assert (answer.status, answer.fields) == (422, [field])


async def test_a_field_that_is_not_there_is_said_to_be_missing(cluster: Cluster) -> None:
    body = {name: value for name, value in LINK.items() if name != "model_id"}
    answer = await cluster.callers["owner"].call("POST", LINKS, body, headers=ADMIN)
    (error,) = answer.document["errors"]
    assert (error["code"], error["message"]) == ("missing", "is missing: a string of 1 to 256 characters")
    assert answer.document["detail"].startswith("/model_id: is missing")


@at_any
async def test_a_link_waits_for_its_dataset_and_is_shown_with_it(cluster: Cluster, at: str) -> None:
    world, caller = cluster.world, cluster.callers[at]
    world.created("ds-1")
    await world.turn()
    for _ in range(2):
        answer = await caller.call("POST", LINKS, LINK, headers=ADMIN)
        assert (answer.status, answer.document["status"]) == (202, "waiting")
        await world.turn()
    await caller.call("POST", SYNC, {"mode": "push"}, headers=ADMIN)
    await world.advance(1)
    shown = (await caller.get("/v1/registry/datasets/ds-1", headers=VIEWER)).document
    assert [(link["model_id"], link["status"]) for link in shown["links"]] == [("m/1", "linked")]
    assert (shown["state"], shown["registration_id"], shown["origin"]) == ("synced", "reg-ds-1", "vault")
    assert shown["document"] == world.theirs()["ds-1"]


async def test_nothing_is_linked_to_a_dataset_that_is_not_there(cluster: Cluster) -> None:
    cluster.world.created("ds-1")
    cluster.world.vault("dataset.deleted")
    await cluster.world.turn()
    for dataset_id, code in (("ds-1", (409, "deleted")), ("ds-2", (404, "not_found"))):
        answer = await cluster.callers["owner"].call("POST", LINKS, {**LINK, "dataset_id": dataset_id}, headers=ADMIN)
        assert answer.code == code
        assert ("is deleted" in answer.document["detail"]) == (dataset_id == "ds-1")


@at_any
async def test_a_dataset_whose_id_is_no_word_is_found(cluster: Cluster, at: str) -> None:
    cluster.world.created("a/b c")
    await cluster.world.turn()
    shown = await cluster.callers[at].get("/v1/registry/datasets/a%2Fb%20c", headers=VIEWER)
    assert (shown.status, shown.document["id"], shown.document["state"]) == (200, "a/b c", "waiting")
    unknown = await cluster.callers[at].get("/v1/registry/datasets/b", headers=VIEWER)
    assert unknown.code == (404, "not_found")


async def test_a_viewer_changes_nothing(cluster: Cluster) -> None:
    for path, body in ((SYNC, {}), (LINKS, LINK)):
        assert (await cluster.callers["owner"].call("POST", path, body, headers=VIEWER)).code == (403, "forbidden")


async def test_what_kafka_did_not_take_is_said_so(cluster: Cluster) -> None:
    cluster.owner.log.failure = OutputFailed("no leader")
    answer = await cluster.callers["owner"].call("POST", SYNC, {}, headers=ADMIN)
    assert answer.code == (503, "unconfirmed")
    assert answer.headers["Retry-After"] == "2"


async def test_a_number_that_is_closing_is_said_so(cluster: Cluster) -> None:
    cluster.world.context.closed = True
    answer = await cluster.callers["owner"].get("/v1/registry/datasets/ds-1", headers=VIEWER)
    assert answer.code == (503, "no_owner")
    cluster.world.context.closed = False


# --- How it is


@at_any
async def test_the_status_says_what_waits_and_the_newest_synchronisations_at_any_worker(
    cluster: Cluster, at: str
) -> None:
    caller = cluster.callers[at]
    asked = [(await caller.call("POST", SYNC, {"mode": "pull"}, headers=ADMIN)).document["id"]]
    cluster.owner.now_ms = cluster.other.now_ms = cluster.other.now_ms + 1000
    asked.append((await caller.call("POST", SYNC, {"mode": "pull"}, headers=ADMIN)).document["id"])
    cluster.world.created("ds-1")
    await cluster.world.turn()
    told = (await caller.get("/v1/registry/status", headers=VIEWER)).document
    assert [one["id"] for one in told["syncs"]] == asked[::-1]
    assert all(one["asked_at"].startswith("20") for one in told["syncs"])
    assert (told["off"], told["mode"], told["waiting"], told["missing"]) == (False, "push", 1, [])


async def test_the_status_names_the_numbers_that_nobody_speaks_for(cluster: Cluster) -> None:
    cluster.other.know("http://127.0.0.1:1")
    told = (await cluster.callers["other"].get("/v1/registry/status", headers=VIEWER)).document
    assert told == {"off": False, "mode": "push", "waiting": 0, "syncs": [], "missing": [0]}


async def test_the_status_says_that_there_is_no_registry() -> None:
    worker = RegistryWorker(DatasetReaders(), off=True)
    async with listening(worker.routes(), TOKENS) as caller:
        told = (await caller.get("/v1/registry/status", headers=VIEWER)).document
    await worker.forwarder.close()
    assert told["off"] is True
