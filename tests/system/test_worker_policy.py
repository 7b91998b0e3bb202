"""Access decided by real workers on a real broker: kept, shared, ended by a revocation, and never given without one."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from app.devstack.kafka import free_port
from app.integrations.policy import InvalidationTail, PolicyEngineClient
from app.publishing import VaultEvent, VaultEventType
from tests.support.workers import Deployment, RunningWorker, until

pytestmark = pytest.mark.kafka

PRINCIPALS = [f"user-{number}" for number in range(8)]
STAMPEDE = 1000
CALL_S = 2.0
"""Long enough for all of them to be there before the first answer is."""
SEEN_S = 20.0
"""The promise is a second; the machine may be busy."""
SKEW_S = "0.5"
"""The clocks of one machine do not differ, and nobody likes to wait."""


class Judge:
    """A policy engine that allows whom a test has granted it; each call takes as long as the test says."""

    def __init__(self) -> None:
        self.granted = set(PRINCIPALS)
        self.asked: list[str] = []
        self.takes_s = 0.0
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/api/v1/evaluate/access", self._evaluate)
        self._runner = web.AppRunner(app, shutdown_timeout=1.0)
        await self._runner.setup()
        port = free_port()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _evaluate(self, request: web.Request) -> web.Response:
        principal = (await request.json())["principal_id"]
        self.asked.append(principal)
        await asyncio.sleep(self.takes_s)
        allowed = principal in self.granted
        return web.json_response(
            {"allowed": allowed, "reason": "as granted", "matched_policies": ["p-1"], "obligations": []}
        )


@pytest.fixture
async def judge() -> AsyncIterator[Judge]:
    judge = Judge()
    await judge.start()
    yield judge
    await judge.stop()


class Scene:
    """Two workers, and somebody who asks them."""

    def __init__(self, deployment: Deployment, judge: Judge, session: aiohttp.ClientSession) -> None:
        self.deployment = deployment
        self.judge = judge
        self.workers = list(deployment.workers.values())
        self._session = session

    async def post(self, worker: RunningWorker, path: str, body: Any) -> tuple[int, Any]:
        async with self._session.post(worker.url + path, json=body) as answer:
            return answer.status, json.loads(await answer.text())

    async def ask(self, worker: RunningWorker, principal: str) -> tuple[int, Any]:
        question = {"principal_id": principal, "action": "read", "resource_id": "ds-1"}
        return await self.post(worker, "/v1/policy/evaluate", question)

    async def ask_both(self, *principals: str) -> list[tuple[int, Any]]:
        return [await self.ask(worker, principal) for worker in self.workers for principal in principals]

    async def kept(self, *principals: str) -> bool:
        return all(answer.get("source") == "cache" for _, answer in await self.ask_both(*principals))

    async def denied(self, principal: str) -> bool:
        answers = await self.ask_both(principal)
        assert {status for status, _ in answers} == {200}
        return not any(answer["allowed"] for _, answer in answers)


async def test_decisions_are_kept_until_they_are_revoked_and_without_the_engine_there_are_none(
    deployment: Deployment, judge: Judge
) -> None:
    deployment.settings |= {
        "POLICY__ENDPOINT": judge.url,
        "POLICY__MAX_CLOCK_SKEW_S": SKEW_S,
        # It is in the process of a thousand callers.
        "POLICY__TIMEOUT_S": "30",
    }
    await deployment.start("w1", "w2")
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        scene = Scene(deployment, judge, session)
        await _kept_and_shared(scene)
        await _a_stampede_is_no_stampede_to_the_engine(scene)
        await _revoked_by_an_event(scene, PRINCIPALS[0])
        await _invalidated_by_the_api(scene, PRINCIPALS[1])
        await _the_same_in_authzen(scene)
        await _a_service_with_a_tail_of_its_own(scene)
        await _kept_over_a_kill_of_everybody(scene)
        await _without_the_engine(scene)
    assert await deployment.stop() == [0, 0]
    await _everything_is_in_the_log(deployment)


async def _kept_and_shared(scene: Scene) -> None:
    await until(lambda: scene.kept(*PRINCIPALS), "every decision is kept by both workers")


async def _a_stampede_is_no_stampede_to_the_engine(scene: Scene) -> None:
    scene.judge.granted.add("crowd")
    scene.judge.takes_s = CALL_S
    workers = scene.workers
    answers = await asyncio.gather(*(scene.ask(workers[n % 2], "crowd") for n in range(STAMPEDE)))
    scene.judge.takes_s = 0.0
    assert {(status, answer.get("allowed")) for status, answer in answers} == {(200, True)}
    # One, where a worker is never busy for so long that it does not know the end of the log; see the tests of units.
    assert 1 <= scene.judge.asked.count("crowd") <= STAMPEDE / 50


async def _revoked_by_an_event(scene: Scene, principal: str) -> None:
    scene.judge.granted.discard(principal)
    data = {"principal_id": principal, "resource_id": "ds-9", "action": "read"}
    await scene.deployment.publish([VaultEvent.new(VaultEventType.ACCESS_REVOKED, "/vault", data)])
    await until(lambda: scene.denied(principal), "both workers deny what was revoked")
    for _ in range(5):
        assert await scene.denied(principal)
    await until(lambda: scene.kept(PRINCIPALS[2]), "nobody else is asked about again")


async def _invalidated_by_the_api(scene: Scene, principal: str) -> None:
    scene.judge.granted.discard(principal)
    told = await scene.post(scene.workers[0], "/v1/policy/invalidate", {"principal_id": principal})
    assert told == (200, {"scope": f"p:{principal}"})
    await until(lambda: scene.denied(principal), "both workers deny what was invalidated", SEEN_S)


async def _the_same_in_authzen(scene: Scene) -> None:
    for principal, decision in ((PRINCIPALS[1], False), (PRINCIPALS[2], True)):
        request = {
            "subject": {"type": "user", "id": principal},
            "action": {"name": "read"},
            "resource": {"type": "dataset", "id": "ds-1"},
        }
        for worker in scene.workers:
            status, told = await scene.post(worker, "/access/v1/evaluation", request)
            assert (status, told["decision"]) == (200, decision)


async def _a_service_with_a_tail_of_its_own(scene: Scene) -> None:
    topic, skew_s = scene.deployment.topics.invalidations, float(SKEW_S)
    async with (
        InvalidationTail(scene.deployment.brokers, topic=topic, skew_s=skew_s) as tail,
        PolicyEngineClient(scene.judge.url, tail=tail) as client,
    ):

        async def kept() -> bool:
            return (await client.evaluate_access(PRINCIPALS[3], "read", "ds-5")).source == "cache"

        await until(kept, "the service keeps a decision")
        scene.judge.granted.discard(PRINCIPALS[3])
        assert (await scene.post(scene.workers[0], "/v1/policy/invalidate", {"resource_id": "ds-5"}))[0] == 200

        async def denied() -> bool:
            return not (await client.evaluate_access(PRINCIPALS[3], "read", "ds-5")).decision.verdict.allowed

        await until(denied, "the service acts by the invalidation", SEEN_S)
    scene.judge.granted.add(PRINCIPALS[3])


async def _kept_over_a_kill_of_everybody(scene: Scene) -> None:
    """Nobody has anything in memory then, so that what is kept comes out of the tables."""
    for worker in scene.workers:
        await worker.kill()
    for worker in scene.workers:
        await worker.start()
    for worker in scene.workers:
        await scene.deployment.ready(worker)
    await scene.deployment.idle()
    await until(lambda: scene.kept("canary"), "both workers know the end of the log")
    before = len(scene.judge.asked)
    allowed = PRINCIPALS[4:]
    await until(lambda: scene.kept(*allowed), "what was kept is kept")
    # Some would be enough: a worker that was busy for a second asks the engine.
    assert set(allowed) - set(scene.judge.asked[before:])


async def _without_the_engine(scene: Scene) -> None:
    """What is kept is still known, everything else is no allow; and once it is invalidated, nothing is known."""
    await scene.judge.stop()
    for status, answer in await scene.ask_both("somebody-else"):
        assert (status, answer["code"]) == (503, "policy_unavailable")
    await until(lambda: scene.kept(PRINCIPALS[4]), "what is kept is still known")
    assert (await scene.post(scene.workers[0], "/v1/policy/invalidate", {"all": True}))[0] == 200

    async def none() -> bool:
        return {status for status, _ in await scene.ask_both(*PRINCIPALS)} == {503}

    await until(none, "nothing is answered by what was kept", SEEN_S)


async def _everything_is_in_the_log(deployment: Deployment) -> None:
    messages = await deployment.read(deployment.topics.decisions)
    records = [json.loads(message.value()) for message in messages]
    found = [record["data"] for record in records]
    crowd = {record["id"] for record in records if record["data"]["principal_id"] == "crowd"}
    assert len(crowd) >= STAMPEDE
    assert {data["source"] for data in found} == {"cache", "engine", "error"}
    assert not any(data["allowed"] for data in found if data["source"] == "error")
    assert {message.key().decode() for message in messages} == {data["principal_id"] for data in found}
