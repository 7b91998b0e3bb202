"""What was given up, and what could not be read: dead letters and quarantine."""

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
    nullable,
    obj,
    path_id,
    query,
    ref,
    text,
)
from app.web.openapi.deliveries import DELIVERY_ID, ERROR, SENT
from app.web.openapi.shared import (
    CODE,
    COUNT,
    CURSOR,
    GIVEN_TIME,
    IDEMPOTENCY_KEY,
    LIMIT,
    MOMENT,
    ORIGIN,
    TEXT,
    WEBHOOK_ID,
)

__all__ = ["DEAD_LETTERS", "QUARANTINE"]

_PLACE: Final = text("[0-9]+-[0-9]+")
_ID: Final = path_id("{partition}-{offset} in its topic.", "0-41")
_NOTHING: Final = body(obj({}), required=False)
_NEXT: Final[Schema] = {"type": ["string", "null"], "description": "There may be more: ask again with it as cursor."}
_GIVEN_UP: Final = enum("exhausted", "rejected", "expired")
_LETTER: Final[dict[str, Schema]] = {
    "id": _PLACE,
    "given_up_at": MOMENT,
    "delivery_id": DELIVERY_ID,
    "webhook_id": WEBHOOK_ID,
    "event_id": TEXT,
    "event_source": TEXT,
    "event_type": TEXT,
    "event_expires_at": {**MOMENT, "description": "The event's own expirytime; after it, it is not sent again."},
    "reason": _GIVEN_UP,
    "attempts": COUNT,
    "first_at": MOMENT,
    "last_at": MOMENT,
    "last_code": CODE,
    "last_error": ERROR,
    "origin": ORIGIN,
}
_LETTER_ALWAYS: Final = (
    "id", "given_up_at", "delivery_id", "webhook_id", "reason", "attempts", "first_at", "last_at", "origin",
)  # fmt: skip
_LETTER_FILTER: Final[dict[str, Schema]] = {
    "webhook_id": TEXT,
    "reason": _GIVEN_UP,
    "event_type": TEXT,
    "since": GIVEN_TIME,
    "until": GIVEN_TIME,
}
_LETTER_EXAMPLE: Final = {
    "id": "0-41",
    "given_up_at": "2026-01-31T12:00:00.000Z",
    "delivery_id": "dlv_cdnc4hfc34sc5iqkpnusbyy4ou",
    "webhook_id": "wh_ljzkxq2ctkeax5zkgp5v3ppuxe",
    "event_id": "e-1",
    "event_source": "/vault",
    "event_type": "llm.data-vault.dataset.created",
    "reason": "exhausted",
    "attempts": 10,
    "first_at": "2026-01-28T08:00:00.000Z",
    "last_at": "2026-01-31T12:00:00.000Z",
    "last_code": 503,
    "last_error": "status_503",
    "origin": "vault.llm-data-vault-dataset-created/3/41",
}


def _queries(filter_: dict[str, Schema]) -> list[dict[str, object]]:
    return [query(name, schema, _TOLD.get(name, f"Of this {name}.")) for name, schema in filter_.items()]


def _chosen(filter_: dict[str, Schema], **more: Schema) -> Schema:
    """A filter in a body; all: true stands for none."""
    return obj({**{name: nullable(schema) for name, schema in filter_.items()}, "all": {"type": "boolean"}, **more}, ())


_TOLD: Final = {
    "since": "At or after this time.",
    "until": "Before this time.",
    "event_type": "Of this type, in full or without `llm.data-vault.`.",
    "type": "Of this type, in full or without `llm.data-vault.`.",
    "origin": "With this origin: topic/partition/offset.",
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
                parameters=(*_queries(_LETTER_FILTER), CURSOR, LIMIT),
            )
        },
        "/v1/dead-letters/resend": {
            "post": Operation(
                "resendDeadLetters",
                "Make those of a filter again, some hundred a request",
                {202: answer("What is on its way, and what cannot be sent.", ref("Resent"))},
                (400, 413, 415, 503),
                "admin",
                (IDEMPOTENCY_KEY,),
                body(_chosen(_LETTER_FILTER, cursor=nullable(TEXT)), example={"reason": "exhausted"}),
            )
        },
        "/v1/dead-letters/{id}": {
            "get": Operation(
                "showDeadLetter",
                "One dead letter, with its event",
                {200: answer("The dead letter.", ref("DeadLetterWithEvent"))},
                (404, 503),
                parameters=(_ID,),
            )
        },
        "/v1/dead-letters/{id}/resend": {
            "post": Operation(
                "resendDeadLetter",
                "Make its delivery again, with the same event, bytes and id",
                {202: SENT},
                (400, 404, 409, 410, 413, 415, 503),
                "admin",
                (_ID, IDEMPOTENCY_KEY),
                _NOTHING,
            )
        },
    },
    {
        "DeadLetter": example(obj(_LETTER, _LETTER_ALWAYS), _LETTER_EXAMPLE),
        "DeadLetterWithEvent": obj({**_LETTER, "event": {"type": ["object", "null"]}}, (*_LETTER_ALWAYS, "event")),
        "Resent": obj(
            {
                "resent": array(DELIVERY_ID),
                "refused": array(
                    obj(
                        {
                            "id": _PLACE,
                            "delivery_id": DELIVERY_ID,
                            "code": enum("webhook_gone", "disabled", "expired", "body_gone"),
                        }
                    )
                ),
                "next_cursor": _NEXT,
            }
        ),
    },
)

