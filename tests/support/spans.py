"""A tracer whose spans stay here, for tests of what makes them."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from app.observability.tracing import Messages, Sampling, Tracer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
TRACE_ID = int(PARENT[3:35], 16)
PARENT_ID = int(PARENT[36:52], 16)


class Spans:
    """What ended, in order; ids count from 1."""

    def __init__(self, ratio: float = 1.0, *, parent_based: bool = True) -> None:
        self.ended: list[ReadableSpan] = []
        self.times = count(1)
        ids = count(1)
        self.tracer = Tracer(
            self.ended.append,
            sampling=Sampling(ratio, parent_based),
            now_ns=lambda: next(self.times),
            random_bits=lambda _: next(ids),
        )
        self.messages = Messages(self.tracer, "vault-stream")

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.ended]

    def named(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.ended if span.name == name]
        return found


def traceparent_of_span(span: ReadableSpan) -> str:
    """What goes out of it."""
    context = span.context
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def parent_id(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})
