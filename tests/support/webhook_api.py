"""The API of webhooks, listening, before the real replica; the topic of commands and the owner are played."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from app.engine import Replica
from app.settings import ApiSettings
from app.web.webhook_changes import webhook_change_routes
from app.web.webhooks import WebhooksApi, webhook_routes
from app.webhooks.commands import Command, apply_command, decode_command
from app.webhooks.guard import TargetGuard
from app.webhooks.handshake import PermissionAnswer
from app.webhooks.intents import Intent, decode_intent
from app.webhooks.model import WebhookRow
from app.webhooks.registration import Limits
from app.webhooks.secrets import KeyRing
from tables.webhooks import WEBHOOKS, webhook_key
from tests.support.listening import Answer, Caller, listening
from tests.support.memory_unit import START_MS, record
from tests.support.webhooks import KEYS

COMMANDS = "webhook.commands"
DELIVERIES = "webhook.deliveries"
DEADLINE_S = 5.0
BODY: dict[str, Any] = {"url": "https://example.com/hook", "events": ["dataset.*"]}
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
ADDRESSES = {"example.com": ["93.184.215.14"], "inside.example.com": ["93.184.215.14", "10.0.0.7"]}
SOON_S = 0.05


class Receiver:
    """A receiver that is asked for its permission.

    Attributes:
        answer: What it answers.
        asked: URL and headers of each question.
    """

    origin = "vault.example.com"

    def __init__(self, answer: PermissionAnswer | None = None) -> None:
        self.answer = answer or PermissionAnswer(200, {"WebHook-Allowed-Origin": "*"})
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def options(self, url: str, headers: Mapping[str, str], custom: Mapping[str, str]) -> PermissionAnswer:
        self.asked.append((url, {**custom, **headers}))
        return self.answer


class Owner:
    """The topic and the owner, up to the changelog that the replica reads.

    Attributes:
        commands: What was sent, and `values`: as it was sent.
        intents: What was sent to be delivered.
        deaf: It does not apply them until it is told to.
        late_ms: By how much the broker stamps commands later than they were sent.
        failure: What a send raises.
        hangs: A send is never acknowledged.
    """

    def __init__(self) -> None:
        self.replica: Replica[WebhookRow] = Replica(WEBHOOKS, "changelog", 1)
        self.replica.ready = True
        self.commands: list[Command] = []
        self.values: list[bytes] = []
        self.intents: list[Intent] = []
        self.deaf = False
        self.late_ms = 0
        self.failure: Exception | None = None
        self.hangs = False
        self._pending: list[Command] = []
        self._arrived = asyncio.Condition()
        self._position = 0

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> tuple[int, int]:
        if topic == DELIVERIES:
            if self.failure is not None:
                raise self.failure
            self.intents.append(decode_intent(value, headers, len(self.intents)))
            return 0, len(self.intents)
        command = decode_command(value)
        assert (topic, key) == (COMMANDS, webhook_key(command.webhook_id))
        async with self._arrived:
            self.commands.append(command)
            self.values.append(value or b"")
            self._pending.append(command)
            self._arrived.notify_all()
        if self.failure is not None:
            raise self.failure
        if self.hangs:
            await asyncio.Event().wait()
        if not self.deaf:
            await self.apply()
        return 0, len(self.commands)

    async def apply(self) -> None:
        """Apply what was sent and not applied yet."""
        pending, self._pending = self._pending, []
        for command in pending:
            row = apply_command(self.row(command.webhook_id), command, command.at + self.late_ms).row
            if row is not None:
                await self.write(row)

    async def arrived(self, count: int = 1) -> None:
        """Wait until so many commands were sent."""
        async with asyncio.timeout(DEADLINE_S), self._arrived:
            await self._arrived.wait_for(lambda: len(self.commands) >= count)

    async def write(self, *rows: WebhookRow) -> None:
        """The changelog has these rows."""
        for row in rows:
            await self._log(webhook_key(row.webhook_id), WEBHOOKS.encode(row))

    async def remove(self, webhook_id: str) -> None:
        """The changelog has the tombstone of a row."""
        await self._log(webhook_key(webhook_id), None)

    def row(self, webhook_id: str) -> WebhookRow | None:
        return self.replica.rows.get(webhook_key(webhook_id))

    async def _log(self, key: bytes, value: bytes | None) -> None:
        self._position += 1
        await self.replica._apply(("changelog", 0), [record(value, key=key)], self._position)


async def resolve(host: str, port: int) -> Sequence[str]:
    try:
        return ADDRESSES[host]
    except KeyError:
        raise socket.gaierror(host) from None


def webhooks_api(
    owner: Owner,
    *,
    confirm_s: float = DEADLINE_S,
    keys: KeyRing = KEYS,
    receiver: Receiver | None = None,
    now_ms: Callable[[], int] = lambda: START_MS,
) -> WebhooksApi:
    """What the routes work with."""
    counter = iter(range(1, 1000))
    return WebhooksApi(
        replica=owner.replica,
        outputs=owner,
        commands=COMMANDS,
        deliveries=DELIVERIES,
        source="/vault-stream/test",
        keys=keys,
        guard=TargetGuard(),
        limits=Limits(max_in_flight=128, signing_key=False),
        asks=receiver or Receiver(),
        resolve=resolve,
        now_ms=now_ms,
        random_bytes=lambda count: next(counter).to_bytes(count, "big"),
        confirm_s=confirm_s,
    )


@asynccontextmanager
async def serving(owner: Owner, *, tokens: ApiSettings | None = None, **options: Any) -> AsyncIterator[Caller]:
    """Serves until the end of the block; the options are those of `webhooks_api`."""
    api = webhooks_api(owner, **options)
    async with listening([*webhook_routes(api), *webhook_change_routes(api)], tokens) as caller:
        yield caller


async def create(api: Caller, body: Any = None, key: str | None = None, **headers: str) -> Answer:
    if key is not None:
        headers["Idempotency-Key"] = key
    return await api.call("POST", "/v1/webhooks", BODY if body is None else body, headers=headers)


async def meanwhile(call: Coroutine[Any, Any, Answer], *steps: Callable[[], Coroutine[Any, Any, None]]) -> Answer:
    """The answer to a call, while which these steps were taken."""
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        task = group.create_task(call)
        for step in steps:
            await step()
    return task.result()
