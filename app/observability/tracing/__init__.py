"""Traces: spans by the semantic conventions of OpenTelemetry, sent as OTLP over HTTP with protobuf.

    tracing = start_tracing(TracingConfig(endpoint="http://collector:4318"), os.environ)     # None: it is off
    span = tracing.tracer.begin("POST", SpanKind.CLIENT, attributes, traceparent=event_trace)
    if span is not None:                                                                     # None: not sampled
        ...                                                                                  # span.traceparent goes out
        span.end()
    await tracing.close()

Where tracing is off there is no tracer, and nothing of OpenTelemetry is loaded. Where it is on, whether a trace is kept
is decided from 55 characters before any object is made. Spans are recorded here and not with the tracer of the SDK,
which takes ten times as long for each; what is sent, and how, is the SDK's and its exporter's.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from app.observability.tracing.sampling import Sampling
from app.observability.tracing.starting import TracingConfig, TracingError, start_tracing

if TYPE_CHECKING:
    from app.observability.tracing.export import Tracing
    from app.observability.tracing.http import client_span
    from app.observability.tracing.messages import Messages, Passage
    from app.observability.tracing.spans import Span, SpanKind, Tracer

__all__ = [
    "Messages",
    "Passage",
    "Sampling",
    "Span",
    "SpanKind",
    "Tracer",
    "Tracing",
    "TracingConfig",
    "TracingError",
    "client_span",
    "start_tracing",
]

# What loads the SDK of OpenTelemetry, which a start without traces would pay for with its time and its memory.
_LATER: Final = {
    "Messages": "messages",
    "Passage": "messages",
    "Span": "spans",
    "SpanKind": "spans",
    "Tracer": "spans",
    "Tracing": "export",
    "client_span": "http",
}


def __getattr__(name: str) -> object:
    """Load what is asked for."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
