"""No secret leaves the worker: everything that a worker at debug level wrote is searched for each of them."""

from __future__ import annotations

import base64
import json
import os
import secrets as random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from app.devstack.kafka import free_port
from app.devstack.standins import Observations, Standin
from app.events import VaultEventType, encode_structured
from app.publishing import VaultEvent, checked
from tests.support.canaries import credential, encryption_key_entry, signing_key_entry, webhook_secret
from tests.support.egress import PASSWORD, EgressProxy, egress_proxy
from tests.support.leaks import everything_below, everything_on_the_broker, forms_of, found
from tests.support.workers import Deployment, RunningWorker, TimedReceiver, until

pytestmark = pytest.mark.kafka

EVENTS = 12
CANARY = "canary-that-is-no-secret"
"""In a header that nobody takes for a credential: what the search must find, or it looks in the wrong places."""


class Echo(Standin):
    """A receiver that fails, and says in its answer all that it was sent."""

    def observed(self) -> dict[str, Any]:
        return {"requests": self.requests}

    def _routes(self) -> list[web.RouteDef]:
        return [web.post("/hook", self._take)]

    async def _take(self, request: web.Request) -> web.Response:
        self._observations.notify()
        return web.json_response({"you_sent": dict(request.headers)}, status=500)


class Scene:
    """A worker with a secret in every setting and webhook that can have one.

    Attributes:
        secrets: All of them, by name.
        answers: What the API said, but for the answers that show a secret on purpose.
    """

    def __init__(self, deployment: Deployment, proxy: EgressProxy) -> None:
        self.deployment = deployment
        named = ("admin", "viewer", "governance", "policy", "registry")
        self.secrets = {f"{name} token": credential(f"{name} token") for name in named} | {
            "egress password": PASSWORD,
            "encryption key": deployment._key,
            "signing key": signing_key_entry(),
        }
        self.answers: list[tuple[str, bytes]] = []
        self.log = deployment._folder / "worker-file.log"
        deployment.settings |= {
            "LOG__LEVEL": "debug,aiokafka=debug,faust=debug,mode=debug,aiohttp=debug",
            "LOG__OUTPUT": f"both:{self.log}",
            "PARTITIONS": "1",
            "API__ADMIN_TOKEN": self.secrets["admin token"],
            "API__VIEWER_TOKEN": self.secrets["viewer token"],
            "GOVERNANCE__TOKEN": self.secrets["governance token"],
            "POLICY__TOKEN": self.secrets["policy token"],
            "REGISTRY__TOKEN": self.secrets["registry token"],
            "WEBHOOKS__EGRESS_PROXY": proxy.url,
            "WEBHOOKS__SIGNING_KEYS": json.dumps([self.secrets["signing key"]]),
            "WEBHOOKS__RETRY_SCHEDULE_S": "[0,0.2,0.2,0.2]",
        }

    @property
    def worker(self) -> RunningWorker:
        return self.deployment.workers["w1"]

    def secret(self, name: str, value: str) -> str:
        """A value that must not be found."""
        self.secrets[name] = value
        return value

    def planted(self, name: str) -> str:
        """A new one, which must not be found."""
        return self.secret(name, credential(name))

    async def call(self, method: str, path: str, body: Any = None, *, token: str = "admin", **more: Any) -> Any:
        """An answer of the API, kept for the search; decoded if it is JSON."""
        headers = {"Authorization": f"Bearer {self.secrets[f'{token} token']}"} | more.pop("headers", {})
        if body is not None:
            more["json"] = body
        timeout = aiohttp.ClientTimeout(total=30)
        async with (
            aiohttp.ClientSession(timeout=timeout) as client,
            client.request(method, self.worker.url + path, headers=headers, **more) as answer,
        ):
            text = await answer.text()
        shows = answer.status in {200, 201} and (path == "/v1/webhooks" or path.endswith("/rotate-secret"))
        if method != "POST" or not shows:
            told = f"{dict(answer.headers.items())}{text}"
            self.answers.append((f"the answer to {method} {path}", told.encode()))
        try:
            return json.loads(text)
        except ValueError:
            return text

    async def create(self, name: str, url: str, **more: Any) -> dict[str, Any]:
        """A webhook with a credential in its headers; its secret is shown, and remembered."""
        secret = self.planted(f"credential of {name}")
        body = {
            "url": url,
            "events": ["*"],
            "headers": {"Authorization": f"Bearer {secret}", "X-Team": CANARY},
            "signatures": ["v1", "v1a"],
            "secret": webhook_secret(),
            **more,
        }
        key = {"Idempotency-Key": random.token_hex(8)}

        async def made() -> Any:
            answer = await self.call("POST", "/v1/webhooks", body, headers=key)
            return answer if "id" in answer and "secret" in answer else None

        webhook: dict[str, Any] = await until(made, f"webhook {name}")
        self.secret(f"secret of {name}", webhook["secret"])
        return webhook


