"""Spans, and what makes them."""

from __future__ import annotations

import random
import re
import time
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from app.observability.metrics import VERSION
from app.observability.tracing.sampling import LOW_BITS, Sampling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["MAX_LINKS", "OneResource", "Span", "SpanKind", "Tracer", "parsed"]

MAX_TEXT_CHARS: Final = 256
MAX_LINKS: Final = 128
"""What the specification asks for where nobody says otherwise."""

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)
_SAMPLED: Final = frozenset("13579bdf")
_SAMPLED_FLAG: Final = TraceFlags(TraceFlags.SAMPLED)
_NO_STATUS: Final = Status(StatusCode.UNSET)
_FAILED: Final = Status(StatusCode.ERROR)
_SCOPE: Final = InstrumentationScope("vault-stream", VERSION)

Value = str | int | bool


def parsed(traceparent: str | None) -> SpanContext | None:
    """The context in a `traceparent` (W3C Trace Context 1, 3.2); None where it is none."""
    match = None if traceparent is None else _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in match.groups())
    if not trace_id or not span_id:
        return None
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))


class OneResource(Resource):
    """What all spans of a process are of.

    The exporter hashes it for each span, and the SDK writes it as JSON for that: a quarter of the whole export.
    """

    def __init__(self, attributes: Mapping[str, str]) -> None:
        super().__init__(attributes)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash


class Tracer:
    """Makes spans. Where it is missing, tracing is off.

    Args:
        on_end: Takes each span that has ended; never waits.
        resource: What the spans are of.
        sampling: Which traces are kept.
        now_ns: Unix time.
        random_bits: So many random bits, as an integer.
    """

    def __init__(
        self,
        on_end: Callable[[ReadableSpan], None],
        *,
        resource: Resource | None = None,
        sampling: Sampling | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        random_bits: Callable[[int], int] | None = None,
    ) -> None:
        self._on_end = on_end
        self._resource = Resource({}) if resource is None else resource
        self._sampling = Sampling() if sampling is None else sampling
        self._bound = self._sampling.bound
        self._parent_based = self._sampling.parent_based
        self.now_ns = now_ns
        self._random_bits = random_bits or random.Random().getrandbits  # noqa: S311  # ids, no secrets

    def place(self, traceparent: str | None, *, begins: bool) -> tuple[SpanContext, SpanContext | None] | None:
        """Where a span would be: its own context and that of its parent; None if it is not kept.

        Args:
            traceparent: Of what it follows from. What is malformed counts as missing.
            begins: Whether a trace may begin here. Where not, what comes without a parent was decided on before: its
                trace is not kept.
        """
        if traceparent is not None:
            # Most of what is not kept ends here.
            if self._parent_based and traceparent[-1:] not in _SAMPLED and _TRACEPARENT.fullmatch(traceparent):
                return None
            parent = parsed(traceparent)
            if parent is not None:
                return (self._under(parent), parent) if self._sampling.keeps(parent) else None
        if not begins:
            return None
        trace_id = self._random_bits(128)
        if trace_id & LOW_BITS >= self._bound:
            return None
        return SpanContext(trace_id or 1, self._span_id(), is_remote=False, trace_flags=_SAMPLED_FLAG), None

    def begin(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, Value | None],
        *,
        traceparent: str | None = None,
        begins: bool = False,
    ) -> Span | None:
        """A span that begins now; None if its trace is not kept. See `place`."""
        place = self.place(traceparent, begins=begins)
        return None if place is None else Span(self, *place, name, kind, attributes)

    def begin_linked(
        self, name: str, kind: SpanKind, attributes: Mapping[str, Value | None], causes: Iterable[str | None]
    ) -> Span | None:
        """A span of a trace of its own that follows from many, at most 128 of which are linked.

        Args:
            causes: The `traceparent` of each.

        Returns:
            None if the trace of none of them is kept.
        """
        links: list[Link] = []
        kept = 0
        for traceparent in causes:
            context = parsed(traceparent)
            if context is not None and self._sampling.keeps(context):
                kept += 1
                if len(links) < MAX_LINKS:
                    links.append(Link(context))
        if not links:
            return None
        own = SpanContext(self._random_bits(128) or 1, self._span_id(), is_remote=False, trace_flags=_SAMPLED_FLAG)
        span = Span(self, own, None, name, kind, attributes, links)
        if kept > len(links):
            span.set("vault_stream.links_left_out", kept - len(links))
        return span

    def _under(self, parent: SpanContext) -> SpanContext:
        """A new context in the trace of a parent, which is kept."""
        flags = parent.trace_flags
        if not flags.sampled:
            flags = TraceFlags(flags | TraceFlags.SAMPLED)
        return SpanContext(parent.trace_id, self._span_id(), is_remote=False, trace_flags=flags)

    def _span_id(self) -> int:
        return self._random_bits(64) or 1

    def _end(self, span: Span, error: str | None) -> None:
        attributes = span.attributes
        if error is not None:
            attributes["error.type"] = error
        self._on_end(
            ReadableSpan(
                span.name,
                span.context,
                span.parent,
                self._resource,
                attributes,
                links=span.links,
                kind=span.kind,
                status=_NO_STATUS if error is None else _FAILED,
                start_time=span.began_ns,
                end_time=self.now_ns(),
                instrumentation_scope=_SCOPE,
            )
        )


class Span:
    """One operation, from when it was made until `end`. What never ends is never sent."""

    __slots__ = ("_tracer", "attributes", "began_ns", "context", "kind", "links", "name", "parent")

    def __init__(
        self,
        tracer: Tracer,
        context: SpanContext,
        parent: SpanContext | None,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, Value | None],
        links: Sequence[Link] = (),
    ) -> None:
        self._tracer = tracer
        self.context = context
        self.parent = parent
        self.name = name
        self.kind = kind
        self.links = links
        self.began_ns = tracer.now_ns()
        self.attributes = {
            key: value if value.__class__ is not str else value[:MAX_TEXT_CHARS]
            for key, value in attributes.items()
            if value is not None
        }

    @property
    def traceparent(self) -> str:
        """What goes out, for others to follow from this."""
        context = self.context
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def set(self, key: str, value: Value | None) -> None:
        """Add an attribute; None adds none, and a text is cut at 256 characters."""
        if value is not None:
            self.attributes[key] = value[:MAX_TEXT_CHARS] if isinstance(value, str) else value

    def child(self, name: str, kind: SpanKind, attributes: Mapping[str, Value | None]) -> Span:
        """A part of this, which begins now."""
        return Span(self._tracer, self._tracer._under(self.context), self.context, name, kind, attributes)  # noqa: SLF001

    def end(self, error: str | None = None) -> None:
        """It is over.

        Args:
            error: What kind of error ended it, a word of few; None: none did.
        """
        self._tracer._end(self, error)  # noqa: SLF001  # the two are one thing
