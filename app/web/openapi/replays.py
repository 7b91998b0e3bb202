"""Replays: the log read again for one webhook."""

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
    header,
    listing,
    obj,
    path_id,
    ref,
    text,
)
from app.web.openapi.shared import (
    COUNT,
    CURSOR,
    EVENT_PATTERN,
    GIVEN_TIME,
    HOP,
    LIMIT,
    MOMENT,
    NUMBERS,
    SHOWN_PATTERN,
    TEXT,
    WEBHOOK_ID,
)

__all__ = ["REPLAYS"]

_OFFSETS: Final[Schema] = {
    "type": "object",
    "minProperties": 1,
    "propertyNames": {"pattern": "^[^/]+/[0-9]+$"},
    "additionalProperties": COUNT,
    "description": "By topic/partition; no other partition is read.",
}
_REQUEST: Final[dict[str, Schema]] = {
    "since": GIVEN_TIME,
    "from_offset": _OFFSETS,
    "since_disabled": {"type": "boolean"},
    "until": GIVEN_TIME,
    "event_types": array(EVENT_PATTERN, minItems=1, maxItems=50),
    "only": enum("missed", "failed", "all"),
    "rate_per_s": {"type": "number", "minimum": 0.001, "maximum": 100_000, "default": 1000},
    "request_id": {
        **text("[ -~]{1,255}"),
        "description": "What is asked for again under the same one is sent once.",
    },
}
_COUNTS: Final = {
    "total": "Offsets between its beginning and its end; absent until they are known.",
    "scanned": "Of those, how many lie behind it.",
    "matched": "Events that the webhook asks for and the request does not leave out.",
    "skipped": "Of the matched, those that it brings nobody: `only` leaves them out, or they were sent under the same"
    " request_id before, or are larger than a delivery may be and go to quarantine.",
    "sent": "The others of the matched, as far as it has come: given to the owner of the webhook to deliver.",
    "malformed": "Records that are no events, and in quarantine.",
    "gone": "Offsets that were asked for and that retention has taken.",
}
_SHOWN: Final[dict[str, Schema]] = {
    "id": text(".+\\.[0-9a-f-]{36}"),
    "webhook_id": WEBHOOK_ID,
    "state": enum("queued", "running", "done", "failed", "cancelled"),
    **_REQUEST,
    "since": MOMENT,
    "until": MOMENT,
    "event_types": array(SHOWN_PATTERN, minItems=1, maxItems=50),
    **{name: {**COUNT, "description": meaning} for name, meaning in _COUNTS.items()},
    "actor": TEXT,
    "created_at": MOMENT,
    "started_at": MOMENT,
    "ended_at": MOMENT,
    "waits_for": TEXT,
    "error": TEXT,
}
_ALWAYS: Final = (
    "id", "webhook_id", "state", "rate_per_s", "request_id", "scanned", "matched", "skipped", "sent", "malformed",
    "gone", "actor", "created_at",
)  # fmt: skip
_EXAMPLE: Final = {
    "id": "worker-1.0189f7ea-ae2c-4b2a-8d5f-000000000000",
    "webhook_id": "wh_ljzkxq2ctkeax5zkgp5v3ppuxe",
    "state": "running",
    "since": "2026-01-31T12:00:00.000Z",
    "rate_per_s": 1000.0,
    "request_id": "after-the-outage",
    "scanned": 40,
    "matched": 12,
    "skipped": 0,
    "sent": 12,
    "malformed": 0,
    "gone": 0,
    "total": 100,
    "actor": "admin",
    "created_at": "2026-01-31T14:00:00.000Z",
    "started_at": "2026-01-31T14:00:00.100Z",
}
_WEBHOOK: Final = path_id("The id of the webhook.", "wh_aaaaaaaaaaaaaaaaaaaaaaaaaa")
_ID: Final = path_id(
    "The id of the replay: its worker, a dot, a UUID.", "worker-1.0189f7ea-ae2c-4b2a-8d5f-000000000000"
)
_LOCATION: Final = header("Where to watch it.", text("/v1/replays/.+"))

REPLAYS: Final = Area(
    "replays",
    {
        "/v1/webhooks/{id}/replay": {
            "post": Operation(
                "replayWebhook",
                "Read the log again for this webhook: since a time, from offsets, or what it missed while disabled",
                {202: answer("It is queued, or has begun.", ref("Replay"), headers={"Location": _LOCATION})},
                (400, 404, 409, 413, 415, 429, 503),
                "admin",
                (_WEBHOOK, HOP),
                body(ref("ReplayRequest"), example={"since": "2025-01-31T12:00:00Z", "only": "all"}),
                "Give exactly one of since, from_offset and since_disabled: true.",
            )
        },
        "/v1/replays": {
            "get": Operation(
                "listReplays",
                "Replays of all workers, newest first",
                {200: answer("A page.", listing(ref("Replay"), missing=NUMBERS))},
                (503,),
                parameters=(CURSOR, LIMIT, HOP),
            )
        },
        "/v1/replays/{id}": {
            "get": Operation(
                "showReplay",
                "One replay",
                {200: answer("The replay.", ref("Replay"))},
                (404, 503),
                parameters=(_ID, HOP),
            ),
            "delete": Operation(
                "cancelReplay",
                "Cancel it; what was sent stays sent",
                {200: answer("The replay.", ref("Replay"))},
                (404, 415, 503),
                "admin",
                (_ID, HOP),
            ),
        },
    },
    {"Replay": example(obj(_SHOWN, _ALWAYS), _EXAMPLE), "ReplayRequest": obj(_REQUEST, ())},
)
