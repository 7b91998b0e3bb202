import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from app.devstack.stack import Upstreams, listening
from app.devstack.standins import Fault, Observations
from app.devstack.standins.registry import PAGE
from app.events import format_time
from app.integrations.registry_pull import Page, read_page

BATCH = [{"partition": 0, "sequence": 4, "source": "/vault/api", "id": "e1"}]


@pytest.fixture
async def upstreams() -> AsyncIterator[Upstreams]:
    made = Upstreams.new(Observations())
    async with listening(*made.all):
        yield made


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def send_batch(client: aiohttp.ClientSession, upstreams: Upstreams, batch: Any, key: str = "b-0-4-4") -> int:
    url = f"{upstreams.dashboard.url}/api/v1/audit/events/batch"
    async with client.post(url, json=batch, headers={"Idempotency-Key": key}) as response:
        return response.status


async def control(client: aiohttp.ClientSession, url: str, **fault: Any) -> int:
    async with client.post(f"{url}/control", json=fault) as response:
        return response.status


async def test_the_dashboard_keeps_a_batch_and_answers_409_to_its_repeat(
    client: aiohttp.ClientSession, upstreams: Upstreams
) -> None:
    assert await send_batch(client, upstreams, BATCH) == 202
    assert await send_batch(client, upstreams, BATCH) == 409
    assert upstreams.dashboard.chain() == BATCH
    assert upstreams.dashboard.events == {("/vault/api", "e1")}
    assert (upstreams.dashboard.repeated, upstreams.dashboard.changed) == (1, 0)


async def test_the_dashboard_notices_other_bytes_under_a_known_key(
    client: aiohttp.ClientSession, upstreams: Upstreams
) -> None:
    await send_batch(client, upstreams, BATCH)
    assert await send_batch(client, upstreams, [*BATCH, *BATCH]) == 409
    assert upstreams.dashboard.changed == 1


async def test_a_fault_lasts_as_often_as_it_says_and_remembers_nothing(
    client: aiohttp.ClientSession, upstreams: Upstreams
) -> None:
    assert await control(client, upstreams.dashboard.url, status=401, times=2) == 204
    assert [await send_batch(client, upstreams, BATCH) for _ in range(3)] == [401, 401, 202]
    assert upstreams.dashboard.repeated == 0


async def test_a_fault_without_a_number_lasts_until_it_is_taken_back(
    client: aiohttp.ClientSession, upstreams: Upstreams
) -> None:
    upstreams.dashboard.fault = Fault(503, retry_after_s=7)
    url = f"{upstreams.dashboard.url}/api/v1/audit/events/batch"
    async with client.post(url, json=BATCH) as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "7")
    async with client.delete(f"{upstreams.dashboard.url}/control") as response:
        assert response.status == 204
    assert await send_batch(client, upstreams, BATCH) == 202


async def test_a_fault_may_concern_large_batches_only(client: aiohttp.ClientSession, upstreams: Upstreams) -> None:
    await control(client, upstreams.dashboard.url, status=413, over_items=1)
    assert await send_batch(client, upstreams, BATCH * 2, "two") == 413
    assert await send_batch(client, upstreams, BATCH, "one") == 202


async def test_a_fault_may_concern_one_record_only(client: aiohttp.ClientSession, upstreams: Upstreams) -> None:
    await control(client, upstreams.dashboard.url, status=422, naming='"id": "e1"')
    assert await send_batch(client, upstreams, BATCH, "poison") == 422
    assert await send_batch(client, upstreams, [{**BATCH[0], "id": "e2"}], "good") == 202


async def test_a_dropped_connection_has_no_answer(client: aiohttp.ClientSession, upstreams: Upstreams) -> None:
    await control(client, upstreams.dashboard.url, drop=True, times=1)
    with pytest.raises(aiohttp.ClientError):
        await send_batch(client, upstreams, BATCH)
    assert await send_batch(client, upstreams, BATCH) == 202


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"statsu":503}'])
async def test_a_control_request_that_is_no_fault_is_refused(
    client: aiohttp.ClientSession, upstreams: Upstreams, body: bytes
) -> None:
    async with client.post(f"{upstreams.policy.url}/control", data=body) as response:
        assert response.status == 422
    assert upstreams.policy.fault is None


async def test_a_stopped_standin_refuses_connections_and_returns_at_the_same_address_with_its_memory(
    client: aiohttp.ClientSession, upstreams: Upstreams
) -> None:
    await send_batch(client, upstreams, BATCH)
    url = upstreams.dashboard.url
    await upstreams.dashboard.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await send_batch(client, upstreams, BATCH)
    await upstreams.dashboard.start()
    assert upstreams.dashboard.url == url
    assert await send_batch(client, upstreams, BATCH) == 409


async def test_the_policy_engine_takes_a_report_once(client: aiohttp.ClientSession, upstreams: Upstreams) -> None:
    url, report = f"{upstreams.policy.url}/api/v1/violations", {"violation_id": "v1", "policy_id": "p"}
    statuses = []
    for key in ("k1", "k1", "k2"):
        async with client.post(url, json=report, headers={"Idempotency-Key": key}) as response:
            statuses.append(response.status)
    assert statuses == [201, 409, 201]
    assert upstreams.policy.violations == {"v1": report}


