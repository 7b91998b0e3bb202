"""The listener: starts before anything else, and puts the same rules around the routes of every module.

Around a handler, from the outside in: request id and log context, access metrics, problem documents, access rules, and
that a body is JSON.
"""

from __future__ import annotations

import errno
import logging
import re
import time
from functools import cache
from typing import TYPE_CHECKING, Final

from aiohttp import web

from app.observability.logging import REQUEST_ID, SPAN_ID, TRACE_ID, USER_ID
from app.observability.metrics import ACTIVE_CONNECTIONS, HTTP_REQUEST_DURATION_SECONDS, HTTP_REQUESTS
from app.observability.trace_ids import exemplar_of, ids_of
from app.read_ahead import ReadAhead
from app.settings.fields import in_url, is_loopback
from app.web.auth import Authenticator, Role, needed_role
from app.web.connections import Runner
from app.web.problems import problem_documents
from app.web.requests import require_json_type

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp.typedefs import Handler

    from app.settings import ApiSettings, Settings

__all__ = ["ListenError", "PortInUse", "WebServer"]

log = logging.getLogger("app.web")

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""The largest body of any route (contracts 9.5, POST /v1/events)."""
SHUTDOWN_S: Final = 3.0
"""What requests under way get when the server stops."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_REQUEST_ID_KEY: Final = web.RequestKey("request_id", str)
_REQUEST_ID_BYTES: Final = 16
_random_bytes: Final = ReadAhead()
# Looked up once for each of the few there are.
_requests = cache(lambda method, path, status: HTTP_REQUESTS.labels(method=method, path=path, status=str(status)))
_durations_s = cache(lambda method, path: HTTP_REQUEST_DURATION_SECONDS.labels(method=method, path=path))


class ListenError(Exception):
    """The web listener could not be opened; the text says what to change."""


class PortInUse(ListenError):
    """Another program listens there."""


class WebServer:
    """The HTTP listener of a worker.

    Args:
        settings: `web_host`, `web_port` and `api`.
        routes: The routes of all modules.

    Raises:
        ValueError: It would listen elsewhere than on loopback without any token.
    """

    def __init__(self, settings: Settings, routes: Iterable[web.RouteDef]) -> None:
        if settings.api.open and not is_loopback(settings.web_host):
            raise ValueError("without API tokens WEB_HOST must be a loopback address")
        self._host = settings.web_host
        self._port = settings.web_port
        self._authenticator = Authenticator(settings.api)
        self._app = web.Application(
            middlewares=[_request_context, _access_metrics, problem_documents, self._access_rules],
            client_max_size=MAX_BODY_BYTES,
        )
        self._app.on_response_prepare.append(_set_headers)
        self._app.add_routes(list(routes))
        self._runner: Runner | None = None

    @property
    def port(self) -> int:
        """The port that it listens on; the configured one until it does."""
        for address in self._runner.addresses if self._runner else []:
            return int(address[1])
        return self._port

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{in_url(self._host)}:{self.port}"

    def use_tokens(self, api: ApiSettings) -> None:
        """Take other tokens from the next request on.

        Raises:
            ValueError: There are none, and the listener is not on loopback; the old ones stay.
        """
        if api.open and not is_loopback(self._host):
            raise ValueError("without API tokens WEB_HOST must be a loopback address")
        self._authenticator = Authenticator(api)

    async def start(self) -> None:
        """Listen.

        Raises:
            PortInUse: Another program has the port.
            ListenError: The address is not this machine's, or may not be used.
        """
        runner = Runner(self._app, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            await runner.cleanup()
            raise self._listen_error(error) from error
        self._runner = runner
        ACTIVE_CONNECTIONS.set_function(lambda: len(runner.server.connections) if runner.server else 0)
        log.info("listening", extra={"address": self._host, "port": self.port})

    async def stop(self) -> None:
        """Close the listener, after a moment for requests under way. May be called more than once."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
            ACTIVE_CONNECTIONS.set_function(lambda: 0)

    def _listen_error(self, error: OSError) -> ListenError:
        where = f"{in_url(self._host)}:{self._port}"
        if error.errno == errno.EADDRINUSE:
            return PortInUse(f"{where} is in use by another program; stop it or set another VAULT_STREAM_WEB_PORT")
        return ListenError(
            f"cannot listen on {where} ({error.strerror}); set another VAULT_STREAM_WEB_HOST or VAULT_STREAM_WEB_PORT"
        )

    @web.middleware
    async def _access_rules(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.match_info.http_exception is None:
            self._authenticator.admit(request)
            require_json_type(request)
        return await handler(request)


@web.middleware
async def _request_context(request: web.Request, handler: Handler) -> web.StreamResponse:
    given = request.headers.get("X-Request-Id", "")
    request_id = given if _REQUEST_ID.match(given) else _random_bytes(_REQUEST_ID_BYTES).hex()
    request[_REQUEST_ID_KEY] = request_id
    # A connection is one task for all its requests, so the context has to be given back.
    restore_id, restore_user = REQUEST_ID.set(request_id), USER_ID.set(None)
    trace_id, span_id = ids_of(request.headers.get("traceparent")) or (None, None)
    restore_trace, restore_span = TRACE_ID.set(trace_id), SPAN_ID.set(span_id)
    try:
        return await handler(request)
    finally:
        SPAN_ID.reset(restore_span)
        TRACE_ID.reset(restore_trace)
        USER_ID.reset(restore_user)
        REQUEST_ID.reset(restore_id)


@web.middleware
async def _access_metrics(request: web.Request, handler: Handler) -> web.StreamResponse:
    began = time.perf_counter()
    resource = request.match_info.route.resource
    path = resource.canonical if resource is not None else "unmatched"
    method = request.method if request.method in _METHODS else "other"
    status = 499  # the caller hung up: what nginx calls it
    try:
        response = await handler(request)
        status = response.status
    except web.HTTPException as redirect:
        status = redirect.status
        raise
    finally:
        duration_s = time.perf_counter() - began
        _requests(method, path, status).inc()
        exemplar = exemplar_of(request.headers.get("traceparent"))
        _durations_s(method, path).observe(duration_s, exemplar)
        # Probes and scrapes would fill the log.
        quiet = resource is not None and needed_role(request) is Role.PUBLIC
        level = logging.DEBUG if quiet else logging.INFO
        if log.isEnabledFor(level):
            duration_ms = round(duration_s * 1000, 1)
            told = {"method": method, "path": path, "status": status, "duration_ms": duration_ms}
            log.log(level, "request", extra=told)
    return response


async def _set_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["X-Request-Id"] = request.get(_REQUEST_ID_KEY, "")
    response.headers["X-Content-Type-Options"] = "nosniff"
    # Answers hold secrets that are shown once, and state that changes.
    response.headers.setdefault("Cache-Control", "no-store")
