"""Changes of webhooks over HTTP: a command to the owner, and the wait until its effect is seen (architecture 5).

Any worker takes any request. The answer waits until this worker's own replica shows what became of the command, so that
whoever reads here next sees it, too.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiohttp import web

from app.engine import OutputFailed
from app.events import uuid7
from app.web.problems import FieldError, Problem
from app.webhooks.commands import Command, Op, encode_command
from app.webhooks.errors import MissingKey
from app.webhooks.guard import resolve_by_system
from app.webhooks.registration import Limits, show_webhook
from tables.webhooks import webhook_key

if TYPE_CHECKING:
    from app.engine import Replica
    from app.webhooks.errors import InvalidField, UnreadableSecret
    from app.webhooks.guard import Resolve, TargetGuard
    from app.webhooks.handshake import AsksPermission
    from app.webhooks.model import WebhookRow
    from app.webhooks.secrets import KeyRing, Secret

__all__ = [
    "CONFIRM_S",
    "KEYS_SETTING",
    "CommandGate",
    "Sends",
    "WebhooksApi",
    "base_version_of",
    "change_lost",
    "key_problem",
    "problem_of",
    "uuid7",
    "webhook_answer",
]

# What a caller waits at most (contracts 8.3); a command that the owner meets later than this is void.
CONFIRM_S: Final = 15.0
RETRY_AFTER_S: Final = 2
# A key comes with a restart.
KEY_RETRY_AFTER_S: Final = 60
# A version as ETag has it.
_TAG: Final = re.compile(r'"[0-9]+"', re.ASCII)
KEYS_SETTING: Final = "VAULT_STREAM_WEBHOOKS__ENCRYPTION_KEYS"


class Sends(Protocol):
    """Takes records, acknowledged."""

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> tuple[int, int]:
        """Partition and offset.

        Raises:
            OutputFailed: Not acknowledged.
        """


@dataclass(frozen=True, slots=True)
class WebhooksApi:
    """What the routes work with.

    Attributes:
        replica: All webhooks, in memory.
        commands: The topic of commands.
        deliveries: The topic of intents.
        source: `/vault-stream/{app id}`, of events that are made here.
        asks: Asks a receiver for its permission (CloudEvents web hooks, 3).
        resolve: Asked for the addresses of a host.
        now_ms: Wall clock.
        confirm_s: How long a change may take to be seen.
    """

    replica: Replica[WebhookRow]
    outputs: Sends
    commands: str
    deliveries: str
    source: str
    keys: KeyRing
    guard: TargetGuard
    limits: Limits
    asks: AsksPermission
    resolve: Resolve = resolve_by_system
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    random_bytes: Callable[[int], bytes] = secrets.token_bytes
    confirm_s: float = CONFIRM_S


class CommandGate:
    """Sends commands, and says what became of them."""

    def __init__(self, api: WebhooksApi) -> None:
        self._api = api

    def rows(self) -> dict[bytes, WebhookRow]:
        """All webhooks; an answer from a copy that is not complete yet would be a lie."""
        if not self._api.replica.ready:
            detail = "This worker is still reading the webhooks. Try again."
            raise Problem(503, "starting", detail, retry_after_s=RETRY_AFTER_S)
        return self._api.replica.rows

    def row(self, webhook_id: str) -> WebhookRow:
        """One webhook.

        Raises:
            Problem: 404, there is none; 503, nobody knows yet.
        """
        row = self.rows().get(webhook_key(webhook_id))
        if row is None or row.deleting:
            raise Problem(404, "not_found", "There is no webhook of this id.")
        return row

    def command(self, op: Op, webhook_id: str, actor: str, **more: Any) -> Command:
        """A command that is void once nobody waits for it any more."""
        now_ms = self._api.now_ms()
        return Command(
            command_id=uuid7(now_ms, self._api.random_bytes),
            op=op,
            webhook_id=webhook_id,
            expires_at=now_ms + round(self._api.confirm_s * 1000),
            actor=actor,
            at=now_ms,
            **more,
        )

    async def apply(self, command: Command) -> WebhookRow | None:
        """Send a command, and wait until its effect is seen here, or that of another one that came first.

        Returns:
            The row as it is then; None: it is gone.

        Raises:
            Problem: 503, nothing was seen in time, so it may still take effect until `expires_at`.
        """
        api, key = self._api, webhook_key(command.webhook_id)
        deadline_s = time.monotonic() + api.confirm_s
        try:
            async with asyncio.timeout(api.confirm_s):
                await api.outputs.send(api.commands, key, encode_command(command))
        except (OutputFailed, TimeoutError) as error:
            raise self._unconfirmed(command.webhook_id) from error
        left_s = deadline_s - time.monotonic()
        if not await api.replica.wait_for(lambda: _settled(api.replica.rows.get(key), command), left_s):
            raise self._unconfirmed(command.webhook_id)
        return api.replica.rows.get(key)

    def _unconfirmed(self, webhook_id: str) -> Problem:
        detail = (
            f"The change of {webhook_id} was not seen to take effect within {self._api.confirm_s:g} s; it still may."
            " Look at the webhook before you try again."
        )
        return Problem(503, "unconfirmed", detail, retry_after_s=RETRY_AFTER_S, extra={"id": webhook_id})


def _settled(row: WebhookRow | None, command: Command) -> bool:
    """Whether a command was applied, or cannot be any more."""
    if command.op is Op.CREATE:
        return row is not None
    if row is None or row.deleting or command.command_id in row.command_ids:
        return True
    return command.base_version is not None and row.version != command.base_version


def webhook_answer(row: WebhookRow, *, status: int = 200, secret: Secret | None = None) -> web.Response:
    """A webhook with its ETag; a secret only where it is shown once."""
    shown = show_webhook(row, None if secret is None else secret.text)
    return web.json_response(shown, status=status, headers={"ETag": f'"{row.version}"'})


def _if_match(request: web.Request) -> list[str]:
    return [tag.strip() for value in request.headers.getall("If-Match", []) for tag in value.split(",")]


def base_version_of(request: web.Request, row: WebhookRow) -> int | None:
    """The version that a change is made for: the one that is seen here; None, for `If-Match: *`: whatever there is."""
    tags = _if_match(request)
    if "*" in tags:
        return None
    if tags and f'"{row.version}"' not in tags:
        if not all(map(_TAG.fullmatch, tags)):
            # `1` and `W/"1"` never match, however often it is read again.
            how = f'write the version that you have read as ETag has it, in quotes: If-Match: "{row.version}"'
            raise _precondition_failed(row, how)
        raise _precondition_failed(row)
    return row.version


def change_lost(request: web.Request, row: WebhookRow) -> Problem:
    """Another change reached the owner first (architecture 5, Config changes)."""
    if any(tag != "*" for tag in _if_match(request)):
        return _precondition_failed(row)
    return Problem(409, "conflict", f"Another change came first; the webhook is at version {row.version} now.")


def _precondition_failed(row: WebhookRow, what_to_do: str = "read it again") -> Problem:
    detail = f"The webhook is at version {row.version} now; {what_to_do}."
    error = FieldError("If-Match", "precondition_failed", f'"{row.version}"')
    return Problem(412, "precondition_failed", detail, errors=[error])


def problem_of(error: InvalidField) -> Problem:
    """422 for a field."""
    field = FieldError(error.field, error.code, error.detail)
    return Problem(422, error.code, f"{error.field or 'the body'}: {error.detail}", errors=[field])


def key_problem(error: MissingKey | UnreadableSecret, detail: str | None = None) -> Problem:
    """503 for a secret that cannot be kept or read here."""
    setting = KEYS_SETTING if isinstance(error, MissingKey) else None
    return Problem(503, error.code, detail or f"{error}.", retry_after_s=KEY_RETRY_AFTER_S, setting=setting)
