"""Changes of one webhook over HTTP: its configuration, its secret, whether it is served, and a ping (contracts 8.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from app.engine import OutputFailed
from app.events import MOMENT_FORM, OperatorEventType, delivery_id, format_time, new_event, parse_moment_ms
from app.web.auth import principal_of
from app.web.problems import FieldError, Problem
from app.web.requests import fields_of, json_body, query_of
from app.web.webhook_commands import (
    RETRY_AFTER_S,
    CommandGate,
    base_version_of,
    change_lost,
    key_problem,
    problem_of,
    uuid7,
    webhook_answer,
)
from app.webhooks.commands import Op, WebhookPatch
from app.webhooks.credentials import MASK, open_headers, reseal_headers, seal_headers
from app.webhooks.errors import InvalidField, MissingKey, UnreadableSecret
from app.webhooks.handshake import with_permission
from app.webhooks.intents import IntentReason, intent_headers
from app.webhooks.model import SealedSecret
from app.webhooks.registration import read_changes
from app.webhooks.secrets import new_secret
from tables.webhooks import webhook_key

if TYPE_CHECKING:
    from app.web.webhook_commands import WebhooksApi
    from app.webhooks.model import WebhookRow
    from app.webhooks.secrets import KeyRing, Secret

__all__ = ["webhook_change_routes"]

DEFAULT_OVERLAP_S: Final = 86_400
MAX_OVERLAP_S: Final = 7 * 86_400
# Each is a signature in a header of every request.
MAX_VALID_SECRETS: Final = 5
MAX_HOLD_S: Final = 366 * 86_400


def webhook_change_routes(api: WebhooksApi) -> list[web.RouteDef]:
    """PATCH, and what is done to a webhook by name."""
    changes = _Changes(api)
    return [
        web.patch("/v1/webhooks/{id}", changes.patch),
        web.post("/v1/webhooks/{id}/enable", changes.enable),
        web.post("/v1/webhooks/{id}/disable", changes.disable),
        web.post("/v1/webhooks/{id}/hold", changes.hold),
        web.post("/v1/webhooks/{id}/rotate-secret", changes.rotate_secret),
        web.post("/v1/webhooks/{id}/rekey", changes.rekey),
        web.post("/v1/webhooks/{id}/ping", changes.ping),
    ]


class _Changes:
    def __init__(self, api: WebhooksApi) -> None:
        self._api = api
        self._gate = CommandGate(api)

    async def patch(self, request: web.Request) -> web.Response:
        row = self._row(request)
        base_version = base_version_of(request, row)
        try:
            body = await json_body(request)
            whole = _unmasked(body, row, self._api.keys)
            if whole is not body:
                # Made of this row, so for it alone, whatever the request says of versions.
                base_version = row.version
            patch = read_changes(whole, self._api.limits)
            if patch.url is not msgspec.UNSET:
                await self._api.guard.check(patch.url, self._api.resolve)
            if _asks_again(row, patch):
                patch = await self._permitted(row, patch)
            patch = seal_headers(patch, row.webhook_id, self._api.keys)
        except InvalidField as error:
            raise problem_of(error) from None
        except (MissingKey, UnreadableSecret) as error:
            raise key_problem(error) from None
        return webhook_answer(await self._change(request, row, Op.UPDATE, base_version, patch=patch))

    async def _permitted(self, row: WebhookRow, patch: WebhookPatch) -> WebhookPatch:
        url = row.url if patch.url is msgspec.UNSET else patch.url
        headers = open_headers(row, self._api.keys) if patch.headers is msgspec.UNSET else patch.headers
        rate = row.rate_limit_per_s if patch.rate_limit_per_s is msgspec.UNSET else patch.rate_limit_per_s
        return await with_permission(self._api.asks, patch, url, headers, rate)

    async def enable(self, request: web.Request) -> web.Response:
        return await self._switch(request, Op.ENABLE, enabled=True)

    async def disable(self, request: web.Request) -> web.Response:
        return await self._switch(request, Op.DISABLE, enabled=False)

    async def _switch(self, request: web.Request, op: Op, *, enabled: bool) -> web.Response:
        row = self._row(request)
        base_version = base_version_of(request, row)
        await fields_of(request, ())
        if row.enabled is enabled:
            return webhook_answer(row)
        return webhook_answer(await self._change(request, row, op, base_version))

    async def hold(self, request: web.Request) -> web.Response:
        row = self._row(request)
        base_version = base_version_of(request, row)
        body = await fields_of(request, ("until",))
        patch = WebhookPatch(hold_until_ms=_until_ms(body, self._api.now_ms()))
        return webhook_answer(await self._change(request, row, Op.HOLD, base_version, patch=patch))

    async def rotate_secret(self, request: web.Request) -> web.Response:
        row, api = self._row(request), self._api
        base_version_of(request, row)
        overlap_s = _overlap_s(await fields_of(request, ("overlap_s",)))
        now_ms = api.now_ms()
        kept = _kept_secrets(row, now_ms, now_ms + round(overlap_s * 1000))
        if len(kept) >= MAX_VALID_SECRETS:
            detail = f"{len(kept)} secrets are valid already; wait for one to end, or rotate with overlap_s 0."
            raise Problem(409, "too_many_secrets", detail)
        secret = new_secret(api.random_bytes)
        secrets = (SealedSecret(sealed=self._seal(row, secret)), *kept)
        # Made of this row, so for it alone, whatever the request says of versions.
        changed = await self._change(request, row, Op.ROTATE, row.version, secrets=secrets)
        return webhook_answer(changed, secret=secret)

    async def rekey(self, request: web.Request) -> web.Response:
        row, keys = self._row(request), self._api.keys
        base_version_of(request, row)
        await fields_of(request, ())
        sealed = [*(one.sealed for one in row.secrets), *row.sealed_headers.values()]
        if all(map(keys.is_active, sealed)):
            return webhook_answer(row)
        # The key of a secret that was rotated out may be gone, and nobody needs it.
        valid = [one for one in row.secrets if one.valid_until_ms is None or one.valid_until_ms > self._api.now_ms()]
        try:
            opened = [(keys.open(row.webhook_id, one.sealed), one.valid_until_ms) for one in valid]
            patch = WebhookPatch(sealed_headers=reseal_headers(row, keys))
        except (MissingKey, UnreadableSecret) as error:
            raise key_problem(error) from None
        secrets = tuple(
            SealedSecret(sealed=self._seal(row, secret), valid_until_ms=until_ms) for secret, until_ms in opened
        )
        return webhook_answer(await self._change(request, row, Op.REKEY, row.version, secrets=secrets, patch=patch))

    async def ping(self, request: web.Request) -> web.Response:
        """An event made up for this webhook alone; 202 once the broker has it."""
        row, api = self._row(request), self._api
        await fields_of(request, ())
        if not row.enabled:
            detail = "The webhook is disabled, and a ping would not reach it; enable it first."
            raise Problem(409, "disabled", detail)
        now_ms = api.now_ms()
        event = new_event(
            id=uuid7(now_ms, api.random_bytes),
            source=api.source,
            type=OperatorEventType.WEBHOOK_PING,
            subject=row.webhook_id,
            time=format_time(now_ms),
            data={"webhook_id": row.webhook_id, "actor": {"id": principal_of(request).name, "type": "token"}},
        )
        key, delivery = webhook_key(row.webhook_id), delivery_id(row.webhook_id, event.source, event.id)
        headers = intent_headers(delivery, row.webhook_id, IntentReason.PING, request_id=event.id)
        try:
            await api.outputs.send(api.deliveries, key, event.posted, headers)
        except OutputFailed:
            detail = "The broker did not take the ping; it may arrive all the same. Try again."
            raise Problem(503, "unconfirmed", detail, retry_after_s=RETRY_AFTER_S) from None
        return web.json_response({"delivery_id": delivery, "event_id": event.id}, status=202)

    def _row(self, request: web.Request) -> WebhookRow:
        query_of(request, ())
        return self._gate.row(request.match_info["id"])

    def _seal(self, row: WebhookRow, secret: Secret) -> str:
        try:
            return self._api.keys.seal(row.webhook_id, secret)
        except MissingKey as error:
            raise key_problem(error) from None

    async def _change(
        self, request: web.Request, row: WebhookRow, op: Op, base_version: int | None, **more: Any
    ) -> WebhookRow:
        """Send a command, and the row once it was applied.

        Raises:
            Problem: 409 or 412, another change came first; 404, the webhook is gone; 503 unconfirmed.
        """
        actor = principal_of(request).name
        command = self._gate.command(op, row.webhook_id, actor, base_version=base_version, **more)
        changed = await self._gate.apply(command)
        if changed is None or changed.deleting:
            raise Problem(404, "not_found", "The webhook was deleted meanwhile.")
        if command.command_id not in changed.command_ids:
            raise change_lost(request, changed)
        return changed


def _unmasked(body: Any, row: WebhookRow, keys: KeyRing) -> Any:
    """The body with the values that its masks stand for: whoever sends back what was shown changes nothing by it.

    Raises:
        MissingKey, UnreadableSecret: The stored values cannot be read here.
    """
    headers = body.get("headers") if isinstance(body, Mapping) else None
    if not isinstance(headers, Mapping):
        return body
    kept = [name for name, value in headers.items() if value == MASK and name in row.sealed_headers]
    if not kept:
        return body
    stored = open_headers(row, keys)
    return {**body, "headers": {**headers, **{name: stored[name] for name in kept}}}


def _asks_again(row: WebhookRow, patch: WebhookPatch) -> bool:
    """Whether the receiver must be asked: it is a new one, was not asked yet, or is to get more than it allowed."""
    handshake = row.handshake if patch.handshake is msgspec.UNSET else patch.handshake
    moved = patch.url is not msgspec.UNSET and patch.url != row.url
    rate, before = patch.rate_limit_per_s, row.rate_limit_per_s
    faster = rate is not msgspec.UNSET and before is not None and (rate is None or rate > before)
    return handshake and (moved or faster or not row.handshake)


def _kept_secrets(row: WebhookRow, now_ms: int, until_ms: int) -> list[SealedSecret]:
    """The secrets that stay valid beside a new one, each no longer than it was."""
    ends = [(one, until_ms if one.valid_until_ms is None else min(until_ms, one.valid_until_ms)) for one in row.secrets]
    return [msgspec.structs.replace(one, valid_until_ms=end_ms) for one, end_ms in ends if end_ms > now_ms]


def _overlap_s(body: dict[str, Any]) -> float:
    value = body.get("overlap_s", DEFAULT_OVERLAP_S)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_OVERLAP_S:
        raise _wrong("/overlap_s", f"a number of seconds from 0 to {MAX_OVERLAP_S}")
    return float(value)


def _until_ms(body: dict[str, Any], now_ms: int) -> int | None:
    if "until" not in body:
        raise _wrong("/until", "is missing: a time, or null to lift the hold")
    until = body["until"]
    if until is None:
        return None
    try:
        until_ms = parse_moment_ms(until)
    except (TypeError, ValueError):
        raise _wrong("/until", f"{MOMENT_FORM}; or null to lift the hold") from None
    if not now_ms < until_ms <= now_ms + MAX_HOLD_S * 1000:
        raise _wrong("/until", "a time in the future, within a year")
    return until_ms


def _wrong(field: str, message: str) -> Problem:
    return Problem(422, "invalid_field", f"{field}: {message}", errors=[FieldError(field, "invalid", message)])
