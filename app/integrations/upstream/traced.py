"""The client of an upstream with a span for each call."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from app.integrations.upstream.client import HttpUpstream
from app.integrations.upstream.errors import UpstreamError
from app.observability.tracing import client_span

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from app.integrations.upstream.answers import Answer
    from app.integrations.upstream.credentials import UpstreamConfig
    from app.observability.tracing import Tracer

__all__ = ["TracedUpstream"]


class TracedUpstream(HttpUpstream):
    """`HttpUpstream` that records its calls, and hands its span on as what the upstream follows from.

    A call follows from the `traceparent` among its headers. One with headers and without that is of an event whose
    trace is not kept; one without any headers is nobody's, and a trace may begin with it.
    """

    def __init__(
        self,
        config: UpstreamConfig,
        tracer: Tracer,
        *,
        peer: str | None = None,
        now_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(config, peer=peer, now_s=now_s, monotonic_s=monotonic_s)
        self._tracer = tracer
        self._endpoint = config.endpoint.rstrip("/")

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        accept: Collection[int] = (),
    ) -> Answer:
        """See `Upstream.send`."""
        parent = None if headers is None else headers.get("traceparent")
        span = client_span(
            self._tracer,
            method,
            self._endpoint + path,
            traceparent=parent,
            begins=headers is None,
            show_path=True,
        )
        if span is None:
            return await super().send(method, path, body, headers=headers, accept=accept)
        error: str | None = "cancelled"
        status: int | None = None
        try:
            answer = await super().send(
                method, path, body, headers={**(headers or {}), "traceparent": span.traceparent}, accept=accept
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