@pytest.mark.parametrize(
    ("principal", "action", "allowed"), [("bob", "read", True), ("bob", "write", False), ("admin-1", "write", True)]
)
async def test_the_policy_engine_answers_by_its_rule(
    client: aiohttp.ClientSession, upstreams: Upstreams, principal: str, action: str, allowed: bool
) -> None:
    question = {"principal_id": principal, "action": action, "resource_id": "ds", "context": {}}
    async with client.post(f"{upstreams.policy.url}/api/v1/evaluate/access", json=question) as response:
        answer = await response.json()
    assert answer["allowed"] is allowed
    assert answer.keys() == {"allowed", "reason", "matched_policies", "obligations"}


async def test_the_registry_upserts_and_deletes(client: aiohttp.ClientSession, upstreams: Upstreams) -> None:
    url = f"{upstreams.registry.url}/api/v1/datasets"
    statuses = []
    for version in ("1", "2"):
        async with client.post(url, json={"id": "ds/1", "version": version}) as response:
            statuses.append((response.status, await response.json()))
    assert statuses == [(201, {"id": "reg-ds/1"}), (200, {"id": "reg-ds/1"})]
    assert upstreams.registry.datasets == {"ds/1": {"id": "ds/1", "version": "2"}}
    for status in (204, 404):
        async with client.delete(f"{url}/ds%2F1") as response:
            assert response.status == status
    assert upstreams.registry.datasets == {}


async def test_the_registry_lists_what_it_was_given_in_pages_that_a_pull_can_read(
    client: aiohttp.ClientSession, upstreams: Upstreams
) -> None:
    url = f"{upstreams.registry.url}/api/v1/datasets"
    given = [f"ds-{number:03}" for number in range(PAGE + 1)]
    for id_ in given:
        async with client.post(url, json={"id": id_, "name": f"Named {id_}", "version": "1"}) as response:
            assert response.status == 201
    async with client.delete(f"{url}/ds-007") as response:
        assert response.status == 204
    pages = [await page_of_registry(client, url, {})]
    while (cursor := pages[-1].cursor) is not None:
        pages.append(await page_of_registry(client, url, {"cursor": cursor}))
    assert [len(page.items) for page in pages] == [PAGE, 1]
    assert not any(page.refused for page in pages)
    found = {item.id: item for page in pages for item in page.items}
    assert sorted(found) == given
    assert [id_ for id_, item in found.items() if item.status == "deleted"] == ["ds-007"]
    assert found["ds-001"].fields["name"] == "Named ds-001"
    newest = max(item.at_ms for item in found.values())
    since = await page_of_registry(client, url, {"updated_since": format_time(newest)})
    assert [item.id for item in since.items] == sorted(id_ for id_, item in found.items() if item.at_ms == newest)
    assert (await page_of_registry(client, url, {"updated_since": format_time(newest + 1)})).items == []


@pytest.mark.parametrize("cursor", ["x", "é", "NQ==", "WzEsIDJd", "WyJhIl0="])
async def test_the_registry_refuses_a_cursor_that_it_has_not_given(
    client: aiohttp.ClientSession, upstreams: Upstreams, cursor: str
) -> None:
    url = f"{upstreams.registry.url}/api/v1/datasets"
    async with client.get(url, params={"cursor": cursor}) as response:
        assert response.status == 400


async def test_the_registry_can_be_told_to_fail_where_it_is_pulled_from(
    client: aiohttp.ClientSession, upstreams: Upstreams
) -> None:
    url = f"{upstreams.registry.url}/api/v1/datasets"
    assert await control(client, upstreams.registry.url, status=503, times=1) == 204
    async with client.get(url) as response:
        assert response.status == 503
    assert (await page_of_registry(client, url, {})).items == []


async def page_of_registry(client: aiohttp.ClientSession, url: str, query: dict[str, str]) -> Page:
    async with client.get(url, params=query) as response:
        assert response.status == 200
        return read_page(await response.json())


async def test_observed_is_a_json_object_of_numbers(client: aiohttp.ClientSession, upstreams: Upstreams) -> None:
    for standin in upstreams.all:
        async with client.get(f"{standin.url}/observed") as response:
            seen = json.loads(await response.text())
        assert seen == {**standin.observed(), "unauthorized": 0, "redirected": 0}
        assert all(isinstance(number, int) for number in seen.values())


async def test_waiting_for_an_observation_ends_with_it_and_at_the_deadline() -> None:
    observations, seen = Observations(), [0]

    def observe() -> None:
        seen[0] += 1
        observations.notify()

    asyncio.get_running_loop().call_later(0.01, observe)
    assert await observations.until(lambda: seen[0] == 1, 5)
    assert not await observations.until(lambda: seen[0] == 2, 0.01)


def test_a_listener_hears_every_observation() -> None:
    heard: list[int] = []
    observations = Observations(lambda: heard.append(1))
    observations.notify()
    observations.notify()
    assert len(heard) == 2
