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

_HEADER: Final = "traceparent"
_SHOWN: Final = {
    "X-Delivery-Id": "vault_stream.delivery.id",
    "X-Webhook-Id": "vault_stream.webhook.id",
    "X-Event-Id": "cloudevents.event_id",
    "X-Event-Type": "cloudevents.event_type",
}
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
        traceparent = next((value for name, value in request.protected_headers if name == _HEADER), None)
        span = client_span(self._tracer, "POST", request.url, traceparent=traceparent)
        if span is None:
            return await self._sender.post(request)
        headers = dict(request.protected_headers)
        for header, attribute in _SHOWN.items():
            span.set(attribute, headers.get(header))
        span.set("http.request.resend_count", _resends(headers.get("X-Delivery-Attempt", "")))
        headers[_HEADER] = span.traceparent
        try:
            outcome = await self._sender.post(structs.replace(request, protected_headers=tuple(headers.items())))
        except asyncio.CancelledError:
            span.end("outcome_unknown")
            raise
        span.set("http.response.status_code", outcome.status)
        # The convention has the bare status, where that is what was wrong.
        span.end(None if outcome.error is None else outcome.error.removeprefix(_STATUS))
        return outcome


def _resends(attempt: str) -> int | None:
    """How often it was sent before; nothing for the first time, as the convention has it."""
    return int(attempt) - 1 or None if attempt.isascii() and attempt.isdigit() else None
