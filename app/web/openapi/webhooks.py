"""Webhooks: their configuration, and what is done to them by name."""

from __future__ import annotations

from typing import Any, Final

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
    nullable,
    obj,
    path_id,
    query,
    ref,
    text,
)
from app.web.openapi.shared import (
    COUNT,
    CURSOR,
    EVENT_PATTERN,
    GIVEN_TIME,
    IDEMPOTENCY_KEY,
    IF_MATCH,
    LIMIT,
    MOMENT,
    SHOWN_PATTERN,
    TEXT,
    WEBHOOK_ID,
)
from app.webhooks.model import Standing

__all__ = ["WEBHOOKS", "WEBHOOK_CHANGES"]

_SCALAR: Final[Schema] = {"type": ["string", "number", "boolean", "null"]}
_VALUES: Final = array(_SCALAR, minItems=1, maxItems=100)
_TEXTS: Final = array(TEXT, minItems=1, maxItems=100)
_DATA: Final[Schema] = {
    "type": "object",
    "maxProperties": 20,
    "propertyNames": {"maxLength": 256, "pattern": r"^[^.]+(\.[^.]+)*$"},
    "additionalProperties": _VALUES,
    "description": "By dotted path; any of the values, exact in type.",
}
_FILTER: Final = {
    **obj({"tenant_id": _TEXTS, "dataset_id": _TEXTS, "data": _DATA}, ()),
    "description": "All parts must hold; an absent field holds nothing.",
}
_HEADER_NAME: Final[Schema] = {"pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"}
_HEADERS: Final[Schema] = {
    "type": "object",
    "maxProperties": 32,
    "propertyNames": _HEADER_NAME,
    "additionalProperties": {
        "type": "string",
        "maxLength": 4096,
        "pattern": "^[^\\u0000-\\u0008\\u000a-\\u001f\\u007f]*$",
    },
}
_SHOWN_HEADERS: Final = {**_HEADERS, "description": "Values that may be secret are ***."}
_SECRET: Final = text("whsec_[A-Za-z0-9+/]{32,88}={0,2}")
_SECRET_HINT: Final = {**TEXT, "description": "In place of the secret, where a repeated create does not show it."}
_EXAMPLE: Final = {"url": "https://example.com/hook", "events": ["dataset.*"]}

