"""How long to wait before the same request is sent again."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from secrets import SystemRandom
from typing import Final

MAX_BACKOFF_S: Final = 60.0
FIRST_BACKOFF_S: Final = 0.5
# An upstream may ask us to wait, not to go away for good.
MAX_RETRY_AFTER_S: Final = 3600.0
_MAX_DOUBLINGS: Final = 20

draw_jitter: Final = SystemRandom().random
"""0 to 1, so that workers which failed together do not come back together."""


def parse_retry_after(value: str | None, now_s: float) -> float | None:
    """Seconds to wait by a `Retry-After` header (RFC 9110 10.2.3): a number or a date; junk is None.

    Args:
        value: The header, or None.
        now_s: Seconds since 1970, for a date.

    Returns:
        0 to 3600 seconds.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(moment - now_s, 0.0), MAX_RETRY_AFTER_S)


def backoff_s(failures: int, jitter: float, retry_after_s: float | None = None) -> float:
    """How long to wait after so many failures in a row.

    Args:
        failures: 1 or more.
        jitter: 0 to 1, drawn anew each time.
        retry_after_s: What the upstream asked for; never undercut.

    Returns:
        Half a second, doubling, of which the upper half is random; at most 60 s unless the upstream asked for more.
    """
    step = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(failures - 1, _MAX_DOUBLINGS))
    return max(step * (1.0 + jitter) / 2.0, retry_after_s or 0.0)
