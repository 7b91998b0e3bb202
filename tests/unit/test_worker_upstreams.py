"""A worker's upstreams take new credentials from the secrets folder while it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from app.integrations.upstream import HttpUpstream, Unavailable
from app.settings import Settings, load_settings
from app.worker_upstreams import Credentials, make_upstreams

DEADLINE_S = 30.0
TOKEN = "VAULT_STREAM_POLICY__TOKEN"


class Scene:
    """A policy engine that takes `new` only, and a worker's client of it with `old` in the folder."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.folder = folder
        self.endpoint = endpoint
        self.put("old")
        settings = self.load()
        self.upstreams = make_upstreams(settings)
        self.credentials = Credentials(settings, self.upstreams.items(), self.load)

    def load(self) -> Settings:
        environment = {"SECRETS_DIR": str(self.folder), "POLICY__ENDPOINT": self.endpoint}
        return load_settings(
            {f"VAULT_STREAM_{name}": value for name, value in environment.items()}, dotenv=self.folder / "none" / ".env"
        )

    def put(self, token: str) -> None:
        """As Kubernetes does: another file takes the name."""
        fresh = self.folder.parent / "fresh"
        fresh.write_text(token)
        fresh.replace(self.folder / "POLICY__TOKEN")

    @property
    def policy(self) -> HttpUpstream:
        policy = self.upstreams["policy"]
        assert policy is not None
        return policy

    async def status(self) -> int | None:
        try:
            return (await self.policy.send("GET", "/")).status
        except Unavailable as error:
            return error.status


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=200 if request.headers["Authorization"] == "Bearer new" else 401)

    app = web.Application()
    app.router.add_get("/", handler)
    server = TestServer(app)
    await server.start_server()
    folder = tmp_path / "secrets"
    folder.mkdir()
    scene = Scene(folder, str(server.make_url("")))
    scene.credentials.start()
    yield scene
    await scene.credentials.stop()
    await scene.policy.close()
    await server.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(0.01)


async def accepted(scene: Scene) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await scene.status() != 200:
            await asyncio.sleep(0.01)


def test_an_upstream_without_an_endpoint_is_off(tmp_path: Path) -> None:
    assert make_upstreams(load_settings({}, dotenv=tmp_path / ".env")) == dict.fromkeys(
        ("governance", "policy", "registry")
    )


async def test_an_upstream_gets_its_own_names_of_headers() -> None:
    seen: list[dict[str, str]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(dict(request.headers))
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/", handler)
    async with TestServer(app) as server:
        named = {
            "GOVERNANCE__ENDPOINT": str(server.make_url("")),
            "GOVERNANCE__IDEMPOTENCY_HEADER": "X-Request-Key",
            "GOVERNANCE__BATCH_FIRST_HEADER": "X-From",
            "GOVERNANCE__BATCH_LAST_HEADER": "X-To",
        }
        settings = load_settings(
            {f"VAULT_STREAM_{name}": value for name, value in named.items()}, dotenv=Path("/no.env")
        )
        client = make_upstreams(settings)["governance"]
        assert client is not None
        given = {
            "Idempotency-Key": "c-0-1-2",
            "X-Batch-First-Offset": "1",
            "X-Batch-Last-Offset": "2",
            "traceparent": "t",
        }
        await client.send("POST", "/", b"[]", headers=given)
        await client.close()
    assert {name: seen[0].get(name) for name in ("X-Request-Key", "X-From", "X-To", "traceparent")} == {
        "X-Request-Key": "c-0-1-2",
        "X-From": "1",
        "X-To": "2",
        "traceparent": "t",
    }
    assert given.keys() - {"traceparent"} & seen[0].keys() == set()


async def test_an_expired_token_is_replaced_without_a_restart(scene: Scene) -> None:
    assert await scene.status() == 401
    scene.put("new")
    await accepted(scene)


async def test_a_refused_change_is_said_once_without_the_secret_and_the_next_one_counts(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    scene.put("not a token")
    await until(lambda: bool(caplog.records))
    assert TOKEN in caplog.text
    assert "not a token" not in caplog.text
    assert await scene.status() == 401
    scene.put("new")
    await accepted(scene)
    assert len(caplog.records) == 1


async def test_a_folder_that_is_gone_for_a_while_costs_a_warning(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    scene.folder.rename(scene.folder.parent / "away")
    await until(lambda: "secrets folder" in caplog.text)
    (scene.folder.parent / "away").rename(scene.folder)
    scene.put("new")
    await accepted(scene)


async def test_credentials_without_a_folder_have_nothing_to_watch(tmp_path: Path) -> None:
    settings = load_settings({}, dotenv=tmp_path / ".env")
    credentials = Credentials(settings, make_upstreams(settings).items())
    credentials.start()
    await credentials.stop()


async def test_others_are_told_of_new_secrets_that_a_volume_of_kubernetes_swaps_in(tmp_path: Path) -> None:
    folder, told = tmp_path / "secrets", asyncio.Queue[Settings]()
    for version, password in (("..v1", "old"), ("..v2", "new")):
        (folder / version).mkdir(parents=True)
        (folder / version / "KAFKA__SASL_PASSWORD").write_text(password)
    (folder / "..data").symlink_to("..v1")
    (folder / "KAFKA__SASL_PASSWORD").symlink_to("..data/KAFKA__SASL_PASSWORD")
    environment = {
        "VAULT_STREAM_SECRETS_DIR": str(folder),
        "VAULT_STREAM_KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "VAULT_STREAM_KAFKA__SASL_MECHANISM": "SCRAM-SHA-512",
        "VAULT_STREAM_KAFKA__SASL_USERNAME": "app",
    }

    def load() -> Settings:
        return load_settings(environment, dotenv=tmp_path / ".env")

    credentials = Credentials(load(), [], load, also=told.put_nowait)
    credentials.start()
    (folder / "..next").symlink_to("..v2")
    (folder / "..next").replace(folder / "..data")
    async with asyncio.timeout(30):
        settings = await told.get()
    await credentials.stop()

    assert settings.kafka.sasl_password is not None
    assert settings.kafka.sasl_password.get_secret_value() == "new"
