"""W3C trace context on its way out: what came with an event goes on with the call that the event is the cause of."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from app.events import traceparent_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Visible ASCII and spaces: what a header can hold without changing the request around it.
_TRACESTATE: Final = re.compile(r"[\x20-\x7e]{1,512}", re.ASCII)


def trace_headers(
    extensions: Mapping[str, object], record_headers: Iterable[tuple[str, bytes | None]] = ()
) -> dict[str, str]:
    """The headers `traceparent` and `tracestate`, for a call that has exactly one event as its cause.

    Args:
        extensions: Of the event. Anybody may have written them: what is malformed is left out.
        record_headers: Of its record, where the last hop is.
    """
    parent, state = traceparent_of(record_headers, extensions), extensions.get("tracestate")
    if parent is None:
        return {}
    headers = {"traceparent": parent}
    if isinstance(state, str) and _TRACESTATE.fullmatch(state):
        headers["tracestate"] = state
    return headers
