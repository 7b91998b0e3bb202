"""Webhooks that have had nothing to do for long: a row in the table is all that they cost, as before their first event.

What would be lost with a webhook keeps it here: an attempt under way, what waits, failures that no row tells of, a rate
limit whose tokens are not all there again, a hold, a pace, its last hour. So nobody can tell whether it was put away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.webhooks.model import WebhookState
from tables.webhooks import WEBHOOKS, webhook_key

if TYPE_CHECKING:
    from agents.webhooks.holdings import Holdings
    from app.engine import Unit
    from app.webhooks.owned import OwnedWebhook
    from app.webhooks.scheduler import Now

__all__ = ["LOOKED_AT", "LOOK_S", "UNNEEDED_S", "Resting"]

UNNEEDED_S: Final = 600.0
# Ten thousand are looked at within six minutes.
LOOKED_AT: Final = 32
LOOK_S: Final = 1.0


class Resting:
    """Goes round the webhooks of one number, a few at a time, in its ticks."""

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._left: list[str] = []
        self._round_s = self.look_at_s = holdings.now.monotonic_s + UNNEEDED_S

    def look(self, unit: Unit, now: Now) -> None:
        """Put away some that were not needed since the last round, if it is time; ask for the next tick."""
        holdings = self._holdings
        if not holdings.webhooks:
            return
        if now.monotonic_s >= self.look_at_s:
            if not self._left:
                self._left, self._round_s = list(holdings.webhooks), now.monotonic_s + UNNEEDED_S
            for webhook_id in self._left[-LOOKED_AT:]:
                webhook = holdings.webhooks.get(webhook_id)
                if webhook is not None and self._may_go(webhook, unit, now):
                    holdings.put_away(webhook_id)
            del self._left[-LOOKED_AT:]
            self.look_at_s = now.monotonic_s + LOOK_S if self._left else max(self._round_s, now.monotonic_s + LOOK_S)
        holdings.context.tick_at(self.look_at_s)

    def _may_go(self, webhook: OwnedWebhook, unit: Unit, now: Now) -> bool:
        if webhook.needed:
            webhook.needed = False
            return False
        if not self._rests(webhook, now):
            return False
        # Memory is ahead of the table while a slice is being run again.
        return webhook.is_by(unit.get(WEBHOOKS, webhook_key(webhook.row.webhook_id)))

    def _rests(self, webhook: OwnedWebhook, now: Now) -> bool:
        webhook_id = webhook.row.webhook_id
        return (
            webhook.row.state is not WebhookState.DELETED
            and webhook.rests(now.wall_ms)
            and not self._holdings.brief.concern(webhook_id)
            and self._holdings.scheduler.spare(webhook_id, now)
        )
