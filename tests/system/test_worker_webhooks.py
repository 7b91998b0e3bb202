"""Webhooks administered through real workers: any of them takes any change, and a race has one winner."""

import asyncio
import base64
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from app.devstack.processes import module_environment
from app.devstack.stack import encryption_key, listening
from app.events import format_time
from tests.support.listening import Caller
from tests.support.workers import Deployment, RunningWorker, TimedReceiver, until

pytestmark = pytest.mark.kafka

REQUEST_DEADLINE_S = 60.0
RACES = 5
ORIGIN = "vault.example.com"
ORIGIN_HEADER = "WebHook-Request-Origin"
LATER = format_time(time.time_ns() // 1_000_000 + 86_400_000)
CHANGES: tuple[tuple[str, str, dict[str, Any], dict[str, Any]], ...] = (
    ("PATCH", "", {"rate_limit_per_s": 50, "headers": {"X-Api-Key": "hunter2"}}, {"rate_limit_per_s": 50}),
    ("PATCH", "", {"rate_limit_per_s": None, "headers": {"X-Api-Key": "***"}}, {"headers": {"X-Api-Key": "***"}}),
    ("POST", "/hold", {"until": LATER}, {"hold_until": LATER}),
    ("POST", "/hold", {"until": None}, {"enabled": True}),
    ("POST", "/disable", {}, {"enabled": False, "health": "disabled"}),
    ("POST", "/enable", {}, {"enabled": True, "health": "ok"}),
    ("POST", "/rotate-secret", {"overlap_s": 3600}, {"enabled": True}),
)
ANNOUNCED = {"/enable": "enabled", "/rotate-secret": "rotated"}
EVENT = {
    "specversion": "1.0",
    "id": "e1",
    "source": "/vault",
    "type": "llm.data-vault.dataset.created",
    "data": {"dataset_id": "d1", "name": "n"},
}


class ConsentingReceiver(TimedReceiver):
    """One that agrees to the OPTIONS handshake.

    Attributes:
        origins: Those that asked, and `delivering`: those that sent something.
    """

    origins: list[str | None]
    delivering: list[str | None]

    def _routes(self) -> list[web.RouteDef]:
        self.origins, self.delivering = [], []
        return [*super()._routes(), web.options("/hook", self._consent)]

    async def _consent(self, request: web.Request) -> web.Response:
        self.origins.append(request.headers.get(ORIGIN_HEADER))
        return web.Response(headers={"WebHook-Allowed-Origin": ORIGIN, "WebHook-Allowed-Rate": "*"})

    async def _take(self, request: web.Request) -> web.Response:
        self.delivering.append(request.headers.get(ORIGIN_HEADER))
        return await super()._take(request)


@asynccontextmanager
async def calling(*workers: RunningWorker) -> AsyncIterator[list[Caller]]:
    """A client for each worker."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_DEADLINE_S)) as session:
        yield [Caller(worker.url, session) for worker in workers]


def signing_key() -> str:
    key = Ed25519PrivateKey.generate()
    seed = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return f"2026:whsk_{base64.b64encode(seed + public).decode()}"


async def both_show(callers: list[Caller], path: str, document: dict[str, Any]) -> None:
    """The worker that was asked shows its change at once, the other one soon."""

    async def shown() -> bool:
        return all([(await caller.get(path)).document == document for caller in callers])

    await until(shown, f"both workers show {document}")


async def delivered(caller: Caller, delivery_id: str) -> dict[str, Any]:
    async def found() -> dict[str, Any] | None:
        answer = await caller.get(f"/v1/deliveries/{delivery_id}")
        return answer.document if answer.status == 200 and answer.document["status"] == "delivered" else None

    return await until(found, f"{delivery_id} is delivered") or {}


async def create_on_all(callers: list[Caller], receiver: TimedReceiver) -> str:
    """One webhook, made with one idempotency key on each worker at the same moment; its path."""
    body = {"url": receiver.hook_url, "events": ["dataset.*"], "handshake": True, "signatures": ["v1", "v1a"]}
    headers = {"Idempotency-Key": "k-1"}
    made = await asyncio.gather(*(caller.call("POST", "/v1/webhooks", body, headers=headers) for caller in callers))
    assert [answer.status for answer in made] == [201] * len(callers)
    assert all(answer.document == made[0].document for answer in made)
    receiver.trust(made[0].document["secret"])
    return f"/v1/webhooks/{made[0].document['id']}"


async def change_everything(one: Caller, other: Caller, path: str, receiver: TimedReceiver) -> Counter[str]:
    """Every change, made on one worker and seen on both; what is to be announced."""
    told: Counter[str] = Counter()
    for method, action, sent, wanted in CHANGES:
        answer = await one.call(method, path + action, sent)
        assert answer.status == 200, answer.text
        assert "hunter2" not in answer.text
        told[ANNOUNCED.get(action, "updated")] += 1
        if action == "/rotate-secret":
            receiver.trust(answer.document.pop("secret"))
        assert wanted.items() <= answer.document.items()
        assert (await one.get(path)).document == answer.document
        await both_show([one, other], path, answer.document)
    ping = await one.call("POST", f"{path}/ping")
    assert ping.status == 202
    assert (await delivered(other, ping.document["delivery_id"]))["attempts"] == 1
    return told


async def race(callers: list[Caller], path: str, *, if_match: bool) -> int:
    """The same webhook changed by all workers at the same moment, from the same version; how many changes were made."""
    version = (await callers[0].get(path)).document["version"]
    headers = {"If-Match": f'"{version}"'} if if_match else {}
    answers = await asyncio.gather(
        *(caller.call("PATCH", path, {"description": f"by {n}"}, headers=headers) for n, caller in enumerate(callers))
    )
    won = [answer.document for answer in answers if answer.status == 200]
    lost = [answer.status for answer in answers if answer.status != 200]
    # Without If-Match the second one may come late enough to build on the first.
    assert len(won) == 1 if if_match else won
    assert set(lost) <= {412 if if_match else 409}
    last = max(won, key=lambda one: one["version"])
    assert last["version"] == version + len(won)
    await both_show(callers, path, last)
    return len(won)


async def test_every_change_is_made_on_any_of_two_workers_and_a_race_has_one_winner(deployment: Deployment) -> None:
    deployment.settings["WEBHOOKS__SIGNING_KEYS"] = json.dumps([signing_key()])
    deployment.settings["WEBHOOKS__ORIGIN"] = ORIGIN
    workers = await deployment.start("w1", "w2")
    receiver = ConsentingReceiver("honest", deployment.observations)
    async with listening(receiver), calling(*workers) as callers:
        path = await create_on_all(callers, receiver)
        assert receiver.origins == [ORIGIN] * len(workers)
        told = Counter(created=1, deleted=1)
        for one, other in (callers, callers[::-1]):
            told += await change_everything(one, other, path, receiver)
        for if_match in (True, False) * RACES:
            told["updated"] += await race(callers, path, if_match=if_match)
        for caller in callers:
            items = (await caller.call("POST", "/v1/match", EVENT)).document["items"]
            assert items == [{"webhook_id": path.rpartition("/")[2], "matched": True, "pattern": "dataset.*"}]
            keys = (await caller.get("/.well-known/webhook-keys.json")).document["keys"]
            assert [key["kid"] for key in keys] == ["2026"]
        assert (await callers[1].call("DELETE", path)).status == 204
        await both_show(callers, path, (await callers[1].get(path)).document)
        assert (await callers[0].get(path)).status == 404

    await deployment.idle()
    assert receiver.signatures_bad == 0
    assert set(receiver.delivering) == {ORIGIN}
    announced = [json.loads(message.value()) for message in await deployment.read(deployment.topics.events)]
    assert Counter(one["type"].removeprefix("llm.data-vault.webhook.") for one in announced) == told
    assert await deployment.read(deployment.topics.quarantine) == []


async def test_an_encryption_key_is_retired_and_requests_are_signed_as_before(deployment: Deployment) -> None:
    deployment.settings["PARTITIONS"] = "1"
    old, new = deployment._key, encryption_key().replace("dev:", "new:")
    (worker,) = await deployment.start("w1")
    hook = await deployment.hook("*")
    assert await worker.stop() == 0

    worker = await restart(deployment, [new, old])
    for _ in range(2):
        assert await rekey(worker) == {"rekeyed": [hook.id], "failed": {}}
    assert await worker.stop() == 0

    worker = await restart(deployment, [new])
    async with calling(worker) as (caller,):
        ping = await caller.call("POST", f"/v1/webhooks/{hook.id}/ping")
        assert ping.status == 202
        await delivered(caller, ping.document["delivery_id"])
    assert hook.receiver.signatures_bad == 0
    assert await worker.metric("vault_stream_encryption_key_missing") == 0


async def restart(deployment: Deployment, keys: list[str]) -> RunningWorker:
    worker = deployment.worker("w1", WEBHOOKS__ENCRYPTION_KEYS=json.dumps(keys))
    await worker.start()
    await deployment.ready(worker)
    return worker


async def rekey(worker: RunningWorker) -> Any:
    """What the command says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "webhooks", "rekey", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=worker.data_dir.parent,
        env=module_environment({"API__URL": worker.url}),
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err
    return json.loads(out)
