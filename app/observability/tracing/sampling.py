"""Which traces are kept: the samplers of the specification, asked before a span exists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

__all__ = ["LOW_BITS", "Sampling"]

LOW_BITS: Final = (1 << 64) - 1
"""The part of a trace id that decides, the same in every SDK."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """`traceidratio`, by default `parentbased_traceidratio`.

    Attributes:
        ratio: The share of traces that is kept, 0 to 1.
        parent_based: What comes from a parent is kept exactly if the parent was.
    """

    ratio: float = 1.0
    parent_based: bool = True

    @property
    def bound(self) -> int:
        """Trace ids whose lower half is below this are kept."""
        return round(self.ratio * (LOW_BITS + 1))

    def keeps(self, parent: SpanContext) -> bool:
        """Whether to go on with the trace of a parent."""
        if self.parent_based:
            return parent.trace_flags.sampled
        return parent.trace_id & LOW_BITS < self.bound
