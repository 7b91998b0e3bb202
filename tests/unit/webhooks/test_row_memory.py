"""Ten thousand webhooks in memory: the rows of the owner and of the worker's copy of all share their texts."""

from __future__ import annotations

from typing import Any

from app.webhooks.model import SealedSecret, WebhookRow
from tables.webhooks import WEBHOOKS
from tests.support.webhooks import webhook_row


def texts(row: WebhookRow) -> list[str]:
    return [
        row.webhook_id,
        row.url,
        row.fingerprint or "",
        *row.events,
        *row.command_ids,
        *row.headers,
        *row.headers.values(),
        *(secret.sealed for secret in row.secrets),
    ]


def test_a_row_that_is_decoded_twice_has_its_texts_once() -> None:
    fields: dict[str, Any] = {
        "events": ("dataset.*", "version.*"),
        "command_ids": ("c-2", "c-1"),
        "headers": {"Authorization": "Bearer hunter2"},
        "fingerprint": "f" * 64,
        "secrets": (SealedSecret(sealed="k1:abc"), SealedSecret(sealed="k1:def", valid_until_ms=5)),
    }
    value = WEBHOOKS.encode(webhook_row("wh_a", **fields))

    one, other = WEBHOOKS.decode(value), WEBHOOKS.decode(value)

    assert one == other == webhook_row("wh_a", **fields)
    assert all(mine is theirs for mine, theirs in zip(texts(one), texts(other), strict=True))
    assert one.headers is not other.headers
