"""Writing what became of a delivery: its row and the records that tell of it, in one unit (architecture 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.observability import metrics
from app.webhooks.derived import EVENT_HEADERS
from app.webhooks.health import with_health
from tables.deliveries import DELIVERIES, delivery_key
from tables.webhooks import WEBHOOKS, webhook_key

if TYPE_CHECKING:
    from app.engine import Unit
    from app.webhooks.commands import Applied, Command
    from app.webhooks.delivery import Step
    from app.webhooks.derived import Publisher
    from app.webhooks.health import HealthChange, Heart
    from app.webhooks.model import DeliveryRow, WebhookRow

__all__ = ["DeliveryLedger"]

# A 429 of each delivery moves the hold a little; only a move that matters is worth a row.
HOLD_STEP_MS = 1000


@dataclass(frozen=True, slots=True)
class DeliveryLedger:
    """Where the records go.

    Attributes:
        publisher: Makes them.
        attempts: The topic of attempts.
        dead_letters: The topic of dead letters.
        events: `{prefix}.events`.
    """

    publisher: Publisher
    attempts: str
    dead_letters: str
    events: str

    def write(self, unit: Unit, known: DeliveryRow, step: Step, now_ms: int) -> None:
        """The row of a delivery, its attempt and its dead letter.

        Args:
            unit: What it becomes part of.
            known: The delivery before the step.
            step: What became of it.
            now_ms: Now.
        """
        row = step.after.row
        key = delivery_key(known.webhook_id, known.delivery_id)
        if row is None:
            unit.delete(DELIVERIES, key)
            return
        unit.put(DELIVERIES, key, row)
        record_key = webhook_key(row.webhook_id)
        attempt, reason = step.attempt, step.dead_letter
        if attempt is not None:
            unit.send_late(self.attempts, record_key, self.publisher.attempted(row, attempt), EVENT_HEADERS)
        if reason is not None:
            letter = self.publisher.given_up(row, reason, step.body, now_ms)
            unit.send(self.dead_letters, record_key, letter, EVENT_HEADERS)
            unit.on_done(lambda: metrics.DEAD_LETTERS.labels(reason=reason.value).inc())

    def write_health(
        self,
        unit: Unit,
        row: WebhookRow,
        heart: Heart,
        change: HealthChange,
        last_code: int | None,
        attempt: str,
        now_ms: int,
    ) -> WebhookRow:
        """The row of a webhook after a change of its health, and the event that tells of it; `attempt` names why."""
        changed = with_health(row, heart, change, now_ms)
        key = webhook_key(row.webhook_id)
        unit.put(WEBHOOKS, key, changed)
        event = self.publisher.health(row.webhook_id, change, last_code, attempt, now_ms)
        unit.send(self.events, key, event, EVENT_HEADERS)
        return changed

    def write_applied(self, unit: Unit, row: WebhookRow, applied: Applied, command: Command, at_ms: int) -> None:
        """The row of a webhook after a command, and the event that is audited."""
        key = webhook_key(row.webhook_id)
        unit.put(WEBHOOKS, key, row)
        if applied.announce is not None:
            event = self.publisher.administered(
                applied.announce, row.webhook_id, command.command_id, command.actor, row.version, at_ms
            )
            unit.send(self.events, key, event, EVENT_HEADERS)
