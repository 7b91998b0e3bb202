"""Spans of requests that go out: who was asked, how it went, and nothing of what was said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from app.observability.tracing.spans import Span, SpanKind, Tracer

if TYPE_CHECKING:
    from app.observability.tracing.spans import Value

__all__ = ["client_span"]

_PORTS: Final = {"http": 80, "https": 443}
_REDACTED: Final = "REDACTED"


def client_span(
    tracer: Tracer,
    method: str,
    url: str,
    *,
    traceparent: str | None,
    begins: bool = False,
    show_path: bool = False,
) -> Span | None:
    """A request that begins; None if its trace is not kept.

    Args:
        url: Neither user, password nor query of it are shown.
        begins: See `Tracer.place`.
        resends: How often it was sent before.
        show_path: The path of a webhook is as good as a password: only that of our own upstreams is shown.
    """
    place = tracer.place(traceparent, begins=begins)
    if place is None:
        return None
    span = Span(tracer, *place, method, SpanKind.CLIENT, {"http.request.method": method})
    for key, value in _address(url, show_path=show_path).items():
        span.set(key, value)
    return span


def _address(url: str, *, show_path: bool) -> dict[str, Value | None]:
    """Where a request goes; nothing of a URL that cannot be read, which is not asked either."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return {}
    shown = f"[{host}]" if ":" in host else host
    if port is not None:
        shown = f"{shown}:{port}"
    path = parts.path if show_path or parts.path in {"", "/"} else f"/{_REDACTED}"
    query = f"?{_REDACTED}" if parts.query and show_path else ""
    return {
        "url.full": f"{parts.scheme}://{shown}{path}{query}",
        "server.address": host,
        "server.port": _PORTS.get(parts.scheme) if port is None else port,
    }
