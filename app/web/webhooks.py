"""The webhooks of a deployment over HTTP (contracts 8.3 and 9.5).

Any worker takes any request. A change is a command to the owner; the answer waits until this worker's own replica shows
what became of it, so that whoever reads here next sees it, too.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiohttp import web

from app.web.auth import principal_of
from app.web.problems import FieldError, Problem
from app.web.requests import json_body, page_limit, query_of
from app.webhooks.commands import Command, Op, encode_command
from app.webhooks.errors import InvalidField, MissingKey, UnreadableSecret
from app.webhooks.guard import resolve_by_system
from app.webhooks.model import SealedSecret
from app.webhooks.registration import Limits, new_webhook_id, read_registration, show_webhook
from app.webhooks.secrets import Secret, new_secret

if TYPE_CHECKING:
    from app.engine import Replica
    from app.webhooks.guard import TargetGuard
    from app.webhooks.model import WebhookRow
    from app.webhooks.secrets import KeyRing

__all__ = ["CONFIRM_S", "Sends", "WebhooksApi", "webhook_routes"]

# What a caller waits at most (contracts 8.3); a command that the owner meets later than this is void.
CONFIRM_S: Final = 15.0
RETRY_AFTER_S: Final = 2
MAX_KEY_CHARS: Final = 255


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
        now_ms: Wall clock.
    """

    replica: Replica[WebhookRow]
    outputs: Sends
    commands: str
    keys: KeyRing
    guard: TargetGuard
    limits: Limits
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
        rows = sorted(
            (row for row in self._api.replica.rows.values() if not row.deleting),
            key=lambda row: (row.created_at_ms, row.webhook_id),
        )
        after = _read_cursor(query.get("cursor"))
        if after is not None:
            rows = [row for row in rows if (row.created_at_ms, row.webhook_id) > after]
        more = len(rows) > limit
        page = rows[:limit]
        cursor = _cursor(page[-1]) if more else None
        return web.json_response({"items": [show_webhook(row) for row in page], "next_cursor": cursor})

    async def show(self, request: web.Request) -> web.Response:
        query_of(request, ())
        return _answer(self._row(request.match_info["id"]))

    async def create(self, request: web.Request) -> web.Response:
        query_of(request, ())
        api = self._api
        if api.keys.active_key_id is None:
            detail = "No secret can be kept: set VAULT_STREAM_WEBHOOKS__ENCRYPTION_KEYS and start the worker again."
            raise Problem(503, "encryption_key_missing", detail)
        try:
            wanted = read_registration(await json_body(request), api.limits)
            await api.guard.check(str(wanted.patch.url), resolve_by_system)
        except InvalidField as error:
            raise _of_field(error) from None
        actor = principal_of(request).name
        webhook_id = new_webhook_id(_idempotency_key(request), actor, api.random_bytes)
        if (known := api.replica.rows.get(webhook_id.encode())) is not None:
            return self._again(known, wanted.patch.fingerprint)
        secret = Secret(wanted.secret) if wanted.secret else new_secret(api.random_bytes)
        sealed = SealedSecret(sealed=api.keys.seal(webhook_id, secret))
        command = self._command(Op.CREATE, webhook_id, actor, secrets=(sealed,), patch=wanted.patch)
        row = await self._apply(command)
        if command.command_id not in row.command_ids:
            # Two creates with one idempotency key met at the owner; the other one was first.
            return self._again(row, wanted.patch.fingerprint)
        return _answer(row, status=201, secret=secret.text)

    def _again(self, row: WebhookRow, fingerprint: object) -> web.Response:
        """The first answer once more: same caller, same key, same body."""
        if row.fingerprint != fingerprint:
            detail = "This Idempotency-Key was used with another body; use a new one."
            raise Problem(422, "idempotency_key_reused", detail)
        try:
            secret = self._api.keys.open(row.webhook_id, row.secrets[0].sealed)
        except (MissingKey, UnreadableSecret) as error:
            raise Problem(503, error.code, "The webhook exists, but its secret cannot be read here.") from None
        return _answer(row, status=201, secret=secret.text)

    async def delete(self, request: web.Request) -> web.Response:
        query_of(request, ())
        row = self._row(request.match_info["id"])
        _match(request, row)
        given = row.version if "If-Match" in request.headers else None
        command = self._command(Op.DELETE, row.webhook_id, principal_of(request).name, base_version=given)
        await self._apply(command)
        return web.Response(status=204)

    def _row(self, webhook_id: str) -> WebhookRow:
        row = self._api.replica.rows.get(webhook_id.encode())
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

    async def _apply(self, command: Command) -> WebhookRow:
        """Send a command and wait for its effect.

        Raises:
            Problem: 409, another change came first; 503, nothing was seen of it in time.
        """
        api, key = self._api, command.webhook_id.encode()
        before = api.replica.rows.get(key)
        deadline_s = time.monotonic() + api.confirm_s
        unconfirmed = Problem(
            503,
            "unconfirmed",
            f"The change was not seen to take effect within {api.confirm_s:g} s. Look, and try again.",
            retry_after_s=RETRY_AFTER_S,
            extra={"id": command.webhook_id},
        )
        try:
            await api.outputs.send(api.commands, key, encode_command(command))
        except Exception as error:
            if not getattr(error, "retriable", False):
                raise
            raise unconfirmed from error

        def settled() -> bool:
            row = api.replica.rows.get(key)
            if row is None:
                return before is not None
            return command.command_id in row.command_ids or before is None or row.version > before.version

        if not await api.replica.wait_for(settled, deadline_s - time.monotonic()):
            raise unconfirmed
        row = api.replica.rows.get(key)
        if row is None:
            if command.op is Op.DELETE and before is not None:
                return before
            raise Problem(409, "conflict", "The webhook was deleted meanwhile.")
        if command.command_id not in row.command_ids and command.op is not Op.CREATE:
            raise Problem(409, "conflict", "Another change came first; read the webhook again.")
        return row


