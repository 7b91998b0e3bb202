"""What is published of an attempt, to the letter (contracts 9.1)."""

from __future__ import annotations

from typing import Any

import orjson

from app.webhooks.derived import Publisher
from app.webhooks.model import Attempt, AttemptResult, DeliveryRow, Status

AT_MS = 1_750_000_000_123
PUBLISHER = Publisher("/vault-stream/app", "worker-1")


def row(**changes: Any) -> DeliveryRow:
    fields: dict[str, Any] = {
        "delivery_id": "dlv_1",
        "webhook_id": "wh_1",
        "event_id": 'é"\n\u2028',
        "event_source": "/vault",
        "event_type": "llm.data-vault.dataset.created",
        "status": Status.DELIVERED,
        "created_at_ms": AT_MS,
        "waiting_since_ms": AT_MS,
        "expires_at_ms": AT_MS,
    }
    return DeliveryRow(**(fields | changes))


def test_an_attempt_that_delivered_says_neither_error_nor_next_time() -> None:
    attempt = Attempt(attempt=1, started_ms=AT_MS, duration_ms=7, result=AttemptResult.DELIVERED, status_code=204)

    assert PUBLISHER.attempted(row(), attempt).decode() == (
        '{"specversion":"1.0","id":"dlv_1-1-1750000000123","source":"/vault-stream/app",'
        '"type":"llm.vault-stream.webhook.attempted","subject":"wh_1","time":"2025-06-15T15:06:40.130Z",'
        '"datacontenttype":"application/json","data":{"delivery_id":"dlv_1","webhook_id":"wh_1",'
        '"event_id":"é\\"\\n\u2028","event_source":"/vault","event_type":"llm.data-vault.dataset.created","attempt":1,'
        '"started_at":"2025-06-15T15:06:40.123Z","duration_ms":7,"outcome":"delivered","status_code":204,'
        '"worker":"worker-1"}}'
    )


def test_one_that_failed_says_why_and_when_it_is_made_again_and_carries_the_trace() -> None:
    attempt = Attempt(
        attempt=2, started_ms=AT_MS, duration_ms=7, result=AttemptResult.RETRY, error="dns", next_at_ms=AT_MS + 5000
    )
    event = orjson.loads(PUBLISHER.attempted(row(traceparent="00-a-b-01", correlation_id="c1"), attempt))

    assert (event["traceparent"], event["correlationid"]) == ("00-a-b-01", "c1")
    assert list(event)[-3:] == ["traceparent", "correlationid", "data"]
    assert event["data"]["error"] == "dns"
    assert event["data"]["next_at"] == "2025-06-15T15:06:45.123Z"
    assert "status_code" not in event["data"]
