"""What operators and machines ask: health, metrics, and the figures of this worker."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web

from app.observability import metrics
from app.observability.health import HealthStatus
from app.web.auth import public
from app.web.problems import FieldError, Problem
from app.web.requests import query_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.observability.health import HealthRegistry, HealthReport, LoopWatch

__all__ = ["figures_of", "operations_routes"]


def operations_routes(
    health: HealthRegistry, watch: LoopWatch, stats: Mapping[str, Callable[[], Any]]
) -> list[web.RouteDef]:
    """`/metrics`, `/health`, `/health/live` and `/health/ready`, without token, and `GET /v1/stats`.

    Args:
        health: The checks of the process.
        watch: The heartbeat of its event loop.
        stats: The sections of `/v1/stats`, each read when asked; a JSON value.
    """
    operations = _Operations(health, watch, stats)
    return [
        web.get("/metrics", operations.metrics),
        web.get("/health", operations.health),
        web.get("/health/live", operations.live),
        web.get("/health/ready", operations.ready),
        web.get("/v1/stats", operations.stats),
    ]


def figures_of(stats: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """What `GET /v1/stats` answers now."""
    return {"version": metrics.VERSION, **{name: read() for name, read in stats.items()}}


class _Operations:
    def __init__(self, health: HealthRegistry, watch: LoopWatch, stats: Mapping[str, Callable[[], Any]]) -> None:
        self._health = health
        self._watch = watch
        self._stats = dict(stats)

    @public
    async def metrics(self, request: web.Request) -> web.Response:
        content_type, body = metrics.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    @public
    async def health(self, request: web.Request) -> web.Response:
        report = (await self._health.report()).without(self._excluded(request))
        if "verbose" in request.query:
            return _told(report)
        return _answer(report.to_json(), good=report.status is not HealthStatus.UNHEALTHY)

    @public
    async def live(self, _request: web.Request) -> web.Response:
        live = self._watch.live()
        return _answer({"status": "live" if live else "stuck"}, good=live)

    @public
    async def ready(self, request: web.Request) -> web.Response:
        excluded = self._excluded(request)
        ready = await self._health.ready(excluded)
        report = (await self._health.report()).without(excluded)
        if "verbose" in request.query:
            return _told(report, "ready" if ready else "not_ready", good=ready)
        return _answer(report.to_json() | {"status": "ready" if ready else "not_ready"}, good=ready)

    def _excluded(self, request: web.Request) -> set[str]:
        """The names of checks that do not count, and are not shown.

        Raises:
            Problem: 422, there is no such check: a probe that is meant to leave one out must not fail because of it.
        """
        excluded, known = set(request.query.getall("exclude", [])), self._health.names
        if not excluded <= set(known):
            error = FieldError("exclude", "unknown", f"one of {', '.join(known) or 'none'}")
            raise Problem(422, "invalid_query", "A query parameter is not understood.", errors=[error])
        return excluded

    async def stats(self, request: web.Request) -> web.Response:
        query_of(request, ())
        return _answer(figures_of(self._stats), good=True)


_SIGNS: Final = {HealthStatus.UNHEALTHY: "-", HealthStatus.DEGRADED: "!"}


def _told(report: HealthReport, whole: str | None = None, *, good: bool | None = None) -> web.Response:
    """One line a check, for people, as the health pages of Kubernetes have it; the whole in the last line."""
    lines = []
    for check in report.checks:
        sign = _SIGNS.get(check.status, "+")
        why = f": {check.message}" if check.message else ""
        lines.append(f"[{sign}] {check.name} {check.status.value}, {check.latency_ms} ms{why}")
    good = report.status is not HealthStatus.UNHEALTHY if good is None else good
    text = "\n".join([*lines, whole or report.status.value, ""])
    return web.Response(status=HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE, text=text)


def _answer(document: dict[str, Any], *, good: bool) -> web.Response:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return web.Response(status=status, body=orjson.dumps(document), content_type="application/json")
