"""One HTTP client for dashboard, policy engine and registry: bounded in every direction, its failures sorted.

```
UpstreamError
├── Unavailable   ask again later: no connection, a time-out, a redirect, 401, 403, 404, 429, 5xx, …
├── Rejected      this request will never be taken: 400, 409, 413, 415, 422
└── Malformed     a success whose body is not what was agreed
```

Contracts 6: a status outside 2xx is never a success, unless the caller says that it accepts it (409 where a repeat is
one, 404 where a deletion is done). An expired token must not cost a report, so 401 and 403 are *Unavailable*.

What a caller may not assume: that a request which raised was not taken. It is sent again under the same idempotency
key.
"""

from app.integrations.upstream.answers import Answer
from app.integrations.upstream.backoff import backoff_s, draw_jitter, parse_retry_after
from app.integrations.upstream.client import MAX_ANSWER_BYTES, HttpUpstream, Upstream
from app.integrations.upstream.credentials import TlsFiles, UpstreamConfig
from app.integrations.upstream.errors import Malformed, Rejected, Unavailable, UpstreamError
from app.integrations.upstream.tracing import trace_headers

__all__ = [
    "MAX_ANSWER_BYTES",
    "Answer",
    "HttpUpstream",
    "Malformed",
    "Rejected",
    "TlsFiles",
    "Unavailable",
    "Upstream",
    "UpstreamConfig",
    "UpstreamError",
    "backoff_s",
    "draw_jitter",
    "parse_retry_after",
    "trace_headers",
]
