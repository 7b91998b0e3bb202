"""Requests as they arrive at a receiver: made by an owner, sent by the sender, over a real connection."""

from __future__ import annotations

import asyncio
import base64
import os
from dataclasses import dataclass

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.webhooks.model import DeliveryRow, SealedSecret, Status
from app.webhooks.owned import DeliveryOptions, OwnedWebhook
from app.webhooks.secrets import Secret
from app.webhooks.signing import SigningKey
from tests.support.sending import receiver, sender
from tests.support.webhooks import KEYS, webhook_row

EVENT = (
    '{"specversion":"1.0","id":"ev-1","source":"/vault/eu-1","type":"llm.data-vault.dataset.created",'
    '"data":{"dataset_id":"ds-1","name":"größe"}}'
).encode()


@dataclass(frozen=True)
class Arrived:
    """One request.

    Attributes:
        headers: By lower-case names.
        body: Its bytes.
    """

    headers: dict[str, str]
    body: bytes


def signing_key_entry(key_id: str) -> str:
    """A new key for v1a, as the settings have it."""
    private = Ed25519PrivateKey.generate()
    raw = private.private_bytes_raw() + private.public_key().public_bytes_raw()
    return f"{key_id}:whsk_{base64.b64encode(raw).decode()}"


def new_signing_key(key_id: str) -> SigningKey:
    """A new key for v1a."""
    return SigningKey(signing_key_entry(key_id))


def arrived(secrets: list[Secret], signing_key: SigningKey, at_ms: int) -> Arrived:
    """An attempt at this time, with these secrets, newest first, all of them valid."""
    return asyncio.run(_arrived(secrets, signing_key, at_ms))


async def _arrived(secrets: list[Secret], signing_key: SigningKey, at_ms: int) -> Arrived:
    seen: list[Arrived] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen.append(Arrived(headers, await request.read()))
        return web.Response(status=204)

    async with receiver(answer) as url, sender() as one:
        sealed = tuple(
            SealedSecret(sealed=KEYS.seal("wh_a", secret), valid_until_ms=None if newest else at_ms + 1)
            for newest, secret in zip([True] + [False] * len(secrets), secrets, strict=False)
        )
        row = webhook_row("wh_a", url=url, secrets=sealed, signatures=("v1", "v1a"))
        delivery = DeliveryRow(
            delivery_id="dlv_" + os.urandom(8).hex(),
            webhook_id="wh_a",
            event_id="ev-1",
            event_source="/vault/eu-1",
            event_type="llm.data-vault.dataset.created",
            status=Status.PENDING,
            created_at_ms=at_ms,
            waiting_since_ms=at_ms,
            expires_at_ms=at_ms + 1,
            body=EVENT,
        )
        request = OwnedWebhook(row, DeliveryOptions(), KEYS, signing_key).request(delivery, at_ms)
        assert (await one.post(request)).delivered
    return seen[0]
