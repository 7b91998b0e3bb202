"""Components and parameters that several areas refer to."""

from __future__ import annotations

from typing import Final

from app.web.openapi.building import Schema, array, header, obj, query

__all__ = [
    "COUNT", "CURSOR", "IDEMPOTENCY_KEY", "IF_MATCH", "LIMIT", "SHARED", "TEXT", "TIME",
]  # fmt: skip

TEXT: Final[Schema] = {"type": "string"}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}

CURSOR: Final = query("cursor", TEXT, "The next_cursor of the page before.")
LIMIT: Final = query(
    "limit", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}, "At most so many items."
)
IF_MATCH: Final = header("If-Match", 'The ETag that the change is for, such as "3"; 412 if it is another by now.')
IDEMPOTENCY_KEY: Final = header(
    "Idempotency-Key",
    "The same key, caller and body have the same effect once.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
)

SHARED: Final[dict[str, Schema]] = {
    "Problem": {
        **obj(
            {
                "type": {"const": "about:blank"},
                "title": TEXT,
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": TEXT,
                "code": {"type": "string", "pattern": "^[a-z0-9_]+$"},
                "errors": array(obj({"field": TEXT, "code": TEXT, "message": TEXT})),
            },
            ("type", "title", "status", "detail", "code"),
            open_=True,
        ),
        "description": "RFC 9457; `code` is the stable name.",
    }
}
