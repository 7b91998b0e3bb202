"""Rows, intents and answers for the state table of a delivery."""

from __future__ import annotations

from typing import Any

from app.webhooks.delivery import (
    Answered,
    Arrived,
    Delivery,
    Step,
    Terms,
)
from app.webhooks.intents import Intent, IntentReason
from app.webhooks.model import DeliveryRow, Reason, Status, WebhookState
from app.webhooks.schedule import RetrySchedule

NOW = 1_750_000_000_000
TERMS = Terms(
    schedule=RetrySchedule((0, 5, 300)), history_ms=86_400_000, failed_history_ms=604_800_000, max_age_ms=600_000
)
BODY = b'{"id":"e1"}'
ENDED = (Status.DELIVERED, Status.FAILED, Status.MISSED, Status.CANCELLED)


def intent(**changes: Any) -> Intent:
    fields: dict[str, Any] = {
        "delivery_id": "dlv_1",
        "webhook_id": "wh_1",
        "reason": IntentReason.EVENT,
        "sequence": 7,
        "event_id": "e1",
        "event_source": "/vault",
        "event_type": "llm.data-vault.dataset.created",
        "body": BODY,
    }
    return Intent(**(fields | changes))


def row(status: Status = Status.PENDING, **changes: Any) -> DeliveryRow:
    waits = status.waits
    fields: dict[str, Any] = {
        "delivery_id": "dlv_1",
        "webhook_id": "wh_1",
        "event_id": "e1",
        "event_source": "/vault",
        "event_type": "llm.data-vault.dataset.created",
        "status": status,
        "created_at_ms": NOW,
        "waiting_since_ms": NOW,
        "next_at_ms": NOW if waits else None,
        "expires_at_ms": NOW + 600_000,
        "body": BODY if waits else None,
    }
    return DeliveryRow(**(fields | changes))


def arrived(
    *, webhook: WebhookState = WebhookState.ACTIVE, wait: Reason | None = None, next_at_ms: int = NOW, **changes: Any
) -> Arrived:
    return Arrived(intent(**changes), webhook, lambda: wait, next_at_ms)


def answered(status: int | None = 200, *, error: str | None = None, **changes: Any) -> Answered:
    if error is None and status is not None and not 200 <= status < 300:
        error = f"status_{status}"
    fields: dict[str, Any] = {
        "started_ms": NOW,
        "duration_ms": 12,
        "status_code": status,
        "error": error,
        "response_body": "",
        "retry_after_s": None,
        "webhook": WebhookState.ACTIVE,
        "uniform": lambda: 0.0,
    }
    return Answered(**(fields | changes))


def after(step: Step) -> DeliveryRow:
    assert step.after.row is not None
    return step.after.row


def in_flight(**changes: Any) -> Delivery:
    return Delivery(row(**changes), in_flight=True)
