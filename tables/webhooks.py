"""The table of webhooks: one row each, under its id; every worker keeps a copy in memory (architecture 2)."""

from __future__ import annotations

from app.engine import Table
from app.webhooks.model import WebhookRow

__all__ = ["WEBHOOKS", "WebhookRow", "webhook_key"]

WEBHOOKS = Table("webhooks", prefix=1, row=WebhookRow)


def webhook_key(webhook_id: str) -> bytes:
    """The row key of a webhook, which is its record key on every topic, too."""
    return webhook_id.encode()
