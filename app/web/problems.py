"""Errors of the API as RFC 9457 problem documents (contracts 8.3): one form for every status from 400 up."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiohttp.typedefs import Handler

__all__ = ["FieldError", "Problem", "problem_documents", "problem_of_http", "problem_of_status", "problem_response"]

log = logging.getLogger("app.web")

CONTENT_TYPE: Final = "application/problem+json"
# The stable names of what aiohttp itself refuses; anything else gets its phrase in snake case.
_CODES: Final = {413: "too_large", 500: "internal_error"}
_DETAILS: Final = {
    400: "The request could not be read.",
    404: "There is nothing at this path.",
    405: "This path does not answer to this method; the Allow header lists those that it does.",
    413: "The body is larger than this server reads.",
    417: "The only expectation that can be met is Expect: 100-continue.",
    500: "Something failed here; the log has the reason under this request's X-Request-Id.",
}
_KEPT_HEADERS: Final = ("Allow", "Retry-After")


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field of a body or one query parameter that is wrong.

    Attributes:
        field: A JSON pointer into the body (`/url`), or the name of a query parameter.
        code: A stable name.
        message: What it must be.
    """

    field: str
    code: str
    message: str


class Problem(Exception):
    """A refusal that a handler raises.

    Args:
        status: 400 to 599.
        code: The stable name, as in `unconfirmed`.
        detail: One or two sentences that say what to do; no secret.
        errors: The fields that are wrong, for 422.
        retry_after_s: Sent as `Retry-After`.
        setting: The environment variable that ends this and time does not, of which `detail` says the same; a member of
            the document.
        extra: Further members of the document, such as the id of something unconfirmed.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        retry_after_s: int | None = None,
        setting: str | None = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.extra = dict(extra or {})
        if setting is not None:
            self.extra["setting"] = setting
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(retry_after_s)

    def document(self) -> dict[str, Any]:
        """`{type, title, status, detail, code, errors?, …}`."""
        document: dict[str, Any] = {
            **self.extra,
            "type": "about:blank",
            "title": _phrase(self.status),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.errors:
            document["errors"] = [
                {"field": error.field, "code": error.code, "message": error.message} for error in self.errors
            ]
        return document


def problem_response(problem: Problem) -> web.Response:
    """The answer that carries `problem`."""
    return web.Response(
        status=problem.status,
        body=orjson.dumps(problem.document()),
        headers=problem.headers,
        content_type=CONTENT_TYPE,
    )


@web.middleware
async def problem_documents(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler, or aiohttp, raises into a problem document."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem_response(problem)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        return problem_response(problem_of_http(error))
    except web.RequestPayloadError:
        # Chunks that are none, or bytes that are not what Content-Encoding says; its text quotes them.
        return problem_response(Problem(400, "invalid_body", "The body is not encoded as the headers say."))
    except Exception:
        log.exception("a request failed", extra={"method": request.method, "path": request.path})
        return problem_response(problem_of_status(HTTPStatus.INTERNAL_SERVER_ERROR))


def problem_of_http(error: web.HTTPException) -> Problem:
    """What aiohttp refuses, in our words."""
    headers = {name: error.headers[name] for name in _KEPT_HEADERS if name in error.headers}
    return problem_of_status(error.status, headers)


def problem_of_status(status: int, headers: Mapping[str, str] | None = None) -> Problem:
    """A problem of which no more is known than its status."""
    code = _CODES.get(status) or _phrase(status).lower().replace(" ", "_").replace("-", "_")
    return Problem(status, code, _DETAILS.get(status, f"{_phrase(status)}."), headers=headers)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
