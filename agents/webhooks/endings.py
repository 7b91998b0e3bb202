"""Deliveries that end without an attempt: given up or forgotten in time, or with their webhook, 500 in a job."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from app.webhooks.delivery import Delivery, TimePassed, WebhookEnded, transition
from app.webhooks.model import WebhookState
from tables.deliveries import DELIVERIES, expiring_key, expiry_of
from tables.delivery_queries import expired_keys, next_expiry_ms, waiting_keys
from tables.webhooks import WEBHOOKS, webhook_key

if TYPE_CHECKING:
    from agents.webhooks.holdings import Holdings
    from app.engine import Unit

__all__ = ["Endings"]

ROWS_A_JOB: Final = 500
# Each is sent once more, in its dead letter.
BODIES_A_JOB_BYTES: Final = 4 << 20
SWEEP_MIN_MS: Final = 1000
# Clocks differ between workers; no row is found later than this after its time.
SWEEP_MAX_MS: Final = 60 * 60 * 1000


class Endings:
    """Those of one number."""

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._sweeping = False
        self._ending: set[str] = set()
        self._asked: set[str] = set()

    def sweep(self) -> None:
        """Look for rows that expired, unless that is under way."""
        if not self._sweeping:
            self._sweeping = True
            self._holdings.context.spawn(self._sweep())

    def end(self, webhook_id: str) -> None:
        """End what waits for a webhook that is disabled or deleted; if that is under way, once more after it."""
        self._asked.add(webhook_id)
        if webhook_id not in self._ending:
            self._ending.add(webhook_id)
            self._holdings.context.spawn(self._end_all(webhook_id))

    async def _sweep(self) -> None:
        while await self._holdings.context.submit(self._sweep_some):
            pass
        self._sweeping = False
        self._holdings.context.tick_now()

    def _sweep_some(self, unit: Unit) -> bool:
        """One job's worth; whether there is more."""
        holdings = self._holdings
        now_ms = holdings.context.clock.now_ms()
        keys = expired_keys(unit, holdings.swept_to_ms, now_ms, ROWS_A_JOB)
        flying, body_bytes = 0, 0
        for place, index_key in enumerate(keys, 1):
            if body_bytes > BODIES_A_JOB_BYTES:
                keys = keys[: place - 1]
                break
            row = unit.get(DELIVERIES, expiring_key(index_key))
            if row is None or row.delivery_id in holdings.flights:
                flying += 1
                continue
            # A row that is only to be forgotten needs none, and most webhooks have nothing else to do.
            webhook = holdings.webhook(unit, row.webhook_id) if row.status.waits else None
            terms = holdings.deps.options.terms() if webhook is None else webhook.terms
            holdings.write(unit, row, row, transition(Delivery(row), TimePassed(), now_ms, terms))
            body_bytes += len(row.body or b"")
        if keys and not flying:
            holdings.swept_to_ms = expiry_of(keys[-1])
        if (len(keys) == ROWS_A_JOB and flying < ROWS_A_JOB) or body_bytes > BODIES_A_JOB_BYTES:
            return True
        next_ms = next_expiry_ms(unit, now_ms + 1) or now_ms + SWEEP_MAX_MS
        if flying:
            next_ms = now_ms
        holdings.sweep_at_ms = min(max(next_ms, now_ms + SWEEP_MIN_MS), now_ms + SWEEP_MAX_MS)
        return False

    async def _end_all(self, webhook_id: str) -> None:
        while webhook_id in self._asked:
            self._asked.discard(webhook_id)
            while await self._holdings.context.submit(partial(self._end_some, webhook_id)):
                pass
        self._ending.discard(webhook_id)

    def _end_some(self, webhook_id: str, unit: Unit) -> bool:
        """One job's worth; whether there is more."""
        holdings = self._holdings
        webhook = holdings.webhook(unit, webhook_id)
        if webhook is None or webhook.row.state is WebhookState.ACTIVE:
            return False
        holdings.park_briefs(unit, holdings.brief.all_of(webhook_id), ends=True)
        now_ms, ended = holdings.context.clock.now_ms(), 0
        keys = waiting_keys(unit, webhook_id, ROWS_A_JOB)
        for key in keys:
            row = unit.get(DELIVERIES, key)
            if row is not None and row.delivery_id not in holdings.flights:
                step = transition(Delivery(row), WebhookEnded(webhook.row.state), now_ms, webhook.terms)
                holdings.write(unit, row, row, step)
                ended += 1
        if not keys and not webhook.flights and webhook.row.state is WebhookState.DELETED:
            unit.delete(WEBHOOKS, webhook_key(webhook_id))
            unit.on_done(partial(holdings.drop, webhook_id))
        return ended > 0
