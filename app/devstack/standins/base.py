"""What all stand-ins have in common: a listener, control from outside, and a document that describes them."""

import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Final

from aiohttp import web

from app.devstack.standins.describing import Description, document_of
from app.devstack.standins.faults import Fault
from app.devstack.standins.observing import Observations
from app.devstack.standins.reading import Refusal, object_in

MAX_BODY_BYTES: Final = 16 * 1024 * 1024


class Standin(ABC):
    """One server on loopback.

    Args:
        observations: Told of every request that was accepted.

    Attributes:
        fault: How to misbehave; None: not at all.
        token: If there is one, whoever does not show it gets 401; it may change at any time.
        auth_header: Where it is shown: as `Bearer` in `Authorization`, as it is in another header.
        tls: With it, https.
        tap: Told of each request but those of the control routes, as it came: method and path, then head and body.
        requests: How many there were.
        unauthorized: How many of them had another token.
        redirected: How many followed a redirect, which no client should.
    """

    description: ClassVar[Description] = Description("stand-in")

    def __init__(self, observations: Observations) -> None:
        self.fault: Fault | None = None
        self.token: str | None = None
        self.auth_header = "Authorization"
        self.tls: ssl.SSLContext | None = None
        self.tap: Callable[[str, bytes], None] | None = None
        self.requests = 0
        self.unauthorized = 0
        self.redirected = 0
        self._observations = observations
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Where it listens, once started."""
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        """The port, kept over a stop and a start."""
        return self._port

    @abstractmethod
    def observed(self) -> dict[str, Any]:
        """What it has seen, in numbers."""

    @abstractmethod
    def _routes(self) -> list[web.RouteDef]:
        """What it serves, besides what all of them do."""

    def _own_routes(self) -> list[web.RouteDef]:
        """How it is controlled from outside, besides what all of them have: never mistreated, and for everybody."""
        return []

    async def start(self, port: int = 0) -> None:
        """Listens: on `port`, else on the port it had before, else on a free one.

        Raises:
            OSError: The port is in use.
        """
        app = web.Application(middlewares=[self._misbehave], client_max_size=MAX_BODY_BYTES)
        control = [
            web.post("/control", self._set_fault),
            web.delete("/control", self._clear_fault),
            web.put("/token", self._set_token),
            web.get("/observed", self._show_observed),
            web.get("/openapi.json", self._show_document),
            *self._own_routes(),
        ]
        self._controls = {route.path for route in control}
        app.add_routes([*control, *self._routes()])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port or self._port, ssl_context=self.tls)
        await site.start()
        self._port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stops listening; what it has seen stays."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _misbehave(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path in self._controls:
            return await _answer(handler, request)
        self.requests += 1
        self.redirected += request.path == "/elsewhere"
        body = await request.read()
        if self.tap is not None:
            head = [
                f"{request.method} {request.raw_path}".encode(),
                *(b"%b: %b" % pair for pair in request.raw_headers),
            ]
            self.tap(f"{request.method} {request.path}", b"\n".join([*head, body]))
        if not self._knows(request):
            self.unauthorized += 1
            self._observations.notify()
            return web.json_response({"error": "the token is missing, wrong or expired"}, status=401)
        fault = self.fault
        if fault is None or not fault.concerns(request.path, body):
            return await _answer(handler, request)
        if fault.times is not None:
            self.fault = replace(fault, times=fault.times - 1) if fault.times > 1 else None
        if fault.accept:
            await _answer(handler, request)
        return await fault.answer(request)

    def _knows(self, request: web.Request) -> bool:
        if self.token is None:
            return True
        bearer = self.auth_header.lower() == "authorization"
        return request.headers.get(self.auth_header) == (f"Bearer {self.token}" if bearer else self.token)

    async def _set_fault(self, request: web.Request) -> web.Response:
        try:
            self.fault = Fault.parse(await request.read())
        except (ValueError, TypeError) as error:
            return web.json_response({"error": str(error)}, status=422)
        return web.Response(status=204)

    async def _clear_fault(self, _request: web.Request) -> web.Response:
        self.fault = None
        return web.Response(status=204)

    async def _set_token(self, request: web.Request) -> web.StreamResponse:
        return await _answer(self._take_token, request)

    async def _take_token(self, request: web.Request) -> web.Response:
        token = (await object_in(request)).get("token")
        if token is not None and not isinstance(token, str):
            raise Refusal(422, "token is neither a string nor null")
        self.token = token
        return web.Response(status=204)

    async def _show_observed(self, _request: web.Request) -> web.Response:
        return web.json_response({**self.observed(), "unauthorized": self.unauthorized, "redirected": self.redirected})

    async def _show_document(self, _request: web.Request) -> web.Response:
        return web.json_response(document_of(self.description))


async def _answer(handler: Any, request: web.Request) -> web.StreamResponse:
    try:
        response = await handler(request)
    except Refusal as refusal:
        return web.json_response({"error": str(refusal)}, status=refusal.status)
    if not isinstance(response, web.StreamResponse):
        raise TypeError(f"{request.path} gave no response")
    return response
