"""Components and parameters that several areas refer to."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from app.events import OperatorEventType, VaultEventType
from app.web.openapi.building import Schema, array, enum, example, header, obj, query, ref, text

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CODE", "COUNT", "CURSOR", "EVENT_PATTERN", "GIVEN_TIME", "HEADERS", "HOP", "IDEMPOTENCY_KEY", "IF_MATCH", "LIMIT",
    "MOMENT", "NUMBERS", "ORIGIN", "PROBLEM_MEMBERS", "RESPONSES", "SHARED", "SHOWN_PATTERN", "TEXT", "TIME",
    "WEBHOOK_ID",
]  # fmt: skip

PROBLEM: Final = "application/problem+json"

TEXT: Final[Schema] = {"type": "string"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
CODE: Final[Schema] = {"type": "integer", "minimum": 100, "maximum": 999}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
"""RFC 3339."""
GIVEN_TIME: Final[Schema] = {
    "type": "string",
    "anyOf": [{"format": "date-time"}, {"format": "date"}],
    "description": "RFC 3339, or a date, which is its midnight in UTC.",
}
"""As callers write it."""
MOMENT: Final[Schema] = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$",
}
"""As it is shown: in UTC, with milliseconds."""
WEBHOOK_ID: Final = text("wh_[a-z2-7]{26}")
ORIGIN: Final = {**text("([^/]+/[0-9]+/[0-9]+)?"), "description": "topic/partition/offset; empty for a ping."}
NUMBERS: Final = {**array(COUNT), "description": "The partitions whose owner did not answer."}

_NAMESPACE: Final = "llm.data-vault."
_TYPES: Final = [str(one) for one in (*VaultEventType, *OperatorEventType) if one is not OperatorEventType.WEBHOOK_PING]
_FAMILIES: Final = sorted({one.removeprefix(_NAMESPACE).partition(".")[0] + ".*" for one in _TYPES})
SHOWN_PATTERN: Final = enum("*", *_FAMILIES, *_TYPES)
# No list of all forms: a fuzzer would try each of a hundred, at each place.
EVENT_PATTERN: Final = {
    **text(r"(\*|(llm\.data-vault\.)?[a-z]+\.([a-z]+|\*))"),
    "examples": ["dataset.*", "dataset.created", "llm.data-vault.pii.detected", "*"],
    "description": "A type, in full or without `llm.data-vault.`; a family; or * for all types of the vault.",
}

CURSOR: Final = query("cursor", TEXT, "The next_cursor of the page before.")
LIMIT: Final = query(
    "limit", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}, "At most so many items."
)


def _given(name: str, description: str, schema: Schema, shown: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "schema": schema, "description": description, "example": shown}


IF_MATCH: Final = _given(
    "If-Match", "The ETag that the change is for, or *; 412 if it is another one by now.", TEXT, '"3"'
)
IDEMPOTENCY_KEY: Final = _given(
    "Idempotency-Key",
    "The same key, caller and body have the same effect once.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    "5f0c9d5e",
)
HOP: Final = _given(
    "Vault-Hop", "Set by a worker that passes the request on to the one that owns the row; not for callers.", TEXT, "1"
)

HEADERS: Final = {"RequestId": header("The caller's X-Request-Id, or one that was made.", TEXT)}
_RETRY: Final = {"Retry-After": header("Seconds.", COUNT)}

# The usual code of a status, an example of its detail, and the headers that it has.
_PROBLEMS: Final[dict[int, tuple[str, str, dict[str, Schema]]]] = {
    400: ("invalid_json", "The body cannot be read: empty.", {}),
    401: (
        "unauthorized",
        "Send the header Authorization: Bearer <token>.",
        {"WWW-Authenticate": header("RFC 6750, 3.", text("Bearer .+"))},
    ),
    403: ("forbidden", "This needs an admin token; a viewer token only reads.", {}),
    404: ("not_found", "There is no webhook of this id.", {}),
    409: ("conflict", "Another change came first; the webhook is at version 4 now.", {}),
    410: ("body_gone", "The event is neither at its origin any more nor in a dead letter.", {}),
    412: ("precondition_failed", "The webhook is at version 4 now; read it again.", {}),
    413: ("too_large", "The body is larger than this server reads.", {}),
    415: (
        "unsupported_media_type",
        "Send the body as JSON in UTF-8, with Content-Type: application/json.",
        {"Accept-Post": header("What can be sent.", TEXT)},
    ),
    422: ("invalid_query", "A query parameter is not understood.", {}),
    429: ("too_many_replays", "Too many replays wait at the owner of this webhook.", _RETRY),
    503: ("no_owner", "No worker owns the row at the moment. Try again.", _RETRY),
}
_NAMED: Final = {
    412: [{"field": "If-Match", "code": "precondition_failed", "message": '"4"'}],
    422: [{"field": "colour", "code": "unknown", "message": "one of cursor, limit"}],
}


def problem_answer(
    status: int, schema: Schema | None = None, shown: Mapping[str, Any] | None = None, description: str = ""
) -> dict[str, Any]:
    """The answer of a status from 400 up.

    Args:
        schema: Of its document, where it says more than any problem does.
        shown: Members of the example that are others than usual.
        description: Where the phrase of the status does not say enough.
    """
    code, detail, headers = _PROBLEMS[status]
    phrase = HTTPStatus(status).phrase
    example_ = {"type": "about:blank", "title": phrase, "status": status, "detail": detail, "code": code}
    if status in _NAMED:
        example_["errors"] = _NAMED[status]
    schema = {"allOf": [schema or ref("Problem"), {"properties": {"status": {"const": status}}}]}
    return {
        "description": description or phrase,
        "headers": {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}, **headers},
        "content": {PROBLEM: {"schema": schema, "example": {**example_, **(shown or {})}}},
    }


RESPONSES: Final = {f"Problem{status}": problem_answer(status) for status in _PROBLEMS}
PROBLEM_MEMBERS: Final[dict[str, Schema]] = {
    "type": {"const": "about:blank"},
    "title": TEXT,
    "status": {"type": "integer", "minimum": 400, "maximum": 599},
    "detail": {"type": "string", "minLength": 1},
    "code": {**text("[a-z0-9_]+"), "description": "The stable name."},
}
"""What every problem document has."""
SHARED: Final[dict[str, Schema]] = {
    "Problem": {
        **example(
            obj(
                {
                    **PROBLEM_MEMBERS,
                    "errors": array(
                        obj(
                            {
                                "field": {
                                    "type": "string",
                                    "description": "A JSON pointer into the body; or a parameter or header.",
                                },
                                "code": text("[a-z0-9_]+"),
                                "message": TEXT,
                            }
                        ),
                        minItems=1,
                    ),
                    "id": {"type": "string", "description": "With `unconfirmed`: what it is about."},
                    "setting": {
                        **text("VAULT_STREAM_[A-Z_]+"),
                        "description": "Of the workers. It ends this; time does not, whatever Retry-After says.",
                    },
                },
                tuple(PROBLEM_MEMBERS),
            ),
            {
                "type": "about:blank",
                "title": "Unprocessable Content",
                "status": 422,
                "detail": "/url: must be https; WEBHOOKS__ALLOW_HTTP can allow http",
                "code": "insecure_url",
                "errors": [
                    {
                        "field": "/url",
                        "code": "insecure_url",
                        "message": "must be https; WEBHOOKS__ALLOW_HTTP can allow http",
                    }
                ],
            },
        ),
        "description": "RFC 9457.",
    }
}
