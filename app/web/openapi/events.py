"""Events over HTTP (contracts 9.5)."""

from __future__ import annotations

from typing import Any, Final

from app.web.openapi.building import Area, Operation, answer, array, nullable, obj, ref
from app.web.openapi.match import EVENT
from app.web.openapi.shared import TEXT

__all__ = ["EVENTS"]

_SINGLE: Final = ("application/cloudevents+json", "application/json")
_BATCH: Final[dict[str, Any]] = {
    "type": "array",
    "items": ref("CloudEvent"),
    "minItems": 1,
    "maxItems": 1000,
}
_ERROR: Final = obj({"index": {"type": "integer", "minimum": 0}, "id": nullable(TEXT), "code": TEXT, "message": TEXT})
_BODY: Final = {
    "required": True,
    "content": {
        **{
            kind: {"schema": {"oneOf": [ref("CloudEvent"), _BATCH]} if kind == _SINGLE[1] else ref("CloudEvent")}
            | {"example": EVENT}
            for kind in _SINGLE
        },
        "application/cloudevents-batch+json": {"schema": _BATCH, "example": [EVENT]},
    },
}

EVENTS: Final = Area(
    "events",
    {
        "/v1/events": {
            "post": Operation(
                "publishEvents",
                "Publish vault events by the CloudEvents HTTP binding: structured, binary, or a batch",
                {
                    202: answer(
                        "The broker has at least one; the others are named.",
                        obj({"accepted": {"type": "integer", "minimum": 1}, "errors": array(_ERROR)}),
                    )
                },
                (400, 413, 415, 503),
                role="admin",
                body=_BODY,
                description=(
                    "In binary mode the attributes are `ce-` headers and the body is the data, as application/json."
                    " 422 if no event was accepted: what the router would put into quarantine is refused here."
                    " Events of one key keep their order. After 503 send them again under the same ids."
                ),
            )
        }
    },
)