def _answer(row: WebhookRow, *, status: int = 200, secret: str | None = None) -> web.Response:
    return web.json_response(show_webhook(row, secret), status=status, headers={"ETag": f'"{row.version}"'})


def _match(request: web.Request, row: WebhookRow) -> None:
    wanted = request.headers.get("If-Match")
    if wanted is None or wanted.strip() == "*":
        return
    if f'"{row.version}"' not in [tag.strip() for tag in wanted.split(",")]:
        raise Problem(412, "precondition_failed", f"The webhook is at version {row.version} now; read it again.")


def _of_field(error: InvalidField) -> Problem:
    field = FieldError(error.field, error.code, error.detail)
    return Problem(422, error.code, f"{error.field or 'the body'}: {error.detail}", errors=[field])


def _idempotency_key(request: web.Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 1 <= len(key) <= MAX_KEY_CHARS:
        field = FieldError("Idempotency-Key", "out_of_range", f"1 to {MAX_KEY_CHARS} characters")
        raise Problem(422, "invalid_header", "A header is not understood.", errors=[field])
    return key


def _uuid7(now_ms: int, random_bytes: Callable[[int], bytes]) -> str:
    """RFC 9562, 5.7: time first, so that commands sort by when they were made."""
    tail = int.from_bytes(random_bytes(10), "big")
    value = (now_ms & (1 << 48) - 1) << 80 | 0x7 << 76 | (tail >> 68 & 0xFFF) << 64 | 0b10 << 62 | tail & (1 << 62) - 1
    return str(uuid.UUID(int=value))


def _cursor(row: WebhookRow) -> str:
    return base64.urlsafe_b64encode(f"{row.created_at_ms}/{row.webhook_id}".encode()).decode()


def _read_cursor(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    try:
        created, _, webhook_id = base64.urlsafe_b64decode(text.encode()).decode().partition("/")
        return int(created), webhook_id
    except (binascii.Error, ValueError):
        field = FieldError("cursor", "invalid", "a next_cursor of an earlier answer")
        raise Problem(422, "invalid_query", "A query parameter is not understood.", errors=[field]) from None