_FIELDS: Final[dict[str, Schema]] = {
    "url": {
        "type": "string",
        "maxLength": 2048,
        "pattern": "^https?://[^\\s\\\\@#]+$",
        "description": "https; no private address.",
    },
    "events": array(EVENT_PATTERN, minItems=1, maxItems=50),
    "description": {"type": "string", "minLength": 1, "maxLength": 1024},
    "headers": _HEADERS,
    "enabled": {"type": "boolean"},
    "filter": ref("Filter"),
    "retry_schedule_s": array({"type": "number", "minimum": 0, "maximum": 604_800}, minItems=1, maxItems=50),
    "timeout_s": {"type": "number", "minimum": 0.1, "maximum": 60},
    "rate_limit_per_s": {"type": "number", "minimum": 0.001, "maximum": 10_000},
    "max_in_flight": {"type": "integer", "minimum": 1, "description": "At most the setting of the deployment."},
    "ordering": {**enum("best_effort", "strict"), "description": "Whether a retried event may be overtaken."},
    "signatures": array(enum("v1", "v1a"), minItems=1),
    "handshake": {"type": "boolean", "description": "Ask the receiver for its permission (CloudEvents web hooks, 4)."},
}
_OPTIONAL: Final = ("description", "filter", "retry_schedule_s", "timeout_s", "rate_limit_per_s", "max_in_flight")
_HEALTH: Final = enum("ok", "failing", "disabled")
_SHOWN: Final[dict[str, Schema]] = {
    "id": WEBHOOK_ID,
    **_FIELDS,
    "events": array(SHOWN_PATTERN, minItems=1, maxItems=50),
    "headers": _SHOWN_HEADERS,
    "version": {"type": "integer", "minimum": 1, "description": "Counts changes of the configuration."},
    "health": _HEALTH,
    "standing": {
        **enum(*(one.value for one in Standing)),
        "description": (
            "The same as people are told of it: of one whose health is ok, but whose receiver has taken nothing yet at"
            " this URL, whether all that was sent to it has failed, or nothing is known."
        ),
    },
    "failing_since": {
        **MOMENT,
        "description": "The first failed attempt since the last success, as of the last change of health.",
    },
    "first_success_at": {**MOMENT, "description": "Not there: its receiver has taken nothing yet, at this URL."},
    "disabled_at": MOMENT,
    "disabled_reason": TEXT,
    "hold_until": MOMENT,
    "created_at": MOMENT,
    "updated_at": MOMENT,
}
_ALWAYS_SHOWN: Final = (
    "id", "url", "events", "headers", "enabled", "ordering", "signatures", "handshake", "version", "health",
    "standing", "created_at", "updated_at",
)  # fmt: skip
_SEARCH: Final = query("search", TEXT, "Part of the id, URL, description or a pattern, in any case.")
_OF_HEALTH: Final = query("health", _HEALTH, "Only those.")
_SHOWN_EXAMPLE: Final = {
    "id": "wh_ljzkxq2ctkeax5zkgp5v3ppuxe",
    "url": "https://example.com/hook",
    "events": ["dataset.*"],
    "headers": {"Authorization": "***", "X-Team": "data"},
    "enabled": True,
    "ordering": "best_effort",
    "signatures": ["v1"],
    "handshake": False,
    "version": 1,
    "health": "ok",
    "standing": "unknown",
    "created_at": "2026-01-31T12:00:00.000Z",
    "updated_at": "2026-01-31T12:00:00.000Z",
    "filter": {"tenant_id": ["t1"], "data": {"schema.name": ["x"]}},
}
_SCHEMAS: Final[dict[str, Schema]] = {
    "Filter": _FILTER,
    "Webhook": example(obj(_SHOWN, _ALWAYS_SHOWN), _SHOWN_EXAMPLE),
    "WebhookWithSecret": example(
        obj({**_SHOWN, "secret": _SECRET, "secret_hint": _SECRET_HINT}, _ALWAYS_SHOWN),
        {**_SHOWN_EXAMPLE, "secret": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="},
    ),
    "WebhookCreate": obj({**_FIELDS, "secret": _SECRET}, ("url", "events")),
    "WebhookPatch": {
        **obj({name: nullable(schema) if name in _OPTIONAL else schema for name, schema in _FIELDS.items()}, ()),
        "minProperties": 1,
    },
}
_ACTIVITY: Final = example(
    obj(
        {
            "since": {**MOMENT, "description": "What was before, this owner does not know."},
            "bucket_s": {"type": "integer", "minimum": 1},
            "buckets": array(obj({"at": MOMENT, "delivered": COUNT, "failed": COUNT}), minItems=12, maxItems=12),
            "in_flight": COUNT,
            "failures": {**COUNT, "description": "Attempts since the last success."},
            "blocked": {
                **nullable(enum("slot", "rate", "pace", "hold", "no_key")),
                "description": "Why no attempt may start now.",
            },
            "paced": {"type": "boolean", "description": "Attempts go one by one, as it only fails."},
        }
    ),
    {
        "since": "2026-01-31T12:00:00.000Z",
        "bucket_s": 300,
        "buckets": [{"at": f"2026-01-31T12:{at:02}:00.000Z", "delivered": 5, "failed": 1} for at in range(0, 60, 5)],
        "in_flight": 0,
        "failures": 0,
        "blocked": None,
        "paced": False,
    },
)
_ETAG: Final = {"ETag": header("The version.", text('"[1-9][0-9]*"'))}
_ID: Final = path_id("The id of the webhook.", "wh_aaaaaaaaaaaaaaaaaaaaaaaaaa")
_ONE: Final = answer("The webhook.", ref("Webhook"), headers=_ETAG)
_WITH_SECRET: Final = answer(
    "The webhook, with its secret, which is shown once.", ref("WebhookWithSecret"), headers=_ETAG
)
_CHANGE: Final = (400, 404, 409, 412, 413, 415, 503)
_NOTHING: Final = body(obj({}), required=False)

WEBHOOKS: Final = Area(
    "webhooks",
    {
        "/v1/webhooks": {
            "get": Operation(
                "listWebhooks",
                "All webhooks, oldest first",
                {200: answer("A page.", listing(ref("Webhook")))},
                (503,),
                parameters=(_SEARCH, _OF_HEALTH, CURSOR, LIMIT),
            ),
            "post": Operation(
                "createWebhook",
                "Make a webhook",
                {201: _WITH_SECRET},
                (400, 409, 413, 415, 503),
                "admin",
                (IDEMPOTENCY_KEY,),
                body(ref("WebhookCreate"), example=_EXAMPLE),
                "Answered when every router is about to match it: within a second of the 201. Repeated with its"
                " Idempotency-Key it shows the secret again for 15 minutes, unless the webhook was changed.",
            ),
        },
        "/v1/webhooks/{id}": {
            "get": Operation("showWebhook", "One webhook", {200: _ONE}, (404, 503), parameters=(_ID,)),
            "delete": Operation(
                "deleteWebhook",
                "Delete a webhook; what waits for it is cancelled",
                {204: answer("It is gone.")},
                (404, 409, 412, 415, 503),
                "admin",
                (_ID, IF_MATCH),
            ),
        },
    },
    _SCHEMAS,
)


def _change(name: str, summary: str, made: dict[str, Any] | None = None, **more: Any) -> dict[str, Operation]:
    return {
        "post": Operation(
            name, summary, {200: made or _ONE}, _CHANGE, "admin", (_ID, IF_MATCH), more.get("body", _NOTHING)
        )
    }


WEBHOOK_CHANGES: Final = Area(
    "webhooks",
    {
        "/v1/webhooks/{id}": {
            "patch": Operation(
                "changeWebhook",
                "Change what is given; null puts what is optional back to its default",
                {200: _ONE},
                _CHANGE,
                "admin",
                (_ID, IF_MATCH),
                body(ref("WebhookPatch"), example={"events": ["dataset.*", "version.created"]}),
            )
        },
        "/v1/webhooks/{id}/enable": _change("enableWebhook", "Serve it again"),
        "/v1/webhooks/{id}/disable": _change("disableWebhook", "Stop serving it; its events are noted as missed"),
        "/v1/webhooks/{id}/hold": _change(
            "holdWebhook",
            "Start no attempt before a time; null lifts it",
            body=body(obj({"until": nullable(GIVEN_TIME)}), example={"until": None}),
        ),
        "/v1/webhooks/{id}/rotate-secret": _change(
            "rotateSecret",
            "Make a new secret; the old one signs, too, for a while",
            _WITH_SECRET,
            body=body(
                obj({"overlap_s": {"type": "number", "minimum": 0, "maximum": 604_800, "default": 86_400}}, ()),
                required=False,
                example={"overlap_s": 3600},
            ),
        ),
        "/v1/webhooks/{id}/rekey": _change("rekeyWebhook", "Encrypt its secrets with the active key"),
        "/v1/webhooks/{id}/activity": {
            "get": Operation(
                "webhookActivity",
                "Its last hour, and what stands in the way of its next attempt",
                {200: answer("As its owner sees it.", ref("Activity"))},
                (404, 503),
                parameters=(_ID,),
            )
        },
        "/v1/webhooks/{id}/ping": {
            "post": Operation(
                "pingWebhook",
                "Send it an event that is made up",
                {202: answer("It is on its way.", ref("Ping"))},
                (400, 404, 409, 413, 415, 503),
                "admin",
                (_ID,),
                _NOTHING,
            )
        },
    },
    {
        "Activity": _ACTIVITY,
        "Ping": obj({"delivery_id": text("dlv_[a-z2-7]{26}"), "event_id": text("[0-9a-f-]{36}")}),
    },
)
