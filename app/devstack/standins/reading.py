"""Reading what a stand-in is sent, strictly: what is not as agreed is refused, and named."""

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web


class Refusal(Exception):
    """A request that is not as agreed.

    Attributes:
        status: To answer with.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def json_in(request: web.Request) -> Any:
    """The body.

    Raises:
        Refusal: 415 or 400: it does not say that it is JSON, or is none.
    """
    if request.content_type != "application/json":
        raise Refusal(415, "Content-Type is not application/json")
    try:
        return json.loads(await request.read())
    except ValueError:
        raise Refusal(400, "the body is not JSON") from None


async def object_in(request: web.Request, **required: type) -> dict[str, Any]:
    """The body, an object that has these fields.

    Raises:
        Refusal: 415, 400 or 422.
    """
    value = await json_in(request)
    check(value, "the body", **required)
    return dict(value)


def check(value: Any, name: str, /, **required: type) -> None:
    """That it is an object with fields of these types; a string may not be empty.

    Raises:
        Refusal: 422, with the names of what is wrong.
    """
    if not isinstance(value, Mapping):
        raise Refusal(422, f"{name} is not an object")
    wrong = [field for field, kind in required.items() if not _is(value.get(field), kind)]
    if wrong:
        raise Refusal(422, f"{name}: missing, empty or of a wrong type: {', '.join(wrong)}")


def key_of(request: web.Request) -> str:
    """The Idempotency-Key.

    Raises:
        Refusal: 400: there is none.
    """
    key = request.headers.get("Idempotency-Key")
    if not key:
        raise Refusal(400, "Idempotency-Key is missing")
    return key


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool) and kind is not bool:
        return False
    return isinstance(value, kind) and value != ""
