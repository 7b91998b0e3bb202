"""The one form of W3C trace context that is passed on (Trace Context 1, 3.2), and where it stands."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
"""To be matched in full: what an event says of itself may be anything."""


def traceparent_of(headers: Iterable[tuple[str, bytes | None]], extensions: Mapping[str, object]) -> str | None:
    """What a record follows from: its header, which names the last hop; else the extension, where the trace began.

    Args:
        headers: Of the record.
        extensions: Of the event in it.
    """
    for name, value in headers:
        if name == "traceparent":
            hop = (value or b"").decode("latin-1")
            if TRACEPARENT.fullmatch(hop):
                return hop
    start = extensions.get("traceparent")
    return start if isinstance(start, str) and TRACEPARENT.fullmatch(start) else None
