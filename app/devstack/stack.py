"""What `demo` and `dev` have in common: the upstreams around a worker, its settings, and a client of its API."""

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from app.devstack.embedded import EMBEDDED_PARTITIONS
from app.devstack.standins import Dashboard, Observations, PolicyEngine, Registry, Standin

__all__ = ["ApiRefusedError", "Upstreams", "WorkerApi", "encryption_key", "listening", "worker_settings"]

READY_TIMEOUT_S: Final = 60.0
RETRY_GAP_S: Final = 0.1
"""Between two questions to a worker that is not ready: it has no way to call us."""
PAGE: Final = 200


class ApiRefusedError(Exception):
    """The worker's API did not do what it was asked to; the message has its answer."""


@dataclass(frozen=True, slots=True)
class Upstreams:
    """The three systems that the worker reports to."""

    dashboard: Dashboard
    policy: PolicyEngine
    registry: Registry

    @classmethod
    def new(cls, observations: Observations) -> Self:
        """Three stand-ins that are not started yet."""
        return cls(Dashboard(observations), PolicyEngine(observations), Registry(observations))

    @property
    def all(self) -> tuple[Standin, ...]:
        """Each of them."""
        return (self.dashboard, self.policy, self.registry)


@asynccontextmanager
async def listening(*standins: Standin, ports: Mapping[Standin, int] | None = None) -> AsyncIterator[None]:
    """Starts stand-ins and stops them in the end.

    Args:
        standins: Which.
        ports: Where, for those that must keep an address; the others take a free port.
    """
    started: list[Standin] = []
    try:
        for standin in standins:
            await standin.start((ports or {}).get(standin, 0))
            started.append(standin)
        yield
    finally:
        for standin in started:
            await standin.stop()


def encryption_key() -> str:
    """A new key for `WEBHOOKS__ENCRYPTION_KEYS`: `kid:base64 of 32 bytes`."""
    return "dev:" + base64.b64encode(secrets.token_bytes(32)).decode()


def worker_settings(
    *, brokers: str, app_id: str, data_dir: Path, web_port: int, encryption_key: str, upstreams: Upstreams
) -> dict[str, str]:
    """The settings of a worker on this machine (contracts 8.2), without their prefix.

    Plain http and loopback are allowed as targets, and there is no token: the API answers on loopback only.
    """
    return {
        "BROKERS": brokers,
        "APP_ID": app_id,
        "PARTITIONS": str(EMBEDDED_PARTITIONS),
        "REPLICATION": "1",
        "DATA_DIR": str(data_dir),
        "WEB_PORT": str(web_port),
        "STATS_PORT": "0",
        "SESSION_TIMEOUT_S": "6",
        "WEBHOOKS__ALLOW_HTTP": "true",
        "WEBHOOKS__ALLOW_TARGETS": json.dumps(["127.0.0.0/8"]),
        "WEBHOOKS__ENCRYPTION_KEYS": json.dumps([encryption_key]),
        "GOVERNANCE__ENDPOINT": upstreams.dashboard.url,
        "GOVERNANCE__FLUSH_INTERVAL_S": "1",
        "POLICY__ENDPOINT": upstreams.policy.url,
        "REGISTRY__ENDPOINT": upstreams.registry.url,
    }


class WorkerApi:
    """A client of one worker's API; use it as an async context manager.

    Args:
        url: The worker's base URL.
        token: Of an admin; None where the API needs none.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(self.url, timeout=aiohttp.ClientTimeout(total=20), headers=self._headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def ready(self, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Returns once the worker is ready.

        Raises:
            ApiRefusedError: It is not after `timeout_s`; the message has its last answer.
        """
        last = "no answer"
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        status, body = await self._call("GET", "/health/ready")
                    except aiohttp.ClientError as error:
                        last = type(error).__name__
                    else:
                        if status == HTTPStatus.OK:
                            return
                        last = f"{status} {body}"
                    await asyncio.sleep(RETRY_GAP_S)
        except TimeoutError:
            raise ApiRefusedError(f"the worker is not ready after {timeout_s:.0f} s: {last}") from None

    async def create_webhook(
        self, url: str, events: list[str], *, description: str | None = None, timeout_s: float = READY_TIMEOUT_S
    ) -> dict[str, Any]:
        """Creates a webhook and returns it, with its secret; asks again while nobody owns its number.

        Raises:
            ApiRefusedError: The API refused, or could not for `timeout_s`.
        """
        body = {"url": url, "events": events, **({"description": description} if description else {})}
        key = secrets.token_hex(16)
        status, answer = 0, None
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    status, answer = await self._call(
                        "POST", "/v1/webhooks", json=body, headers={"Idempotency-Key": key}
                    )
                    if status != HTTPStatus.SERVICE_UNAVAILABLE:
                        break
                    await asyncio.sleep(RETRY_GAP_S)
        except TimeoutError:
            raise ApiRefusedError(f"no webhook for {events} within {timeout_s:.0f} s: {status} {answer}") from None
        if status != HTTPStatus.CREATED or not isinstance(answer, dict):
            raise ApiRefusedError(f"POST /v1/webhooks for {events}: {status} {answer}")
        return answer

    async def change_webhook(self, webhook_id: str, patch: Mapping[str, Any]) -> None:
        """Changes a webhook.

        Raises:
            ApiRefusedError: The API refused.
        """
        status, answer = await self._call("PATCH", f"/v1/webhooks/{webhook_id}", json=dict(patch))
        if status != HTTPStatus.OK:
            raise ApiRefusedError(f"PATCH /v1/webhooks/{webhook_id}: {status} {answer}")

    async def webhooks(self) -> list[dict[str, Any]]:
        """All webhooks."""
        return [webhook async for webhook in self._pages("/v1/webhooks", {})]

    async def deliveries(self, webhook_id: str) -> list[dict[str, Any]]:
        """All deliveries of a webhook that are remembered.

        Raises:
            ApiRefusedError: The API refused.
        """
        return [delivery async for delivery in self._pages("/v1/deliveries", {"webhook_id": webhook_id})]

    async def _pages(self, path: str, query: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            page = {} if cursor is None else {"cursor": cursor}
            status, answer = await self._call("GET", path, params={**query, "limit": str(PAGE), **page})
            if status != HTTPStatus.OK or not isinstance(answer, dict):
                raise ApiRefusedError(f"GET {path}: {status} {answer}")
            for item in answer["items"]:
                yield item
            cursor = answer["next_cursor"]
            if cursor is None:
                return

    async def _call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        if self._session is None:
            raise RuntimeError("use WorkerApi as an async context manager")
        async with self._session.request(method, path, **options) as response:
            text = await response.text()
            try:
                return response.status, json.loads(text)
            except ValueError:
                return response.status, text