@pytest.fixture
async def scene(deployment: Deployment) -> AsyncIterator[Scene]:
    async with egress_proxy() as proxy:
        yield Scene(deployment, proxy)


def events(count: int) -> list[VaultEvent]:
    type_ = VaultEventType.DATASET_CREATED
    return [VaultEvent.new(type_, "/vault", {"dataset_id": f"ds-{n}", "name": "n"}) for n in range(count)]


async def test_no_secret_is_in_anything_that_the_worker_wrote(scene: Scene, tmp_path: Path) -> None:
    deployment = scene.deployment
    (worker,) = await deployment.start("w1")
    honest, echo = TimedReceiver("honest", deployment.observations), Echo(Observations())
    for receiver in (honest, echo):
        await deployment._listen(receiver)
    given = webhook_secret()
    first = await scene.create("the honest one", honest.hook_url, secret=given)
    honest.trust(given)
    failing = await scene.create("the echo", f"{echo.url}/hook")
    dead = await scene.create("the dead one", f"http://127.0.0.1:{free_port()}/hook")
    deleted = await scene.create("the deleted one", honest.hook_url, events=["dataset.deleted"])
    await scene.call("DELETE", f"/v1/webhooks/{deleted['id']}")
    await what_is_refused(scene)

    published = events(EVENTS)
    await deployment.publish(published)
    wanted = {(event.source, event.id) for event in published}
    await deployment.observed(lambda: wanted <= honest.accepted, "the honest receiver has all")
    await until(lambda: given_up(scene, failing["id"]), "the echo's deliveries are given up")
    await changed_in_every_way(scene, first["id"], honest)
    await everything_that_may_be_read(scene, [first["id"], failing["id"], dead["id"]])
    await until(lambda: idle(scene), "no lag anywhere")
    assert await worker.stop() == 0

    await without_its_key_with_it_and_with_another_one(scene, [first["id"], failing["id"], dead["id"]], honest)
    topics = await everything_on_the_broker(deployment.brokers, deployment.app_id, deployment.read_raw)
    assert any(place.startswith(deployment.topics.commands) for place, _ in topics)
    files = everything_below(tmp_path)

    assert found(scene.secrets, [*scene.answers, *topics, *files]) == []
    looked_into = {
        "files": files,
        "webhooks changelog": [place for place in topics if "webhooks-changelog" in place[0]],
        "commands": [place for place in topics if place[0].startswith(deployment.topics.commands)],
        "answers": scene.answers,
    }
    assert [name for name, places in looked_into.items() if not found({"": CANARY}, places)] == []
    assert b'"level":"DEBUG"' in scene.log.read_bytes()
    assert worker.log.stat().st_size > 0


async def given_up(scene: Scene, webhook_id: str) -> bool:
    """Whether all deliveries of a webhook have failed."""
    page = await scene.call("GET", f"/v1/deliveries?webhook_id={webhook_id}&limit=200", token="viewer")
    statuses = [item["status"] for item in page["items"]]
    return len(statuses) == EVENTS and set(statuses) == {"failed"}


async def idle(scene: Scene) -> bool:
    """Whether every record of every topic is done."""
    stats = await scene.call("GET", "/v1/stats", token="viewer")
    return not stats["lag"] and not stats["not_ready"]


async def what_is_refused(scene: Scene) -> None:
    """Requests with a secret in each place, none of which may come back or be logged."""
    wrong = scene.planted("wrong token")
    bad = [
        {"secret": scene.secret("short secret", "whsec_" + base64.b64encode(os.urandom(12)).decode())},
        {"secret": scene.secret("secret without prefix", base64.b64encode(os.urandom(32)).decode())},
        {"url": f"https://user:{scene.planted('password in a URL')}@example.com/"},
        {"headers": {"X-Token": scene.planted("credential with a break") + "\r\nX: y"}},
        {"headers": {"Cookie": scene.planted("reserved header")}},
        {"headers": {"X-Token": [scene.planted("credential of a wrong type")]}},
        {"filter": {"tenant_id": {"x": scene.planted("secret in a filter")}}},
    ]
    for change in bad:
        await scene.call("POST", "/v1/webhooks", {"url": "https://example.com/", "events": ["*"], **change})
    cut = '{"secret": "' + scene.secret("secret in broken JSON", webhook_secret())
    await scene.call("POST", "/v1/webhooks", data=cut, headers={"Content-Type": "application/json"})
    await scene.call("GET", "/v1/webhooks", headers={"Authorization": f"Bearer {wrong}"})
    await scene.call("GET", "/v1/webhooks", headers={"Authorization": f"Basic {wrong}"})
    await scene.call("POST", "/v1/webhooks", {}, token="viewer")


