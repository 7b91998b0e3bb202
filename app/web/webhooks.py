"""The webhooks of a deployment over HTTP (contracts 8.3 and 9.5).

Any worker takes any request. A change is a command to the owner; the answer waits until this worker's own replica shows
what became of it, so that whoever reads here next sees it, too.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiohttp import web

from app.engine import OutputFailed
from app.web.auth import principal_of
from app.web.cursors import cursor_of, cursor_place
from app.web.problems import FieldError, Problem
from app.web.requests import json_body, page_limit, query_of
from app.webhooks.commands import Command, Op, encode_command
from app.webhooks.errors import InvalidField, MissingKey, UnreadableSecret
from app.webhooks.guard import resolve_by_system
from app.webhooks.model import SealedSecret
from app.webhooks.registration import Limits, new_webhook_id, read_registration, show_webhook
from app.webhooks.secrets import new_secret
from tables.webhooks import webhook_key

if TYPE_CHECKING:
    from app.engine import Replica
    from app.webhooks.guard import Resolve, TargetGuard
    from app.webhooks.model import WebhookRow
    from app.webhooks.registration import Registration
    from app.webhooks.secrets import KeyRing, Secret

__all__ = ["CONFIRM_S", "Sends", "WebhooksApi", "webhook_routes"]

# What a caller waits at most (contracts 8.3); a command that the owner meets later than this is void.
CONFIRM_S: Final = 15.0
RETRY_AFTER_S: Final = 2
# A key comes with a restart.
KEY_RETRY_AFTER_S: Final = 60
MAX_KEY_CHARS: Final = 255
# The row, which has all of the body in it, may have twice this.
MAX_BODY_BYTES: Final = 256 * 1024


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
        resolve: Asked for the addresses of a host.
        now_ms: Wall clock.
        confirm_s: How long a change may take to be seen.
    """

    replica: Replica[WebhookRow]
    outputs: Sends
    commands: str
    keys: KeyRing
    guard: TargetGuard
    limits: Limits
    resolve: Resolve = resolve_by_system
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    random_bytes: Callable[[int], bytes] = secrets.token_bytes
    confirm_s: float = CONFIRM_S


def webhook_routes(api: WebhooksApi) -> list[web.RouteDef]:
    """List, create, show and delete."""
    handlers = _Handlers(api)
    return [
        web.get("/v1/webhooks", handlers.index),
        web.post("/v1/webhooks", handlers.create),
        web.get("/v1/webhooks/{id}", handlers.show),
        web.delete("/v1/webhooks/{id}", handlers.delete),
    ]


