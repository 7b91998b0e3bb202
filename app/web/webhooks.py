"""The webhooks of a deployment over HTTP: list, create, show and delete (contracts 8.3 and 9.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from app.web.auth import principal_of
from app.web.cursors import cursor_of, cursor_place
from app.web.problems import FieldError, Problem
from app.web.requests import idempotency_key, json_body, page_limit, query_of
from app.web.webhook_commands import (
    KEYS_SETTING,
    CommandGate,
    WebhooksApi,
    base_version_of,
    change_lost,
    key_problem,
    problem_of,
    webhook_answer,
)
from app.webhooks.commands import Op
from app.webhooks.credentials import open_headers, seal_headers
from app.webhooks.errors import InvalidField, MissingKey, UnreadableSecret
from app.webhooks.handshake import with_permission
from app.webhooks.model import Health, SealedSecret
from app.webhooks.registration import new_webhook_id, read_registration, show_webhook
from app.webhooks.secrets import new_secret
from tables.webhooks import webhook_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.webhooks.commands import WebhookPatch
    from app.webhooks.model import WebhookRow
    from app.webhooks.registration import Registration
    from app.webhooks.secrets import Secret

__all__ = ["WebhooksApi", "webhook_routes"]

_LIST: Final = "webhooks"
# For a caller whose answer was lost; whoever finds key and token later does not learn it by them.
SHOWN_AGAIN_MS: Final = 15 * 60_000
_NOT_SHOWN: Final = "The secret is not shown any more; rotate-secret makes a new one."


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
        self._gate = CommandGate(api)

    async def index(self, request: web.Request) -> web.Response:
        query = query_of(request, ("search", "health", "cursor", "limit"))
        limit = page_limit(query)
        after = cursor_place(query, _LIST)
        wanted = _wanted(query)
        rows = sorted(
            (row for row in self._gate.rows().values() if (after is None or _place(row) > after) and wanted(row)),
            key=_place,
        )
        page = rows[:limit]
        cursor = cursor_of(*_place(page[-1]), _LIST) if len(rows) > limit else None
        return web.json_response({"items": [show_webhook(row) for row in page], "next_cursor": cursor})

    async def show(self, request: web.Request) -> web.Response:
        query_of(request, ())
        return webhook_answer(self._gate.row(request.match_info["id"]))

    async def create(self, request: web.Request) -> web.Response:
        query_of(request, ())
        api = self._api
        if api.keys.active_key_id is None:
            detail = f"No secret can be kept: set {KEYS_SETTING} and start the worker again."
            raise key_problem(MissingKey(None), detail)
        key, actor = idempotency_key(request), principal_of(request).name
        wanted = await self._read(request)
        webhook_id = new_webhook_id(key, actor, api.random_bytes)
        if (known := self._gate.rows().get(webhook_key(webhook_id))) is not None:
            return self._again(known, wanted)
        secret = wanted.secret or new_secret(api.random_bytes)
        sealed = SealedSecret(sealed=api.keys.seal(webhook_id, secret))
        patch = seal_headers(await self._permitted(wanted), webhook_id, api.keys)
        command = self._gate.command(Op.CREATE, webhook_id, actor, secrets=(sealed,), patch=patch)
        row = await self._gate.apply(command)
        if row is None or row.deleting or command.command_id not in row.command_ids:
            # Two creates with one idempotency key met at the owner; the other one was first.
            return self._again(row, wanted)
        return webhook_answer(row, status=201, secret=secret)

    async def _read(self, request: web.Request) -> Registration:
        try:
            wanted = read_registration(await json_body(request), self._api.limits)
            await self._api.guard.check(str(wanted.patch.url), self._api.resolve)
        except InvalidField as error:
            raise problem_of(error) from None
        return wanted

    async def _permitted(self, wanted: Registration) -> WebhookPatch:
        patch = wanted.patch
        if patch.handshake is not True:
            return patch
        headers = {} if patch.headers is msgspec.UNSET else patch.headers
        rate = None if patch.rate_limit_per_s is msgspec.UNSET else patch.rate_limit_per_s
        try:
            return await with_permission(self._api.asks, patch, str(patch.url), headers, rate)
        except InvalidField as error:
            raise problem_of(error) from None

    def _again(self, row: WebhookRow | None, wanted: Registration) -> web.Response:
        """The first answer once more: same caller, same key, same body.

        The secret is in it for a quarter of an hour, and until the webhook is changed: whoever rotates it does not show
        the new one to its maker.
        """
        if row is None or row.deleting:
            raise Problem(409, "conflict", "The webhook was deleted; use another Idempotency-Key for a new one.")
        keys, unchanged = self._api.keys, row.version == 1
        try:
            secret = keys.open(row.webhook_id, row.secrets[0].sealed) if unchanged else None
            other_headers = unchanged and open_headers(row, keys) != (wanted.patch.headers or {})
        except (MissingKey, UnreadableSecret) as error:
            detail = f"The webhook exists as {row.webhook_id}, but its secret cannot be read here: {error}."
            raise key_problem(error, detail) from None
        other_secret = secret is not None and wanted.secret not in {None, secret}
        if other_secret or other_headers or row.fingerprint != wanted.patch.fingerprint:
            detail = "This Idempotency-Key was used with another body; use a new one."
            raise Problem(422, "idempotency_key_reused", detail)
        if not unchanged and wanted.secret is not None and not self._signs_with(row, wanted.secret):
            # With 201 its caller would give the receiver a secret that nothing is signed with.
            detail = f"This Idempotency-Key made {row.webhook_id}, which does not have this secret (any more)."
            raise Problem(422, "idempotency_key_reused", detail)
        if secret is not None and self._api.now_ms() - row.created_at_ms < SHOWN_AGAIN_MS:
            return webhook_answer(row, status=201, secret=secret)
        shown = show_webhook(row) | {"secret_hint": _NOT_SHOWN}
        return web.json_response(shown, status=201, headers={"ETag": f'"{row.version}"'})

    def _signs_with(self, row: WebhookRow, secret: Secret) -> bool:
        """Whether it is a valid secret of the webhook.

        Raises:
            Problem: None that can be read here is it, and one cannot be read.
        """
        now_ms, unread = self._api.now_ms(), None
        for one in row.secrets:
            if one.valid_until_ms is None or now_ms < one.valid_until_ms:
                try:
                    if self._api.keys.open(row.webhook_id, one.sealed) == secret:
                        return True
                except (MissingKey, UnreadableSecret) as error:
                    unread = error
        if unread is not None:
            raise key_problem(unread, f"A secret of {row.webhook_id} cannot be read here: {unread}.") from None
        return False

    async def delete(self, request: web.Request) -> web.Response:
        query_of(request, ())
        row = self._gate.row(request.match_info["id"])
        base_version = base_version_of(request, row)
        command = self._gate.command(Op.DELETE, row.webhook_id, principal_of(request).name, base_version=base_version)
        left = await self._gate.apply(command)
        if left is not None and not left.deleting:
            raise change_lost(request, left)
        return web.Response(status=204)


def _wanted(query: Mapping[str, str]) -> Callable[[WebhookRow], bool]:
    """Whether a row is one of those that are asked for.

    Raises:
        Problem: 422.
    """
    search, health = query.get("search", "").casefold(), query.get("health")
    if health is not None and health not in tuple(Health):
        error = FieldError("health", "invalid", f"one of {', '.join(Health)}")
        raise Problem(422, "invalid_query", "A query parameter is not understood.", errors=[error])

    def wanted(row: WebhookRow) -> bool:
        if row.deleting or (health is not None and row.health != health):
            return False
        searched = (row.webhook_id, row.url, row.description or "", *row.events)
        return not search or any(search in text.casefold() for text in searched)

    return wanted


def _place(row: WebhookRow) -> tuple[int, str]:
    return row.created_at_ms, row.webhook_id
