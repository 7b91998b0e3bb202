"""What if, and the public keys: what receivers and their owners ask."""

from __future__ import annotations

from typing import Final

from app.web.openapi.building import Area, Operation, answer, array, body, example, header, obj, ref, text
from app.web.openapi.shared import SHOWN_PATTERN, TEXT, TIME, WEBHOOK_ID

__all__ = ["EVENT", "KEYS", "MATCH"]

EVENT: Final = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/vault",
    "type": "llm.data-vault.dataset.created",
    "data": {"dataset_id": "ds-1", "name": "x"},
}
_ATTRIBUTE: Final = {"type": "string", "minLength": 1}
_VERDICT: Final = obj(
    {
        "webhook_id": WEBHOOK_ID,
        "matched": {"type": "boolean"},
        "pattern": {**SHOWN_PATTERN, "description": "The narrowest that the event matches."},
        "why_not": {
            **text("(pattern|disabled|expired|filter:.+)"),
            "description": "expired: past its expirytime, so that it would go to the dead letters without an attempt.",
        },
    },
    ("webhook_id", "matched"),
)

MATCH: Final = Area(
    "webhooks",
    {
        "/v1/match": {
            "post": Operation(
                "match",
                "Which webhooks would get an event, and why the others would not; nothing is sent",
                {200: answer("All webhooks.", obj({"items": array(ref("Verdict"))}))},
                (400, 413, 415, 503),
                body=body(ref("CloudEvent"), kinds=("application/cloudevents+json", "application/json"), example=EVENT),
                description="422 says why the router would put the event into quarantine.",
            )
        }
    },
    {
        "Verdict": example(_VERDICT, {"webhook_id": "wh_" + "a" * 26, "matched": False, "why_not": "pattern"}),
        # Extensions are anything, so that this is open.
        "CloudEvent": obj(
            {
                "specversion": {"const": "1.0"},
                "id": _ATTRIBUTE,
                "source": _ATTRIBUTE,
                "type": _ATTRIBUTE,
                "subject": {"anyOf": [_ATTRIBUTE, {"type": "null"}]},
                "time": {"anyOf": [TIME, {"type": "null"}]},
            },
            ("specversion", "id", "source", "type"),
            open_=True,
        ),
    },
)

_KEY: Final = obj(
    {
        "kty": {"const": "OKP"},
        "crv": {"const": "Ed25519"},
        "kid": TEXT,
        "x": text("[A-Za-z0-9_-]{43}"),
        "alg": {"const": "EdDSA"},
        "use": {"const": "sig"},
    }
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
                        obj({"keys": array(_KEY)}),
                        headers={"Cache-Control": header("How long they may be kept.", TEXT)},
                    )
                },
                role="public",
            )
        }
    },
)
