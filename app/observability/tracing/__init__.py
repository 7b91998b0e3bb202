"""Traces: spans by the semantic conventions of OpenTelemetry, sent as OTLP over HTTP with protobuf.

    tracing = start_tracing(TracingConfig(endpoint="http://collector:4318"), os.environ)     # None: it is off
    span = tracing.tracer.begin("POST", SpanKind.CLIENT, attributes, traceparent=event_trace)
    if span is not None:                                                                     # None: not sampled
        ...                                                                                  # span.traceparent goes out
        span.end()
    await tracing.close()

Where tracing is off there is no tracer, and nothing of OpenTelemetry is called. Where it is on, whether a trace is kept
is decided from 55 characters before any object is made. Spans are recorded here and not with the tracer of the SDK,
which takes ten times as long for each; what is sent, and how, is the SDK's and its exporter's.
"""

from __future__ import annotations

from app.observability.tracing.export import Tracing
from app.observability.tracing.http import client_span
from app.observability.tracing.messages import Messages, Passage
from app.observability.tracing.sampling import Sampling
from app.observability.tracing.spans import Span, SpanKind, Tracer
from app.observability.tracing.starting import TracingConfig, TracingError, start_tracing

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
