"""Deliveries, from all workers."""

from __future__ import annotations

from typing import Final

from app.web.openapi.building import (
    Area,
    Operation,
    Schema,
    answer,
    array,
    body,
    enum,
    example,
    listing,
    obj,
    path_id,
    query,
    ref,
    text,
)
from app.web.openapi.shared import (
    CODE,
    COUNT,
    CURSOR,
    GIVEN_TIME,
    HOP,
    IDEMPOTENCY_KEY,
    LIMIT,
    MOMENT,
    NUMBERS,
    ORIGIN,
    TEXT,
    WEBHOOK_ID,
)

__all__ = ["DELIVERIES", "DELIVERY_ID", "ERROR", "RESEND", "SENT"]

DELIVERY_ID: Final = text("dlv_[a-z2-7]{26}")
ERROR: Final = text("(dns|connect|tls|timeout|reset|too_large|forbidden_target|no_key|status_[0-9]{3})")
_STATUS: Final = enum("pending", "retrying", "delivered", "failed", "missed", "cancelled")
_REASON: Final = enum(
    "slot", "rate", "pace", "hold", "order", "no_key", "retry", "resend", "exhausted", "rejected", "gone", "expired"
)
_DELIVERY: Final[dict[str, Schema]] = {
    "id": DELIVERY_ID,
    "webhook_id": WEBHOOK_ID,
    "event_id": TEXT,
    "event_source": TEXT,
    "event_type": TEXT,
    "status": _STATUS,
    "in_flight": {"type": "boolean", "description": "Whether a POST is under way."},
    "reason": {**_REASON, "description": "Why it waits, or why it failed."},
    "attempts": COUNT,
    "response_code": CODE,
    "response_body": TEXT,
    "last_error": ERROR,
    "duration_ms": COUNT,
    "created_at": MOMENT,
    "next_attempt_at": MOMENT,
    "delivered_at": MOMENT,
    "origin": ORIGIN,
}
_ALWAYS: Final = (
    "id", "webhook_id", "event_id", "event_source", "event_type", "status", "in_flight", "attempts", "created_at",
    "origin",
)  # fmt: skip
_ATTEMPT: Final = obj(
    {
        "attempt": {"type": "integer", "minimum": 1},
        "started_at": MOMENT,
        "duration_ms": COUNT,
        "outcome": enum("delivered", "retry", "failed"),
        "status_code": CODE,
        "error": ERROR,
        "next_at": MOMENT,
    },
    ("attempt", "started_at", "duration_ms", "outcome"),
)
_EXAMPLE: Final = {
    "id": "dlv_cdnc4hfc34sc5iqkpnusbyy4ou",
    "webhook_id": "wh_ljzkxq2ctkeax5zkgp5v3ppuxe",
    "event_id": "e-1",
    "event_source": "/vault",
    "event_type": "llm.data-vault.dataset.created",
    "status": "retrying",
    "in_flight": False,
    "reason": "retry",
    "attempts": 1,
    "response_code": 503,
    "response_body": "later",
    "last_error": "status_503",
    "duration_ms": 31,
    "created_at": "2026-01-31T12:00:00.000Z",
    "next_attempt_at": "2026-01-31T12:00:05.310Z",
    "origin": "vault.llm-data-vault-dataset-created/3/41",
}
_TRIED: Final = {
    "attempt": 1,
    "started_at": "2026-01-31T12:00:00.004Z",
    "duration_ms": 31,
    "outcome": "retry",
    "status_code": 503,
    "error": "status_503",
    "next_at": "2026-01-31T12:00:05.310Z",
}
SENT: Final = answer(
    "It is on its way.", obj({"delivery_id": DELIVERY_ID, "request_id": {"type": "string", "minLength": 1}})
)
_ID: Final = path_id("The id of the delivery.", "dlv_aaaaaaaaaaaaaaaaaaaaaaaaaa")

DELIVERIES: Final = Area(
    "deliveries",
    {
        "/v1/deliveries": {
            "get": Operation(
                "listDeliveries",
                "Deliveries, newest first, of all workers",
                {200: answer("A page.", listing(ref("Delivery"), missing=NUMBERS))},
                (503,),
                parameters=(
                    query("webhook_id", TEXT, "Of one webhook."),
                    query("status", _STATUS, "In this status."),
                    query("event_id", TEXT, "Of one event."),
                    query("since", GIVEN_TIME, "At or after this time."),
                    CURSOR,
                    LIMIT,
                    HOP,
                ),
            )
        },
        "/v1/deliveries/{id}": {
            "get": Operation(
                "showDelivery",
                "One delivery, with its last 20 attempts",
                {200: answer("The delivery.", ref("DeliveryWithAttempts"))},
                (404, 503),
                parameters=(_ID, HOP),
            )
        },
    },
    {
        "Delivery": example(obj(_DELIVERY, _ALWAYS), _EXAMPLE),
        "DeliveryWithAttempts": example(
            obj({**_DELIVERY, "attempt_log": array(_ATTEMPT, maxItems=20)}, (*_ALWAYS, "attempt_log")),
            {**_EXAMPLE, "attempt_log": [_TRIED]},
        ),
    },
)

RESEND: Final = Area(
    "deliveries",
    {
        "/v1/deliveries/{id}/resend": {
            "post": Operation(
                "resendDelivery",
                "Make it again, with the same event, bytes and id",
                {202: SENT},
                (400, 404, 409, 410, 413, 415, 503),
                "admin",
                (_ID, IDEMPOTENCY_KEY, HOP),
                body(obj({}), required=False),
            )
        }
    },
)
