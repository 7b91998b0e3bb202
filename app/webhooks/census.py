"""How much waits and why, and how webhooks are: one number's share of the worker's gauges (contracts 7)."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Final

from app.observability import metrics

if TYPE_CHECKING:
    from app.webhooks.model import DeliveryRow, Health, Reason
    from app.webhooks.owned import KeySetting

__all__ = ["Census", "attempt_class", "webhooks_without_key"]

# Looked up once: all of it is counted at each delivery.
_add_waiting: Final = metrics.adder(metrics.QUEUE_DEPTH.labels(queue_name="webhooks_waiting"))
_add_in_flight: Final = metrics.adder(metrics.QUEUE_DEPTH.labels(queue_name="webhooks_in_flight"))
_waiting_for = cache(lambda reason: metrics.adder(metrics.DELIVERIES_WAITING.labels(reason=reason.value)))
_became = cache(lambda status: metrics.adder(metrics.DELIVERIES.labels(status=status.value)))

_keyless: Final[dict[tuple[int, str], KeySetting]] = {}
"""Where a key is missing, for the webhooks of all numbers, each with the census that has it."""


class Census:
    """Counts of one number; `close` takes them out of the gauges, which the numbers of a worker share.

    Args:
        without_key: Whether the worker has no key at all: then one is missing whatever becomes of the webhooks.
    """

    def __init__(self, *, without_key: bool = False) -> None:
        self._without_key = without_key
        self._keyless: set[str] = set()
        self._waiting: Counter[Reason] = Counter()
        self._health: Counter[Health] = Counter()
        self._in_flight = 0

    def waits(self, reason: Reason | None, change: int) -> None:
        """A row begins to wait (1) or ends (-1)."""
        if reason is not None:
            self._waiting[reason] += change
            _waiting_for(reason)(change)
            _add_waiting(change)

    def row_changed(self, before: DeliveryRow | None, after: DeliveryRow | None) -> None:
        """A row was written: from what lies in the table to what lies there now."""
        if before is not None and before.status.waits:
            self.waits(before.reason, -1)
        if after is not None and after.status.waits:
            self.waits(after.reason, 1)
        if after is not None and (before is None or before.status is not after.status):
            _became(after.status)(1)

    def flies(self, change: int) -> None:
        """An attempt begins (1) or ends (-1)."""
        self._in_flight += change
        _add_in_flight(change)

    def webhook(self, before: Health | None, after: Health | None) -> None:
        """The health of a webhook changed; None: it is not there."""
        for health, change in ((before, -1), (after, 1)):
            if health is not None:
                self._health[health] += change
                metrics.WEBHOOKS.labels(health=health.value).inc(change)

    def key(self, webhook_id: str, missing: KeySetting | None) -> None:
        """Whether a key that a webhook needs is missing here."""
        if missing is not None:
            self._keyless.add(webhook_id)
            _keyless[id(self), webhook_id] = missing
            metrics.ENCRYPTION_KEY_MISSING.set(1)
        elif webhook_id in self._keyless:
            self._keyless.discard(webhook_id)
            del _keyless[id(self), webhook_id]
            metrics.ENCRYPTION_KEY_MISSING.set(self._without_key or bool(_keyless))

    def close(self) -> None:
        """The number is counted elsewhere from now on."""
        for webhook_id in list(self._keyless):
            self.key(webhook_id, None)
        for reason, count in list(self._waiting.items()):
            self.waits(reason, -count)
        for health, count in list(self._health.items()):
            for _ in range(count):
                self.webhook(health, None)
        self.flies(-self._in_flight)


def webhooks_without_key() -> Counter[KeySetting]:
    """How many webhooks of this worker have deliveries that wait for a key, by where it is missing, as far as tried."""
    return Counter(_keyless.values())


def attempt_class(status_code: int | None, error: str | None) -> str:
    """The label of an attempt: `2xx` and so on where there was an answer, else the error."""
    return error or "2xx" if status_code is None else f"{status_code // 100}xx"