async def changed_in_every_way(scene: Scene, webhook_id: str, receiver: TimedReceiver) -> None:
    """Another credential, another secret with the old one still valid, a ping; and deliveries after that."""
    path = f"/v1/webhooks/{webhook_id}"
    credential = scene.planted("changed credential")
    edited = await scene.call("PATCH", path, {"headers": {"X-Api-Key": credential, "X-Team": CANARY}})
    assert edited["headers"] == {"X-Api-Key": "***", "X-Team": CANARY}
    receiver.trust(scene.secret("rotated secret", (await scene.call("POST", f"{path}/rotate-secret", {}))["secret"]))
    for action in ("disable", "enable", "ping"):
        await scene.call("POST", f"{path}/{action}")
    more = events(3)
    await scene.call("POST", "/v1/match", json.loads(encode_structured(checked(more[0]))))
    await arrives(scene, more, receiver)


async def arrives(scene: Scene, published: list[VaultEvent], receiver: TimedReceiver) -> None:
    """These events are published and accepted."""
    await scene.deployment.publish(published)
    wanted = {(event.source, event.id) for event in published}
    await scene.deployment.observed(lambda: wanted <= receiver.accepted, "the events arrive")
    assert receiver.signatures_bad == 0


async def everything_that_may_be_read(scene: Scene, webhook_ids: list[str]) -> None:
    """Each route that answers a viewer."""
    plain = ["/metrics", "/health", "/health/live", "/health/ready", "/openapi.json", "/.well-known/webhook-keys.json"]
    lists = ["/v1/stats", "/v1/webhooks", "/v1/deliveries", "/v1/dead-letters", "/v1/quarantine", "/v1/replays", "/"]
    for path in [*plain, *lists, *(f"/v1/webhooks/{id_}" for id_ in webhook_ids)]:
        await scene.call("GET", path, token="viewer")
    for webhook_id in webhook_ids:
        page = await scene.call("GET", f"/v1/deliveries?webhook_id={webhook_id}", token="viewer")
        for item in page["items"][:3]:
            await scene.call("GET", f"/v1/deliveries/{item['id']}", token="viewer")


async def without_its_key_with_it_and_with_another_one(
    scene: Scene, webhook_ids: list[str], receiver: TimedReceiver
) -> None:
    """Without the key events wait; with it they go out; and once all is encrypted with another one, it may go."""
    old, new = scene.secrets["encryption key"], scene.secret("other encryption key", encryption_key_entry("other"))
    await restart(scene, new)
    waiting = events(2)
    await scene.deployment.publish(waiting)

    async def waits() -> bool:
        page = await scene.call("GET", f"/v1/deliveries?webhook_id={webhook_ids[0]}&status=pending", token="viewer")
        return [(item["reason"], item["attempts"]) for item in page["items"]] == [("no_key", 0)] * 2

    await until(waits, "the events wait for the key")
    await everything_that_may_be_read(scene, webhook_ids)
    for webhook_id in webhook_ids:
        await scene.call("POST", f"/v1/webhooks/{webhook_id}/rekey")
    assert await scene.worker.stop() == 0

    await restart(scene, new, old)
    wanted = {(event.source, event.id) for event in waiting}
    await scene.deployment.observed(lambda: wanted <= receiver.accepted, "the events that waited")
    for webhook_id in webhook_ids:
        await scene.call("POST", f"/v1/webhooks/{webhook_id}/rekey")
    await until(lambda: idle(scene), "no lag anywhere")
    assert await scene.worker.stop() == 0

    await restart(scene, new)
    await arrives(scene, events(2), receiver)
    assert await scene.worker.stop() == 0


async def restart(scene: Scene, *keys: str) -> None:
    """The worker again, with other encryption keys."""
    deployment = scene.deployment
    deployment.settings |= {"WEBHOOKS__ENCRYPTION_KEYS": json.dumps(keys), "WEB_PORT": str(free_port())}
    worker = deployment.worker("w1")
    await worker.start()
    await deployment.ready(worker)


@pytest.mark.parametrize("written", sorted(forms_of("whsec_" + base64.b64encode(bytes(range(32))).decode())))
def test_the_search_finds_each_form(written: bytes) -> None:
    secrets = {"a secret": "whsec_" + base64.b64encode(bytes(range(32))).decode()}

    assert found(secrets, [("a place", b"before" + written + b"behind")]) == ["a secret in a place"]


@pytest.mark.parametrize("before", ["", "u", "us", "use", "user:"])
def test_the_search_finds_a_password_in_basic_credentials(before: str) -> None:
    header = base64.b64encode(f"{before}{PASSWORD}".encode())

    assert found({"password": PASSWORD}, [("a header", b"Basic " + header)]) == ["password in a header"]
