"""Events over HTTP (contracts 9.5)."""

from __future__ import annotations

from typing import Any, Final

from app.web.openapi.building import Area, Operation, Schema, answer, array, example, nullable, obj, ref, text
from app.web.openapi.match import EVENT
from app.web.openapi.shared import COUNT, PROBLEM_MEMBERS, TEXT, problem_answer

__all__ = ["EVENTS"]

_SINGLE: Final = ("application/cloudevents+json", "application/json")
_BATCH: Final[dict[str, Any]] = {
    "type": "array",
    "items": ref("CloudEvent"),
    "minItems": 1,
    "maxItems": 1000,
}
_SHOWN: Final = {
    "field": "/0",
    "index": 0,
    "id": "7d1c2a4e-1",
    "code": "invalid_data",
    "message": "data.dataset_id: is required",
}
_REFUSED: Final = example(
    {
        **obj(
            {
                "field": {
                    **text("(/[0-9]+)?(/[a-z0-9]+)?"),
                    "description": "A JSON pointer to it or to its wrong attribute; empty where it is the body.",
                },
                "index": {**COUNT, "description": "Which of the batch it is, from 0."},
                "id": {**nullable(TEXT), "description": "Its own, as far as that could be read."},
                "code": text("[a-z0-9_]+"),
                "message": TEXT,
            }
        ),
        "description": "An event that was not accepted, and why; the same whatever the status of the answer.",
    },
    _SHOWN,
)
_SCHEMAS: Final[dict[str, Schema]] = {
    "RefusedEvent": _REFUSED,
    "NoEventAccepted": {
        **obj({**PROBLEM_MEMBERS, "errors": array(ref("RefusedEvent"), minItems=1)}),
        "description": "A problem that names each event.",
    },
}
_EITHER: Final[Schema] = {"anyOf": [ref("NoEventAccepted"), ref("Problem")]}
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

_UNAVAILABLE: Final = "Kafka has acknowledged none of the events; send them again under the same ids."
_NOT_ACKNOWLEDGED: Final = {
    **_SHOWN,
    "code": "not_acknowledged",
    "message": "Kafka has not acknowledged it, and may have it all the same: send it again under the same id",
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
                        obj({"accepted": {"type": "integer", "minimum": 1}, "errors": array(ref("RefusedEvent"))}),
                    ),
                    422: problem_answer(
                        422,
                        _EITHER,
                        {
                            "detail": f"No event was accepted: {_SHOWN['message']}.",
                            "code": "invalid_data",
                            "errors": [_SHOWN],
                        },
                        "No event was accepted, each for the reason that is given; or a query parameter is not known.",
                    ),
                    503: problem_answer(
                        503,
                        _EITHER,
                        {"detail": _UNAVAILABLE, "code": "broker_unavailable", "errors": [_NOT_ACKNOWLEDGED]},
                        "Kafka has acknowledged none of the events, and may have them all the same.",
                    ),
                },
                (400, 413, 415),
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
    _SCHEMAS,
)
