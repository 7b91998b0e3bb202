"""Attempts with a span for each: what a receiver gets as `traceparent` is the attempt that it answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import structs

from app.observability.tracing import client_span

if TYPE_CHECKING:
    from app.observability.tracing import Tracer
    from app.webhooks.sender import AttemptOutcome, OutgoingRequest

__all__ = ["TracedSender"]

_STATUS: Final = "status_"


class Posts(Protocol):
    """What makes attempts."""

    async def post(self, request: OutgoingRequest) -> AttemptOutcome:
        """See `Sender.post`."""


class TracedSender:
    """Makes attempts as another sender does, and records those whose trace is kept.

    Everything about an attempt is in the headers that are signed for it. One without a `traceparent` is of an event
    whose trace is not kept.
    """

    def __init__(self, sender: Posts, tracer: Tracer) -> None:
        self._sender = sender
        self._tracer = tracer

    async def post(self, request: OutgoingRequest) -> AttemptOutcome:
        """See `Sender.post`."""
        headers = request.protected_headers
        span = client_span(self._tracer, "POST", request.url, traceparent=headers.traceparent)
        if span is None:
            return await self._sender.post(request)
        span.set("vault_stream.delivery.id", headers.delivery_id)
        span.set("vault_stream.webhook.id", headers.webhook_id)
        span.set("cloudevents.event_id", headers.event_id)
        span.set("cloudevents.event_type", headers.event_type)
        # Nothing for the first time, as the convention has it.
        span.set("http.request.resend_count", headers.attempt - 1 or None)
        headers = structs.replace(headers, traceparent=span.traceparent)
        try:
            outcome = await self._sender.post(structs.replace(request, protected_headers=headers))
        except asyncio.CancelledError:
            span.end("outcome_unknown")
            raise
        span.set("http.response.status_code", outcome.status)
        # The convention has the bare status, where that is what was wrong.
        span.end(None if outcome.error is None else outcome.error.removeprefix(_STATUS))
        return outcome
