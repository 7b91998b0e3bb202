"""Reading requests: bodies and query parameters, refused in the words of a problem document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson

from app.events import JsonRefused, loads_strict
from app.web.problems import FieldError, Problem
from app.webhooks.errors import pointer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from aiohttp import web

__all__ = [
    "MAX_JSON_BYTES",
    "BodyTypes",
    "fields_of",
    "flag_of",
    "idempotency_key",
    "json_body",
    "json_text",
    "page_limit",
    "query_of",
    "require_json_type",
    "takes",
]

HandlerT = TypeVar("HandlerT", bound="Callable[..., Any]")

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200
MAX_KEY_CHARS: Final = 255
# What is made of it must fit into a record, twice.
MAX_JSON_BYTES: Final = 256 * 1024
# Of one answer: a body may have a hundred thousand unknown fields.
MAX_NAMED_ERRORS: Final = 20
_TAKES: Final = "_vault_stream_takes"
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii"})


@dataclass(frozen=True, slots=True)
class BodyTypes:
    """How a route asks for its body; it reads whatever says that it is JSON in UTF-8.

    Attributes:
        names: The content types, as in OpenAPI, the one to prefer first.
        detail: One sentence that says what to send as which of them.
    """

    names: tuple[str, ...]
    detail: str


_JSON: Final = BodyTypes(("application/json",), "Send the body as JSON in UTF-8, with Content-Type: application/json.")


def takes(types: BodyTypes) -> Callable[[HandlerT], HandlerT]:
    """Mark a handler whose body is asked for as something else than `application/json` alone."""

    def mark(handler: HandlerT) -> HandlerT:
        setattr(handler, _TAKES, types)
        return handler

    return mark


def require_json_type(request: web.Request) -> None:
    """Refuse a body that does not say that it is JSON.

    Raises:
        Problem: 415, in the words of the matched route.
    """
    if not request.can_read_body:
        return
    kind = request.content_type.lower()
    is_json = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
    # JSON is UTF-8 (RFC 8259, 8.1).
    if is_json and (request.charset or "utf-8").lower() in _CHARSETS:
        return
    types: BodyTypes = getattr(request.match_info.handler, _TAKES, _JSON)
    raise Problem(
        415,
        "unsupported_media_type",
        types.detail,
        errors=[FieldError("Content-Type", "unsupported", " or ".join(types.names))],
        headers={"Accept-Post": ", ".join(types.names)},
    )


async def json_body(request: web.Request) -> Any:
    """The body as the one JSON value that it can mean: no key twice, no integer beyond 64 bits, not nested too deep.

    Raises:
        Problem: 400, it is none or is empty; 413, it has more than 256 KiB.
        aiohttp.web.HTTPRequestEntityTooLarge: It is larger than the server reads; becomes 413.
    """
    raw = await request.read()
    if len(raw) > MAX_JSON_BYTES:
        raise Problem(413, "too_large", f"The body of this request has at most {MAX_JSON_BYTES} bytes of JSON.")
    try:
        return loads_strict(raw)
    except JsonRefused as error:
        raise _no_json(raw, str(error)) from None


async def json_text(request: web.Request) -> bytes:
    """The body as it came, for who reads it with rules of its own: JSON, as far as grammar goes.

    Raises:
        Problem: 400, it is no JSON or is empty.
        aiohttp.web.HTTPRequestEntityTooLarge: As above.
    """
    raw = await request.read()
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _no_json(raw, f"not JSON: {error}") from None
    return raw


def _no_json(raw: bytes, why: str) -> Problem:
    why = why if raw else "empty"
    return Problem(
        400, "invalid_json", f"The body cannot be read: {why}.", errors=[FieldError("", "invalid_json", why)]
    )


async def fields_of(request: web.Request, known: Collection[str]) -> dict[str, Any]:
    """The fields of a body that may be left out.

    Raises:
        Problem: As `json_body`; 422 naming the field that is unknown, or that it is no object.
    """
    if not await request.read():
        return {}
    body = await json_body(request)
    if not isinstance(body, dict):
        error = FieldError("", "invalid", "an object")
        raise Problem(422, "invalid_field", "The body must be an object.", errors=[error])
    unknown = [name for name in body if name not in known][:MAX_NAMED_ERRORS]
    if unknown:
        told = f"one of {', '.join(known) or 'none'}"
        errors = [FieldError(pointer(name), "unknown", told) for name in unknown]
        raise Problem(422, "invalid_field", "A field of the body is not understood.", errors=errors)
    return body


def flag_of(body: Mapping[str, Any], name: str) -> bool:
    """A field that is true or false, false unless said: what is nearly true must not do the opposite of what was meant.

    Raises:
        Problem: 422.
    """
    value = body.get(name, False)
    if not isinstance(value, bool):
        error = FieldError(pointer(name), "invalid", "true or false")
        raise Problem(422, "invalid_field", "A field of the body is not understood.", errors=[error])
    return value


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
        raise Problem(422, "invalid_query", "A query parameter is not understood.", errors=errors[:MAX_NAMED_ERRORS])
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
