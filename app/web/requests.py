"""Reading requests: bodies and query parameters, refused in the words of a problem document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from app.web.problems import FieldError, Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from aiohttp import web

__all__ = ["fields_of", "idempotency_key", "json_body", "page_limit", "query_of", "require_json_type"]

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200
MAX_KEY_CHARS: Final = 255


def require_json_type(request: web.Request) -> None:
    """Refuse a body that does not say that it is JSON.

    Raises:
        Problem: 415.
    """
    if not request.can_read_body:
        return
    kind = request.content_type.lower()
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return
    raise Problem(
        415,
        "unsupported_media_type",
        "Send the body as JSON, with Content-Type: application/json.",
        headers={"Accept-Post": "application/json"},
    )


async def json_body(request: web.Request) -> Any:
    """The body as a JSON value.

    Raises:
        Problem: 400, it is no JSON or is empty.
        aiohttp.web.HTTPRequestEntityTooLarge: It is larger than the server reads; becomes 413.
    """
    raw = await request.read()
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if raw else "empty"
        raise Problem(400, "invalid_json", f"The body is no JSON ({where}).") from None


async def fields_of(request: web.Request, known: Collection[str]) -> dict[str, Any]:
    """The fields of a body that may be left out.

    Raises:
        Problem: 400, it is no JSON; 422 naming the field that is unknown, or that it is no object.
    """
    if not await request.read():
        return {}
    body = await json_body(request)
    if not isinstance(body, dict):
        error = FieldError("", "invalid", "an object")
        raise Problem(422, "invalid_field", "The body must be an object.", errors=[error])
    errors = [
        FieldError(f"/{name}", "unknown", f"one of {', '.join(known) or 'none'}") for name in body if name not in known
    ]
    if errors:
        raise Problem(422, "invalid_field", "A field of the body is not understood.", errors=errors)
    return body


def idempotency_key(request: web.Request) -> str | None:
    """The header `Idempotency-Key`, None without one.

    Raises:
        Problem: 422, it is no short word, or is there twice.
    """
    keys = request.headers.getall("Idempotency-Key", [])
    if not keys:
        return None
    (key, *more) = keys
    if more or not 1 <= len(key) <= MAX_KEY_CHARS or not (key.isascii() and key.isprintable()):
        field = FieldError("Idempotency-Key", "invalid", f"one of 1 to {MAX_KEY_CHARS} printable ASCII characters")
        raise Problem(422, "invalid_header", "A header is not understood.", errors=[field])
    return key


def query_of(request: web.Request, known: Collection[str]) -> dict[str, str]:
    """The query parameters, each at most once.

    Raises:
        Problem: 422 naming each parameter that is unknown or repeated.
    """
    errors: list[FieldError] = []
    for name in dict.fromkeys(request.query):
        if name not in known:
            errors.append(FieldError(name, "unknown", f"one of {', '.join(known) or 'none'}"))
        elif len(request.query.getall(name)) > 1:
            errors.append(FieldError(name, "repeated", "give it once"))
    if errors:
        raise Problem(422, "invalid_query", "A query parameter is not understood.", errors=errors)
    return dict(request.query)


def page_limit(query: Mapping[str, str]) -> int:
    """How many items a page of a list has: `limit`, 1 to 200, 50 unless said.

    Raises:
        Problem: 422.
    """
    text = query.get("limit")
    if text is None:
        return DEFAULT_LIMIT
    if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LIMIT)) and 1 <= int(text) <= MAX_LIMIT:
        return int(text)
    error = FieldError("limit", "out_of_range", f"an integer from 1 to {MAX_LIMIT}")
    raise Problem(422, "invalid_query", "A query parameter is not understood.", errors=[error])
