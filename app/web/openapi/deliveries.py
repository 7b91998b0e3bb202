"""Deliveries, dead letters and quarantine."""

from __future__ import annotations

from typing import Final

from app.web.openapi.building import (
    Area,
    Operation,
    Schema,
    answer,
    array,
    body,
    listing,
    nullable,
    obj,
    path_id,
    query,
    ref,
)
from app.web.openapi.shared import COUNT, CURSOR, IDEMPOTENCY_KEY, LIMIT, TEXT, TIME

__all__ = ["DEAD_LETTERS", "DELIVERIES", "QUARANTINE", "RESEND"]

_STATUS: Final[Schema] = {"enum": ["pending", "retrying", "delivered", "failed", "missed", "cancelled"]}
_CODE: Final[Schema] = {"type": "integer", "minimum": 100, "maximum": 999}
_DELIVERY: Final[dict[str, Schema]] = {
    "id": {"type": "string", "pattern": "^dlv_[a-z2-7]{26}$"},
    "webhook_id": TEXT,
    "event_id": TEXT,
    "event_source": TEXT,
    "event_type": TEXT,
    "status": _STATUS,
    "in_flight": {"type": "boolean"},
    "reason": TEXT,
    "attempts": COUNT,
    "response_code": _CODE,
    "response_body": TEXT,
    "last_error": TEXT,
    "duration_ms": COUNT,
    "created_at": TIME,
    "next_attempt_at": TIME,
    "delivered_at": TIME,
    "origin": TEXT,
}
_ALWAYS: Final = (
    "id", "webhook_id", "event_id", "event_source", "event_type", "status", "in_flight", "attempts", "created_at",
    "origin",
)  # fmt: skip
_ATTEMPT: Final = obj(
    {
        "attempt": COUNT,
        "started_at": TIME,
        "duration_ms": COUNT,
        "outcome": {"enum": ["delivered", "retry", "failed"]},
        "status_code": _CODE,
        "error": TEXT,
        "next_at": TIME,
    },
    ("attempt", "started_at", "duration_ms", "outcome"),
)
_SENT: Final = obj({"delivery_id": TEXT, "request_id": TEXT})
_NOTHING: Final = body(obj({}), required=False)
_DELIVERY_ID: Final = path_id("The id of the delivery.", "dlv_aaaaaaaaaaaaaaaaaaaaaaaaaa")
_PLACE: Final = path_id("{partition}-{offset} in its topic.", "0-41")
_SINCE: Final = query("since", TIME, "At or after this time.")
_UNTIL: Final = query("until", TIME, "Before this time.")

DELIVERIES: Final = Area(
    "deliveries",
    {
        "/v1/deliveries": {
            "get": Operation(
                "listDeliveries",
                "Deliveries, newest first, of all workers",
                {
                    200: answer(
                        "A page; `missing` are the partitions whose owner did not answer.",
                        listing(ref("Delivery"), missing=array(COUNT)),
                    )
                },
                (503,),
                parameters=(
                    query("webhook_id", TEXT, "Of one webhook."),
                    query("status", _STATUS, "In this status."),
                    query("event_id", TEXT, "Of one event."),
                    _SINCE,
                    CURSOR,
                    LIMIT,
                ),
            )
        },
        "/v1/deliveries/{id}": {
            "get": Operation(
                "showDelivery",
                "One delivery, with its last 20 attempts",
                {200: answer("The delivery.", ref("DeliveryWithAttempts"))},
                (404, 503),
                parameters=(_DELIVERY_ID,),
            )
        },
    },
    {
        "Delivery": obj(_DELIVERY, _ALWAYS),
        "DeliveryWithAttempts": obj({**_DELIVERY, "attempt_log": array(_ATTEMPT)}, (*_ALWAYS, "attempt_log")),
    },
)

RESEND: Final = Area(
    "deliveries",
    {
        "/v1/deliveries/{id}/resend": {
            "post": Operation(
                "resendDelivery",
                "Make it again, with the same event, bytes and id",
                {202: answer("It is on its way.", _SENT)},
                (400, 404, 409, 410, 413, 415, 503),
                "admin",
                (_DELIVERY_ID, IDEMPOTENCY_KEY),
                _NOTHING,
            )
        }
    },
)

_GIVEN_UP: Final[Schema] = {"enum": ["exhausted", "rejected", "expired"]}
_LETTER: Final[dict[str, Schema]] = {
    "id": TEXT,
    "given_up_at": TIME,
    "delivery_id": TEXT,
    "webhook_id": TEXT,
    "event_id": TEXT,
    "event_source": TEXT,
    "event_type": TEXT,
    "reason": TEXT,
    "attempts": COUNT,
    "first_at": TIME,
    "last_at": TIME,
    "last_code": _CODE,
    "last_error": TEXT,
    "origin": TEXT,
}
_LETTER_ALWAYS: Final = (
    "id", "given_up_at", "delivery_id", "webhook_id", "reason", "attempts", "first_at", "last_at",
)  # fmt: skip
_LETTER_FILTER: Final[dict[str, Schema]] = {
    "webhook_id": TEXT,
    "reason": _GIVEN_UP,
    "event_type": TEXT,
    "since": TIME,
    "until": TIME,
}

