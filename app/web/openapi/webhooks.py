"""Webhooks: their configuration, and what is done to them by name."""

from __future__ import annotations

from typing import Any, Final

from app.web.openapi.building import Area, Operation, Schema, answer, array, body, listing, nullable, obj, path_id, ref
from app.web.openapi.shared import CURSOR, IDEMPOTENCY_KEY, IF_MATCH, LIMIT, TEXT, TIME

__all__ = ["KEYS", "MATCH", "WEBHOOKS", "WEBHOOK_CHANGES"]

_SCALAR: Final[Schema] = {"type": ["string", "number", "boolean", "null"]}
_VALUES: Final = array(_SCALAR, minItems=1, maxItems=100)
_TEXTS: Final = array(TEXT, minItems=1, maxItems=100)
_DATA: Final[Schema] = {"type": "object", "maxProperties": 20, "additionalProperties": _VALUES}
_FILTER: Final = obj({"tenant_id": _TEXTS, "dataset_id": _TEXTS, "data": _DATA}, ())
_EXAMPLE: Final = {"url": "https://example.com/hook", "events": ["dataset.*"]}
_NUMBER: Final[Schema] = {"type": "number"}

_FIELDS: Final[dict[str, Schema]] = {
    "url": {"type": "string", "minLength": 1, "maxLength": 2048, "description": "https; no private address."},
    "events": array(TEXT, minItems=1, maxItems=50),
    "description": {"type": "string", "minLength": 1, "maxLength": 1024},
    "headers": {"type": "object", "maxProperties": 32, "additionalProperties": {"type": "string", "maxLength": 4096}},
    "enabled": {"type": "boolean"},
    "filter": ref("Filter"),
    "retry_schedule_s": array({"type": "number", "minimum": 0}, minItems=1, maxItems=100),
    "timeout_s": {"type": "number", "minimum": 0.1, "maximum": 60},
    "rate_limit_per_s": {"type": "number", "minimum": 0.001, "maximum": 10000},
    "max_in_flight": {"type": "integer", "minimum": 1},
    "ordering": {"enum": ["best_effort", "strict"]},
    "signatures": array({"enum": ["v1", "v1a"]}, minItems=1),
    "handshake": {"type": "boolean"},
}
_OPTIONAL: Final = ("description", "filter", "retry_schedule_s", "timeout_s", "rate_limit_per_s", "max_in_flight")
_SHOWN: Final[dict[str, Schema]] = {
    "id": {"type": "string", "pattern": "^wh_[a-z2-7]{26}$"},
    **_FIELDS,
    "headers": {"type": "object", "additionalProperties": TEXT, "description": "Values of secret ones are ***."},
    "version": {"type": "integer", "minimum": 1},
    "health": {"enum": ["ok", "failing", "disabled"]},
    "failing_since": TIME,
    "disabled_at": TIME,
    "disabled_reason": TEXT,
    "hold_until": TIME,
    "created_at": TIME,
    "updated_at": TIME,
}
_ALWAYS_SHOWN: Final = (
    "id", "url", "events", "headers", "enabled", "ordering", "signatures", "handshake", "version", "health",
    "created_at", "updated_at",
)  # fmt: skip
_SECRET: Final[Schema] = {"type": "string", "pattern": "^whsec_"}

_SCHEMAS: Final[dict[str, Schema]] = {
    "Filter": _FILTER,
    "Webhook": obj(_SHOWN, _ALWAYS_SHOWN),
    "WebhookWithSecret": obj({**_SHOWN, "secret": _SECRET}, _ALWAYS_SHOWN),
    "WebhookCreate": obj({**_FIELDS, "secret": _SECRET}, ("url", "events")),
    "WebhookPatch": {
        **obj({name: nullable(schema) if name in _OPTIONAL else schema for name, schema in _FIELDS.items()}, ()),
        "minProperties": 1,
    },
}
_ETAG: Final = {"ETag": 'The version, such as "3".'}
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
                "All webhooks",
                {200: answer("A page.", listing(ref("Webhook")))},
                (503,),
                parameters=(CURSOR, LIMIT),
            ),
            "post": Operation(
                "createWebhook",
                "Make a webhook",
                {
                    201: answer(
                        "The webhook, with its secret, which is shown once.", ref("WebhookWithSecret"), headers=_ETAG
                    )
                },
                (400, 409, 413, 415, 503),
                "admin",
                (IDEMPOTENCY_KEY,),
                body(ref("WebhookCreate"), example=_EXAMPLE),
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
            body=body(obj({"until": nullable(TIME)}), example={"until": None}),
        ),
        "/v1/webhooks/{id}/rotate-secret": _change(
            "rotateSecret",
            "Make a new secret; the old one signs, too, for a while",
            _WITH_SECRET,
            body=body(
                obj({"overlap_s": {"type": "number", "minimum": 0, "maximum": 604_800, "default": 86_400}}, ()),
                required=False,
            ),
        ),
        "/v1/webhooks/{id}/rekey": _change("rekeyWebhook", "Encrypt its secrets with the active key"),
        "/v1/webhooks/{id}/ping": {
            "post": Operation(
                "pingWebhook",
                "Send it an event that is made up",
                {202: answer("It is on its way.", obj({"delivery_id": TEXT, "event_id": TEXT}))},
                (400, 404, 409, 413, 415, 503),
                "admin",
                (_ID,),
                _NOTHING,
            )
        },
    },
)

_EVENT: Final = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/vault",
    "type": "llm.data-vault.dataset.created",
    "data": {"dataset_id": "ds-1", "name": "x"},
}
MATCH: Final = Area(
    "webhooks",
    {
        "/v1/match": {
            "post": Operation(
                "match",
                "Which webhooks would get an event, and why the others would not; nothing is sent",
                {
                    200: answer(
                        "All webhooks.",
                        obj(
                            {
                                "items": array(
                                    obj(
                                        {
                                            "webhook_id": TEXT,
                                            "matched": {"type": "boolean"},
                                            "pattern": TEXT,
                                            "why_not": {"type": "string", "pattern": "^(pattern|disabled|filter:.+)$"},
                                        },
                                        ("webhook_id", "matched"),
                                    )
                                )
                            }
                        ),
                    )
                },
                (400, 413, 415, 503),
                body=body(
                    ref("CloudEvent"), kinds=("application/cloudevents+json", "application/json"), example=_EVENT
                ),
            )
        }
    },
    {
        "CloudEvent": obj(
            {"specversion": {"const": "1.0"}, "id": TEXT, "source": TEXT, "type": TEXT},
            open_=True,
        )
    },
)

KEYS: Final = Area(
    "webhooks",
    {
        "/.well-known/webhook-keys.json": {
            "get": Operation(
                "webhookKeys",
                "The public keys of v1a signatures (RFC 7517, RFC 8037), the one that signs first",
                {
                    200: answer(
                        "A JWK set.",
                        obj(
                            {
                                "keys": array(
                                    obj(
                                        {
                                            "kty": {"const": "OKP"},
                                            "crv": {"const": "Ed25519"},
                                            "kid": TEXT,
                                            "x": TEXT,
                                            "alg": {"const": "EdDSA"},
                                            "use": {"const": "sig"},
                                        }
                                    )
                                )
                            }
                        ),
                    )
                },
                role="public",
            )
        }
    },
)
