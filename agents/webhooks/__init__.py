"""Agent `webhooks`: owns the webhooks of its numbers and brings their events to them (architecture 5).

*Whether* anything starts, retries or ends is decided in `app.webhooks`; here it happens:

- `processor`: commands and intents in, what is due out;
- `appetite`: how many intents at once;
- `attempts`: one POST, and what came of it, as one job;
- `endings`: what ends without an attempt;
- `resting`: what has had nothing to do for long is held no longer;
- `holdings`: what these three share of one number.
"""

from agents.webhooks.holdings import Posts, WebhooksDeps
from agents.webhooks.processor import WebhooksProcessor, webhooks_agent

__all__ = ["Posts", "WebhooksDeps", "WebhooksProcessor", "webhooks_agent"]
