"""Requests that are no HTTP: answered by a problem document, too, and logged without what was sent.

The library would log the line that it cannot read, and a token may be in it.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from app.web.problems import problem_of_http, problem_of_status, problem_response

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

__all__ = ["Runner"]

log = logging.getLogger("app.web")

# As the server sets them for all other answers.
_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


class _Connection(web.RequestHandler):
    """One connection."""

    __slots__ = ()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes what was sent
    ) -> web.StreamResponse:
        """The answer to what cannot be read, or failed outside of the middlewares; the connection ends with it."""
        ours = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        log.log(
            logging.ERROR if ours else logging.INFO,
            "a connection failed" if ours else "a request cannot be read",
            exc_info=exc if ours else None,
            extra={"error": type(exc).__name__},
        )
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer is sent already")
        response = problem_response(problem_of_status(status))
        response.headers.update(_HEADERS)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **named: Any) -> None:
        """A body that is not what its headers say is answered with 400 before the library meets it once more."""
        if not isinstance(named.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **named)

    async def finish_response(
        self, request: BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; the library refuses an unknown `Expect` before any middleware is asked."""
        if isinstance(resp, web.HTTPException) and resp.status >= HTTPStatus.BAD_REQUEST:
            resp = problem_response(problem_of_http(resp))
            resp.headers.update(_HEADERS)
        return await super().finish_response(request, resp, start_time)


class _Server(web.Server):
    """Makes connections."""

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application whose connections answer in problem documents."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        # The application makes its server itself, and takes no other class for it.
        server.__class__ = _Server
        return server
