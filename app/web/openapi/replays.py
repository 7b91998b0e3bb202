"""Replays: the log read again for one webhook."""

from __future__ import annotations

from typing import Final

from app.web.openapi.building import Area, Operation, Schema, answer, array, body, listing, nullable, obj, path_id, ref
from app.web.openapi.shared import COUNT, CURSOR, LIMIT, TEXT, TIME

__all__ = ["REPLAYS"]

_OFFSETS: Final[Schema] = {"type": "object", "additionalProperties": COUNT, "minProperties": 1}
_ONLY: Final[Schema] = {"enum": ["missed", "failed", "all"]}
_RATE: Final[Schema] = {"type": "number", "minimum": 0.001, "maximum": 100_000}
_REQUEST: Final[dict[str, Schema]] = {
    "since": TIME,
    "from_offset": _OFFSETS,
    "since_disabled": {"type": "boolean"},
    "until": TIME,
    "event_types": array(TEXT, maxItems=50),
    "only": _ONLY,
    "rate_per_s": _RATE,
    "request_id": {"type": "string", "minLength": 1, "maxLength": 255},
}
_SHOWN: Final[dict[str, Schema]] = {
    "id": TEXT,
    "webhook_id": TEXT,
    "state": {"enum": ["queued", "running", "done", "failed", "cancelled"]},
    **_REQUEST,
    **dict.fromkeys(("scanned", "matched", "skipped", "sent", "malformed", "gone", "total"), COUNT),
    "actor": TEXT,
    "created_at": TIME,
    "started_at": TIME,
    "ended_at": TIME,
    "waits_for": TEXT,
    "error": TEXT,
}
_ALWAYS: Final = (
    "id", "webhook_id", "state", "rate_per_s", "request_id", "scanned", "matched", "skipped", "sent", "malformed",
    "gone", "actor", "created_at",
)  # fmt: skip
_WEBHOOK: Final = path_id("The id of the webhook.", "wh_aaaaaaaaaaaaaaaaaaaaaaaaaa")
_ID: Final = path_id(
    "The id of the replay: its worker, a dot, a UUID.", "worker-1.0189f7ea-ae2c-7b2a-8d5f-000000000000"
)

REPLAYS: Final = Area(
    "replays",
    {
        "/v1/webhooks/{id}/replay": {
            "post": Operation(
                "replayWebhook",
                "Read the log again for this webhook: since a time, from offsets, or what it missed while disabled",
                {202: answer("It is queued, or has begun.", ref("Replay"), headers={"Location": "Where to look."})},
                (400, 404, 409, 413, 415, 429, 503),
                "admin",
                (_WEBHOOK,),
                body(
                    obj({name: nullable(schema) for name, schema in _REQUEST.items()}, ()),
                    example={"since": "2026-01-31T12:00:00Z", "only": "missed"},
                ),
            )
        },
        "/v1/replays": {
            "get": Operation(
                "listReplays",
                "Replays of all workers, newest first",
                {200: answer("A page.", listing(ref("Replay"), missing=array(TEXT)))},
                (503,),
                parameters=(CURSOR, LIMIT),
            )
        },
        "/v1/replays/{id}": {
            "get": Operation(
                "showReplay", "One replay", {200: answer("The replay.", ref("Replay"))}, (404, 503), parameters=(_ID,)
            ),
            "delete": Operation(
                "cancelReplay",
                "Cancel it; what was sent stays sent",
                {200: answer("The replay.", ref("Replay"))},
                (404, 415, 503),
                "admin",
                (_ID,),
            ),
        },
    },
    {"Replay": obj(_SHOWN, _ALWAYS)},
)
