"""`python -m app.devstack.neighbours`: what stands around the workers of docker-compose.yml.

Stand-ins for dashboard, policy engine and registry, two webhook receivers, and a vault that publishes some events a
second. The receivers' webhooks are made through the API of a worker, once. Stand-ins listen on loopback, so each has a
`Relay` in front that takes connections from other containers.
"""

import argparse
import asyncio
import os
import secrets
import signal
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final, Self

import aiohttp

from app.devstack.receivers import Receiver
from app.devstack.stack import ApiRefusedError, Upstreams, WorkerApi, listening
from app.devstack.standins import Observations, Standin
from app.devstack.workload import MIN_EVENTS, make_workload
from app.events import format_time
from app.publishing import EventPublisher, KafkaConfig, KafkaEventPublisher, PublishFailed

__all__ = ["Neighbours", "Relay", "main"]

READY_TIMEOUT_S: Final = 300.0
PORTS: Final = {"dashboard": 9101, "policy": 9102, "registry": 9103, "honest": 9111, "flaky": 9112}


class Relay:
    """Takes connections at an address and hands them to a port on loopback, bytes unchanged."""

    def __init__(self, host: str, port: int, to_port: int) -> None:
        self._host, self._port, self._to_port = host, port, to_port
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._server is not None:
            self._server.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass  # either end is gone, and closing tells the other one
    finally:
        writer.close()


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The stand-ins of one run, on a host.

    Attributes:
        host: Where the relays listen.
        name: The host name under which workers find them.
        secret: Of both receivers; it outlives a restart, as the webhooks do.
        ports: Of the relays; 0 for a free one.
    """

    host: str
    name: str
    secret: str
    ports: dict[str, int]
    upstreams: Upstreams
    receivers: tuple[Receiver, ...]

    @classmethod
    def new(cls, host: str, name: str, secret: str, ports: dict[str, int]) -> Self:
        """Nothing of it is started yet."""
        seen = Observations()
        receivers = (Receiver("honest", seen), Receiver("flaky", seen))
        for receiver in receivers:
            receiver.trust(secret)
        return cls(host, name, secret, ports, Upstreams.new(seen), receivers)

    @property
    def _standins(self) -> dict[str, Standin]:
        named: dict[str, Standin] = dict(zip(("dashboard", "policy", "registry"), self.upstreams.all, strict=True))
        return named | {receiver.kind: receiver for receiver in self.receivers}

    async def start(self, stack: AsyncExitStack) -> dict[str, str]:
        """Start all of them; the URL of each, by its name."""
        await stack.enter_async_context(listening(*self._standins.values()))
        urls = {}
        for name, standin in self._standins.items():
            relay = await stack.enter_async_context(Relay(self.host, self.ports[name], standin.port))
            urls[name] = f"http://{self.name}:{relay.port}"
        return urls

    async def make_webhooks(self, worker: str, token: str | None, urls: dict[str, str]) -> int:
        """Make the webhooks that are not there yet; how many that were.

        Raises:
            ApiRefusedError: The worker does not become ready, or refuses.
        """
        made = 0
        async with WorkerApi(worker, token) as api:
            await api.ready(timeout_s=READY_TIMEOUT_S)
            known = {webhook["url"] for webhook in await api.webhooks()}
        for receiver in self.receivers:
            url = f"{urls[receiver.kind]}/hook"
            if url not in known:
                await self._make_webhook(worker, token, url)
                made += 1
        return made

    async def _make_webhook(self, worker: str, token: str | None, url: str) -> None:
        headers = {"Idempotency-Key": secrets.token_hex(16)} | ({"Authorization": f"Bearer {token}"} if token else {})
        body = {"url": url, "events": ["*"], "secret": self.secret, "description": "a stand-in of the compose file"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"{worker}/v1/webhooks", json=body) as response,
        ):
            if response.status != HTTPStatus.CREATED:
                raise ApiRefusedError(f"POST /v1/webhooks for {url}: {response.status} {await response.text()}")


async def publish_for_ever(publisher: EventPublisher, rate_per_s: float) -> None:
    """Events of all types, at an even pace, each with the time at which it is sent; goes on when the broker is back."""
    while True:
        now_ms = time.time_ns() // 1_000_000
        for event in make_workload(10 * MIN_EVENTS, seed=now_ms, start_ms=now_ms).events:
            try:
                await publisher.publish(replace(event, time=format_time(time.time_ns() // 1_000_000)))
            except PublishFailed as error:
                _say(f"not published: {error}")
            await asyncio.sleep(1 / rate_per_s)


async def run(options: argparse.Namespace) -> None:
    """Run until cancelled."""
    neighbours = Neighbours.new(options.host, options.name, options.secret, PORTS)
    token = os.environ.get("VAULT_STREAM_API__ADMIN_TOKEN")
    async with AsyncExitStack() as stack:
        urls = await neighbours.start(stack)
        for name, url in urls.items():
            _say(f"{name} {url}/observed")
        _say(f"made {await neighbours.make_webhooks(options.worker, token, urls)} webhooks")
        publisher = KafkaEventPublisher(KafkaConfig(brokers=options.brokers.split(",")))
        await stack.enter_async_context(publisher)
        await publish_for_ever(publisher, options.rate)


def main() -> None:
    """Parse the options and run until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m app.devstack.neighbours", description=__doc__)
    parser.add_argument("--brokers", default="kafka:9092")
    parser.add_argument("--worker", default="http://worker-1:8088", help="base URL of a worker's API")
    parser.add_argument("--host", default="0.0.0.0", help="where to listen")
    parser.add_argument("--name", default="neighbours", help="the host name under which workers find this one")
    parser.add_argument("--secret", required=True, help="whsec_... of the receivers")
    parser.add_argument("--rate", type=float, default=5.0, help="events a second")
    options = parser.parse_args()

    async def until_told() -> None:
        running = asyncio.create_task(run(options))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
        await running

    try:
        asyncio.run(until_told())
    except (KeyboardInterrupt, asyncio.CancelledError):
        return
    except ApiRefusedError as error:
        sys.exit(str(error))


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  # its only output


if __name__ == "__main__":
    main()
