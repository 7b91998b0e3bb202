"""The ids of a trace that somebody else began, for logs and exemplars; no tracer is needed for them."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["exemplar_of", "ids_of"]

# W3C Trace Context 1, 3.2; ids of zeros alone, and version ff, are none.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII
)
_SAMPLED: Final = 1


def ids_of(traceparent: str | None) -> tuple[str, str] | None:
    """Trace id and span id; None where there are none, or what is there is malformed."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    return None if found is None else (found[1], found[2])


def exemplar_of(traceparent: str | None) -> dict[str, str] | None:
    """What an observation of a histogram is labelled with: only a trace that is kept can be looked at."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if found is None or not int(found[3], 16) & _SAMPLED:
        return None
    return {"trace_id": found[1], "span_id": found[2]}