DEAD_LETTERS: Final = Area(
    "dead letters",
    {
        "/v1/dead-letters": {
            "get": Operation(
                "listDeadLetters",
                "What was given up, newest first; of each delivery the last time",
                {200: answer("A page.", listing(ref("DeadLetter")))},
                (503,),
                parameters=(
                    *(query(name, schema, "Only these.") for name, schema in _LETTER_FILTER.items()),
                    CURSOR,
                    LIMIT,
                ),
            )
        },
        "/v1/dead-letters/resend": {
            "post": Operation(
                "resendDeadLetters",
                "Make those of a filter again, some hundred a request",
                {
                    202: answer(
                        "What is on its way, and what cannot be sent.",
                        obj(
                            {
                                "resent": array(TEXT),
                                "refused": array(obj({"id": TEXT, "delivery_id": TEXT, "code": TEXT})),
                                "next_cursor": {"type": ["string", "null"]},
                            }
                        ),
                    )
                },
                (400, 413, 415, 503),
                "admin",
                (IDEMPOTENCY_KEY,),
                body(
                    obj(
                        {
                            **{name: nullable(schema) for name, schema in _LETTER_FILTER.items()},
                            "all": {"type": "boolean"},
                            "cursor": nullable(TEXT),
                        },
                        (),
                    ),
                    example={"reason": "exhausted"},
                ),
            )
        },
        "/v1/dead-letters/{id}": {
            "get": Operation(
                "showDeadLetter",
                "One dead letter, with its event",
                {200: answer("The dead letter.", ref("DeadLetterWithEvent"))},
                (404, 503),
                parameters=(_PLACE,),
            )
        },
        "/v1/dead-letters/{id}/resend": {
            "post": Operation(
                "resendDeadLetter",
                "Make its delivery again, with the same event, bytes and id",
                {202: answer("It is on its way.", _SENT)},
                (400, 404, 409, 410, 413, 415, 503),
                "admin",
                (_PLACE, IDEMPOTENCY_KEY),
                _NOTHING,
            )
        },
    },
    {
        "DeadLetter": obj(_LETTER, _LETTER_ALWAYS),
        "DeadLetterWithEvent": obj({**_LETTER, "event": {"type": ["object", "null"]}}, (*_LETTER_ALWAYS, "event")),
    },
)

_BYTES: Final[Schema] = {"anyOf": [TEXT, obj({"base64": TEXT}), {"type": "null"}]}
_WHEN: Final[Schema] = {"type": ["string", "integer"]}
_REASON: Final[Schema] = {
    "enum": ["invalid_envelope", "invalid_data", "unknown_type", "too_large", "handler_error", "rejected_upstream"]
}
_ENTRY: Final[dict[str, Schema]] = {
    "id": TEXT,
    "quarantined_at": _WHEN,
    "reason": TEXT,
    "detail": TEXT,
    "agent": TEXT,
    "type": {"type": ["string", "null"]},
    "origin": TEXT,
    "first_origin": TEXT,
    "timestamp": _WHEN,
    "truncated": {"type": ["integer", "null"]},
}
_ENTRY_FILTER: Final[dict[str, Schema]] = {
    "reason": _REASON,
    "agent": TEXT,
    "type": TEXT,
    "topic": TEXT,
    "origin": TEXT,
    "since": TIME,
    "until": TIME,
}
_PLACES: Final[Schema] = {"type": "object", "additionalProperties": TEXT}

QUARANTINE: Final = Area(
    "quarantine",
    {
        "/v1/quarantine": {
            "get": Operation(
                "listQuarantine",
                "Records that could not be processed, newest first; each once",
                {200: answer("A page.", listing(ref("Quarantined")))},
                (503,),
                parameters=(
                    *(query(name, schema, "Only these.") for name, schema in _ENTRY_FILTER.items()),
                    CURSOR,
                    LIMIT,
                ),
            )
        },
        "/v1/quarantine/republish": {
            "post": Operation(
                "republishQuarantine",
                "Put those of a filter back where they came from, or say what would be put back",
                {
                    200: answer(
                        "What was put back, and where; or what would be.",
                        {
                            "oneOf": [
                                obj({"republished": _PLACES, "refused": _PLACES}),
                                obj(
                                    {
                                        "would_republish": COUNT,
                                        "of": array(
                                            obj({"topic": TEXT, "reason": TEXT, "agent": TEXT, "records": COUNT})
                                        ),
                                    }
                                ),
                            ]
                        },
                    )
                },
                (400, 409, 413, 415, 503),
                "admin",
                body=body(
                    obj(
                        {
                            **{name: nullable(schema) for name, schema in _ENTRY_FILTER.items()},
                            "all": {"type": "boolean"},
                            "dry_run": {"type": "boolean"},
                        },
                        (),
                    ),
                    example={"agent": "router", "reason": "handler_error", "dry_run": True},
                ),
            )
        },
        "/v1/quarantine/{id}": {
            "get": Operation(
                "showQuarantined",
                "One record, with the key, headers and bytes that it came with",
                {200: answer("The record.", ref("QuarantinedWithBytes"))},
                (404, 503),
                parameters=(_PLACE,),
            )
        },
        "/v1/quarantine/{id}/republish": {
            "post": Operation(
                "republishQuarantined",
                "Put it back where it came from",
                {200: answer("Where it stands now.", obj({"id": TEXT, "to": TEXT}))},
                (400, 404, 409, 413, 415, 503),
                "admin",
                (_PLACE,),
                _NOTHING,
            )
        },
    },
    {
        "Quarantined": obj(_ENTRY),
        "QuarantinedWithBytes": obj(
            {**_ENTRY, "key": _BYTES, "headers": array(obj({"name": TEXT, "value": _BYTES})), "value": _BYTES}
        ),
    },
)
