"""The client of an upstream with a span for each call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.integrations.upstream.client import HttpUpstream
from app.integrations.upstream.errors import UpstreamError
from app.observability.tracing import client_span

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from app.integrations.upstream.answers import Answer
    from app.integrations.upstream.credentials import UpstreamConfig
    from app.observability.tracing import Tracer

__all__ = ["TracedUpstream"]


class TracedUpstream(HttpUpstream):
    """`HttpUpstream` that records its calls, and hands its span on as what the upstream follows from.

    A call follows from the `traceparent` among its headers. One with headers and without that is of an event whose
    trace is not kept; one without any headers is nobody's, and a trace may begin with it.
    """

    def __init__(self, config: UpstreamConfig, tracer: Tracer, *, peer: str | None = None) -> None:
        super().__init__(config, peer=peer)
        self._tracer = tracer

    async def _ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None, accept: Collection[int]
    ) -> Answer:
        parent = None if headers is None else headers.get("traceparent")
        span = client_span(
            self._tracer, method, self._base + path, traceparent=parent, begins=headers is None, show_path=True
        )
        if span is None:
            return await super()._ask(method, path, body, headers, accept)
        error: str | None = "cancelled"
        status: int | None = None
        try:
            answer = await super()._ask(
                method, path, body, {**(headers or {}), "traceparent": span.traceparent}, accept
            )
            status, error = answer.status, None
        except UpstreamError as failure:
            status = failure.status
            error = type(failure).__name__.lower() if status is None else str(status)
            raise
        finally:
            span.set("http.response.status_code", status)
            span.end(error)
        return answer
