"""The one form of W3C trace context that is passed on (Trace Context 1, 3.2)."""

import re
from typing import Final

TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
"""To be matched in full: what an event says of itself may be anything."""
