"""Values of custom headers that are credentials: shown to nobody, encrypted like secrets (contracts 2, Secrets).

One rule decides what the API masks, what the log holds only encrypted, and what is struck out of a kept answer. A row
and a command have the mask in place of such a value, and beside it the sealed one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.webhooks.commands import WebhookPatch
    from app.webhooks.model import WebhookRow
    from app.webhooks.secrets import KeyRing

__all__ = ["MASK", "is_credential", "masked", "open_headers", "reseal_headers", "seal_headers", "struck_out"]

MASK: Final = "***"
# Too much masked is no harm: whoever registers a header knows its value.
_NAME_PARTS: Final = (
    "auth",
    "credential",
    "jwt",
    "key",
    "pass",
    "pwd",
    "secret",
    "session",
    "signature",
    "token",
)
_VALUE_STARTS: Final = ("basic ", "bearer ", "digest ")
# What is shorter would be struck out of innocent words.
_MIN_STRUCK_CHARS: Final = 8


def is_credential(name: str, value: str) -> bool:
    """Whether the value of a custom header must be shown to nobody."""
    return any(part in name.lower() for part in _NAME_PARTS) or value.lower().startswith(_VALUE_STARTS)


def masked(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers as they may be shown."""
    return {name: MASK if is_credential(name, value) else value for name, value in headers.items()}


def seal_headers(patch: WebhookPatch, webhook_id: str, keys: KeyRing) -> WebhookPatch:
    """The patch as it may go into the log: credentials sealed for this webhook, and masked beside it.

    Raises:
        MissingKey: There is a credential and no key.
    """
    if patch.headers is msgspec.UNSET:
        return patch
    sealed = {
        name: keys.seal_header(webhook_id, name, value)
        for name, value in patch.headers.items()
        if is_credential(name, value)
    }
    return msgspec.structs.replace(patch, headers=masked(patch.headers), sealed_headers=sealed)


def open_headers(row: WebhookRow, keys: KeyRing) -> dict[str, str]:
    """The custom headers as they are sent.

    Raises:
        MissingKey: The key of one of them is not in the ring.
        UnreadableSecret: One of them is damaged, or belongs to another webhook or name.
    """
    opened = {name: keys.open_header(row.webhook_id, name, sealed) for name, sealed in row.sealed_headers.items()}
    return {**row.headers, **opened}


def reseal_headers(row: WebhookRow, keys: KeyRing) -> dict[str, str]:
    """The sealed headers under the active key; those that are already are left as they are.

    Raises:
        MissingKey: There is no key, or not the one of one of them.
        UnreadableSecret: As `open_headers`.
    """
    return {
        name: sealed
        if keys.is_active(sealed)
        else keys.seal_header(row.webhook_id, name, keys.open_header(row.webhook_id, name, sealed))
        for name, sealed in row.sealed_headers.items()
    }


def struck_out(body: bytes, headers: Mapping[str, str]) -> bytes:
    """An answer without the credentials that it repeats, as a receiver does that echoes the request in its errors."""
    for name, value in headers.items():
        if is_credential(name, value):
            # Of "Bearer x" the scheme is no secret, and the echo may be without it.
            for text in (value, value.rpartition(" ")[2]):
                if len(text) >= _MIN_STRUCK_CHARS:
                    body = body.replace(text.encode(), MASK.encode())
    return body