class _Handlers:
    def __init__(self, api: WebhooksApi) -> None:
        self._api = api

    async def index(self, request: web.Request) -> web.Response:
        query = query_of(request, ("cursor", "limit"))
        limit = page_limit(query)
        after = cursor_place(query)
        rows = sorted(
            (row for row in self._rows().values() if not row.deleting and (after is None or _place(row) > after)),
            key=_place,
        )
        page = rows[:limit]
        cursor = cursor_of(*_place(page[-1])) if len(rows) > limit else None
        return web.json_response({"items": [show_webhook(row) for row in page], "next_cursor": cursor})

    async def show(self, request: web.Request) -> web.Response:
        query_of(request, ())
        return _answer(self._row(request.match_info["id"]))

    async def create(self, request: web.Request) -> web.Response:
        query_of(request, ())
        api = self._api
        if api.keys.active_key_id is None:
            detail = "No secret can be kept: set VAULT_STREAM_WEBHOOKS__ENCRYPTION_KEYS and start the worker again."
            raise Problem(503, MissingKey.code, detail, retry_after_s=KEY_RETRY_AFTER_S)
        key, actor = _idempotency_key(request), principal_of(request).name
        wanted = await self._read(request)
        webhook_id = new_webhook_id(key, actor, api.random_bytes)
        if (known := self._rows().get(webhook_key(webhook_id))) is not None:
            return self._again(known, wanted)
        secret = wanted.secret or new_secret(api.random_bytes)
        sealed = SealedSecret(sealed=api.keys.seal(webhook_id, secret))
        command = self._command(Op.CREATE, webhook_id, actor, secrets=(sealed,), patch=wanted.patch)
        row = await self._apply(command)
        if row is None or row.deleting or command.command_id not in row.command_ids:
            # Two creates with one idempotency key met at the owner; the other one was first.
            return self._again(row, wanted)
        return _answer(row, status=201, secret=secret)

    async def _read(self, request: web.Request) -> Registration:
        if len(await request.read()) > MAX_BODY_BYTES:
            raise Problem(413, "too_large", f"A webhook has at most {MAX_BODY_BYTES} bytes of JSON.")
        try:
            wanted = read_registration(await json_body(request), self._api.limits)
            await self._api.guard.check(str(wanted.patch.url), self._api.resolve)
        except InvalidField as error:
            raise _of_field(error) from None
        return wanted

    def _again(self, row: WebhookRow | None, wanted: Registration) -> web.Response:
        """The first answer once more: same caller, same key, same body.

        The secret is in it until the webhook is changed: whoever rotates it does not show the new one to its maker.
        """
        if row is None or row.deleting:
            raise Problem(409, "conflict", "The webhook was deleted; use another Idempotency-Key for a new one.")
        try:
            secret = self._api.keys.open(row.webhook_id, row.secrets[0].sealed) if row.version == 1 else None
        except (MissingKey, UnreadableSecret) as error:
            detail = f"The webhook exists as {row.webhook_id}, but its secret cannot be read here."
            raise Problem(503, error.code, detail, retry_after_s=KEY_RETRY_AFTER_S) from None
        other_secret = secret is not None and wanted.secret not in {None, secret}
        if other_secret or row.fingerprint != wanted.patch.fingerprint:
            detail = "This Idempotency-Key was used with another body; use a new one."
            raise Problem(422, "idempotency_key_reused", detail)
        return _answer(row, status=201, secret=secret)

    async def delete(self, request: web.Request) -> web.Response:
        query_of(request, ())
        row = self._row(request.match_info["id"])
        base_version = _base_version(request, row)
        command = self._command(Op.DELETE, row.webhook_id, principal_of(request).name, base_version=base_version)
        left = await self._apply(command)
        if left is not None and not left.deleting:
            raise _lost(request, left)
        return web.Response(status=204)

    def _rows(self) -> dict[bytes, WebhookRow]:
        """All webhooks; an answer from a copy that is not complete yet would be a lie."""
        if not self._api.replica.ready:
            detail = "This worker is still reading the webhooks. Try again."
            raise Problem(503, "starting", detail, retry_after_s=RETRY_AFTER_S)
        return self._api.replica.rows

    def _row(self, webhook_id: str) -> WebhookRow:
        row = self._rows().get(webhook_key(webhook_id))
        if row is None or row.deleting:
            raise Problem(404, "not_found", "There is no webhook of this id.")
        return row

    def _command(self, op: Op, webhook_id: str, actor: str, **more: Any) -> Command:
        now_ms = self._api.now_ms()
        return Command(
            command_id=_uuid7(now_ms, self._api.random_bytes),
            op=op,
            webhook_id=webhook_id,
            expires_at=now_ms + round(self._api.confirm_s * 1000),
            actor=actor,
            at=now_ms,
            **more,
        )

    async def _apply(self, command: Command) -> WebhookRow | None:
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


def _place(row: WebhookRow) -> tuple[int, str]:
    return row.created_at_ms, row.webhook_id


def _answer(row: WebhookRow, *, status: int = 200, secret: Secret | None = None) -> web.Response:
    shown = show_webhook(row, None if secret is None else secret.text)
    return web.json_response(shown, status=status, headers={"ETag": f'"{row.version}"'})


def _if_match(request: web.Request) -> list[str]:
    return [tag.strip() for value in request.headers.getall("If-Match", []) for tag in value.split(",")]


def _base_version(request: web.Request, row: WebhookRow) -> int | None:
    """The version that a change is made for: the one that is seen here; None, for `If-Match: *`: whatever there is."""
    tags = _if_match(request)
    if "*" in tags:
        return None
    if tags and f'"{row.version}"' not in tags:
        raise _precondition_failed(row)
    return row.version


def _lost(request: web.Request, row: WebhookRow) -> Problem:
    """Another change reached the owner first (architecture 5, Config changes)."""
    if _if_match(request):
        return _precondition_failed(row)
    return Problem(409, "conflict", f"Another change came first; the webhook is at version {row.version} now.")


def _precondition_failed(row: WebhookRow) -> Problem:
    return Problem(412, "precondition_failed", f"The webhook is at version {row.version} now; read it again.")


def _of_field(error: InvalidField) -> Problem:
    field = FieldError(error.field, error.code, error.detail)
    return Problem(422, error.code, f"{error.field or 'the body'}: {error.detail}", errors=[field])


def _idempotency_key(request: web.Request) -> str | None:
    keys = request.headers.getall("Idempotency-Key", [])
    if not keys:
        return None
    (key, *more) = keys
    if more or not 1 <= len(key) <= MAX_KEY_CHARS or not (key.isascii() and key.isprintable()):
        field = FieldError("Idempotency-Key", "invalid", f"one of 1 to {MAX_KEY_CHARS} printable ASCII characters")
        raise Problem(422, "invalid_header", "A header is not understood.", errors=[field])
    return key


def _uuid7(now_ms: int, random_bytes: Callable[[int], bytes]) -> str:
    """RFC 9562, 5.7: time first, so that commands sort by when they were made."""
    tail = int.from_bytes(random_bytes(10), "big")
    value = (now_ms & (1 << 48) - 1) << 80 | 0x7 << 76 | (tail >> 68 & 0xFFF) << 64 | 0b10 << 62 | tail & (1 << 62) - 1
    return str(uuid.UUID(int=value))
