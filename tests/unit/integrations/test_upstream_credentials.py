"""Credentials: who is trusted, who is shown what, and that a change needs no restart."""

from __future__ import annotations

import dataclasses
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives import serialization

from app.integrations.upstream import HttpUpstream, Unavailable, UpstreamConfig
from tests.support.bytewise import bytewise, saying
from tests.support.certificates import Authority

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Scene:
    """A server with a certificate of `ours`, which asks for one of `theirs`.

    Attributes:
        tls: What it wants.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ours, self.theirs, self.strangers = (Authority(folder, name) for name in ("ours", "theirs", "strangers"))
        self.clock = Clock()

    def tls(self, address: str = "127.0.0.1") -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.theirs.file))
        context.load_cert_chain(*self.ours.issue("server", address=address))
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def config(self, url: str, ca: Authority | None = None, client: Authority | None = None) -> UpstreamConfig:
        files = (client or self.theirs).issue("client")
        cert, key = (str(file) for file in files)
        ca_file = str((ca or self.ours).file)
        return UpstreamConfig(url, 20.0, 20.0, ssl_ca=ca_file, ssl_cert=cert, ssl_key=key)

    @asynccontextmanager
    async def client(self, config: UpstreamConfig) -> AsyncIterator[HttpUpstream]:
        client = HttpUpstream(config, monotonic_s=self.clock)
        try:
            yield client
        finally:
            await client.close()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def outcome(client: HttpUpstream) -> str:
    try:
        return str((await client.send("GET", "/")).status)
    except Unavailable as error:
        return str(error)


async def test_both_sides_trust_each_other(scene: Scene) -> None:
    async with bytewise(saying(OK), scene.tls()) as url, scene.client(scene.config(url)) as client:
        assert await outcome(client) == "200"


async def test_a_server_of_an_unknown_authority_is_unavailable(scene: Scene) -> None:
    async with bytewise(saying(OK), scene.tls()) as url:
        async with scene.client(scene.config(url, ca=scene.strangers)) as client:
            assert await outcome(client) == "no answer: tls"
        without_ca = dataclasses.replace(scene.config(url), ssl_ca=None)
        async with scene.client(without_ca) as client:
            assert await outcome(client) == "no answer: tls"


async def test_a_server_with_the_certificate_of_another_address_is_unavailable(scene: Scene) -> None:
    async with bytewise(saying(OK), scene.tls("127.0.0.9")) as url, scene.client(scene.config(url)) as client:
        assert await outcome(client) == "no answer: tls"


async def test_a_client_certificate_that_the_server_does_not_take_is_unavailable(scene: Scene) -> None:
    async with bytewise(saying(OK), scene.tls()) as url:
        async with scene.client(scene.config(url, client=scene.strangers)) as client:
            assert await outcome(client) in {"no answer: tls", "no answer: reset"}
        without = dataclasses.replace(scene.config(url), ssl_cert=None, ssl_key=None)
        async with scene.client(without) as client:
            assert await outcome(client) in {"no answer: tls", "no answer: reset"}


async def test_a_renewed_client_certificate_is_used_without_a_restart(scene: Scene) -> None:
    async with (
        bytewise(saying(OK), scene.tls()) as url,
        scene.client(scene.config(url, client=scene.strangers)) as client,
    ):
        assert await outcome(client) != "200"
        scene.theirs.issue("client")
        scene.clock.now_s += 1.0
        assert await outcome(client) == "200"


async def test_a_renewed_authority_is_trusted_without_a_restart(scene: Scene) -> None:
    async with bytewise(saying(OK), scene.tls()) as url:
        config = scene.config(url, ca=scene.strangers)
        async with scene.client(config) as client:
            assert await outcome(client) == "no answer: tls"
            scene.strangers.file.write_bytes(scene.ours.file.read_bytes())
            scene.clock.now_s += 1.0
            assert await outcome(client) == "200"


async def test_a_certificate_without_its_key_is_not_used_until_the_key_follows(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with bytewise(saying(OK), scene.tls()) as url, scene.client(scene.config(url)) as client:
        key = scene.folder / "client.key"
        old = key.read_bytes()
        _, new_key = scene.theirs.issue("client")
        new = new_key.read_bytes()
        key.write_bytes(old)
        for _ in range(3):
            scene.clock.now_s += 1.0
            assert await outcome(client) == "200"
        assert len(caplog.records) == 1
        assert "PRIVATE" not in caplog.text
        key.unlink()
        scene.clock.now_s += 1.0
        assert await outcome(client) == "200"
        key.write_bytes(new)
        scene.clock.now_s += 1.0
        assert await outcome(client) == "200"
    assert len(caplog.records) == 2


def test_a_key_with_a_password_is_an_error_and_no_question_at_the_terminal(scene: Scene) -> None:
    config = scene.config("https://127.0.0.1:1")
    key = scene.folder / "client.key"
    read = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        read.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"a password"),
        )
    )
    with pytest.raises(ssl.SSLError):
        HttpUpstream(config)


@asynccontextmanager
async def guarded(tokens: list[str]) -> AsyncIterator[str]:
    """A server that keeps the tokens it is shown, and takes `new` only."""

    async def handler(request: web.Request) -> web.Response:
        tokens.append(request.headers.get("Authorization", request.headers.get("X-Api-Key", "")))
        return web.Response(status=200 if tokens[-1] == "Bearer new" else 401)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    server = TestServer(app)
    await server.start_server()
    try:
        yield str(server.make_url(""))
    finally:
        await server.close()


async def test_a_new_token_is_used_from_the_next_request_on() -> None:
    shown: list[str] = []
    async with guarded(shown) as url:
        client = HttpUpstream(UpstreamConfig(url, 20.0, token="old"))
        assert await outcome(client) == "answered 401"
        client.renew(UpstreamConfig("http://elsewhere", 1.0, token="new"))
        assert await outcome(client) == "200"
        client.renew(UpstreamConfig("http://elsewhere", 1.0, token="key", auth_header="X-Api-Key"))
        assert await outcome(client) == "answered 401"
        await client.close()
    assert shown == ["Bearer old", "Bearer new", "key"]


async def test_no_caller_replaces_the_credential() -> None:
    shown: list[str] = []
    async with guarded(shown) as url:
        client = HttpUpstream(UpstreamConfig(url, 20.0, token="new"))
        await client.send("GET", "/", headers={"authorization": "Bearer other"})
        await client.close()
    assert shown == ["Bearer new"]


async def test_new_files_that_are_no_certificates_leave_the_old_credentials(scene: Scene) -> None:
    async with bytewise(saying(OK), scene.tls()) as url:
        config = scene.config(url)
        async with scene.client(config) as client:
            with pytest.raises(ssl.SSLError):
                client.renew(dataclasses.replace(config, ssl_cert=str(Path(__file__))))
            assert await outcome(client) == "200"