_BYTES: Final[Schema] = {
    "anyOf": [TEXT, obj({"base64": TEXT}), {"type": "null"}],
    "description": "Text where it is text.",
}
_WHEN: Final[Schema] = {
    "anyOf": [MOMENT, {"type": "integer"}],
    "description": "Milliseconds where they are no time of the years 1 to 9999.",
}
_REASON: Final = enum(
    "invalid_envelope", "invalid_data", "unknown_type", "too_large", "handler_error", "rejected_upstream"
)
_ENTRY: Final[dict[str, Schema]] = {
    "id": _PLACE,
    "quarantined_at": _WHEN,
    "reason": _REASON,
    "detail": TEXT,
    "agent": TEXT,
    "type": {"type": ["string", "null"]},
    "origin": ORIGIN,
    "first_origin": ORIGIN,
    "timestamp": _WHEN,
    "truncated": {"type": ["integer", "null"], "description": "The length of the whole, of which a part was kept."},
}
_ENTRY_FILTER: Final[dict[str, Schema]] = {
    "reason": _REASON,
    "agent": TEXT,
    "type": TEXT,
    "topic": TEXT,
    "origin": TEXT,
    "since": GIVEN_TIME,
    "until": GIVEN_TIME,
}
_ENTRY_EXAMPLE: Final = {
    "id": "0-41",
    "quarantined_at": "2026-01-31T12:00:00.000Z",
    "reason": "invalid_data",
    "detail": "dataset_id is missing",
    "agent": "router",
    "type": "llm.data-vault.dataset.created",
    "origin": "vault.llm-data-vault-dataset-created/3/41",
    "first_origin": "vault.llm-data-vault-dataset-created/3/41",
    "timestamp": "2026-01-31T12:00:00.000Z",
    "truncated": None,
}
_COUNTED: Final = array(obj({"topic": TEXT, "reason": _REASON, "agent": TEXT, "records": COUNT}))
_PLACES: Final[Schema] = {"type": "object", "propertyNames": _PLACE, "additionalProperties": TEXT}

QUARANTINE: Final = Area(
    "quarantine",
    {
        "/v1/quarantine": {
            "get": Operation(
                "listQuarantine",
                "Records that could not be processed, newest first; each once",
                {200: answer("A page.", listing(ref("Quarantined")))},
                (503,),
                parameters=(*_queries(_ENTRY_FILTER), CURSOR, LIMIT),
            )
        },
        "/v1/quarantine/republish": {
            "post": Operation(
                "republishQuarantine",
                "Put those of a filter back where they came from, or say what would be put back",
                {200: answer("What was put back, and where; or what would be.", ref("Republished"))},
                (400, 409, 413, 415, 503),
                "admin",
                body=body(
                    _chosen(_ENTRY_FILTER, dry_run={"type": "boolean"}),
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
                parameters=(_ID,),
            )
        },
        "/v1/quarantine/{id}/republish": {
            "post": Operation(
                "republishQuarantined",
                "Put it back where it came from",
                {200: answer("Where it stands now.", obj({"id": _PLACE, "to": TEXT}))},
                (400, 404, 409, 413, 415, 503),
                "admin",
                (_ID,),
                _NOTHING,
            )
        },
    },
    {
        "Quarantined": example(obj(_ENTRY), _ENTRY_EXAMPLE),
        "QuarantinedWithBytes": obj(
            {**_ENTRY, "key": _BYTES, "headers": array(obj({"name": TEXT, "value": _BYTES})), "value": _BYTES}
        ),
        "Republished": {
            "oneOf": [
                obj({"republished": _PLACES, "refused": _PLACES}),
                obj({"would_republish": COUNT, "of": _COUNTED, "refused": _PLACES}),
            ]
        },
    },
)
