"""Deliveries that cannot start at once but will in a moment: they wait in memory, their records unfinished.

A row would cost them more than the attempt does: encoded with its body, indexed, logged, read back and replaced. What
has not started within a second gets its row after all, and so does everything of a webhook that does not get on. After
a crash the unfinished records are read again.

None waits here behind a row of its webhook that was never tried, and none gets a row before those that came before it,
so that the order of a subject is the same after a crash.

A worker that has more to do than time takes fewer intents while what it has got on with waits: each that needs a row
takes from it what it needs to start the others.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from app.webhooks.model import Reason, Status
from tables.deliveries import lane_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.engine import Record
    from app.webhooks.census import Census
    from app.webhooks.model import DeliveryRow
    from app.webhooks.scheduler import Now, Scheduler

__all__ = ["BRIEF_LIMIT", "BRIEF_S", "BriefWait", "BriefWaits", "never_tried"]

BRIEF_LIMIT: Final = 256
BRIEF_S: Final = 1.0
LOOK_S: Final = 0.25
# From here on a busy worker lets the next slice wait a little; not for long, as it has other webhooks', too.
CROWDED: Final = 64
CROWDED_S: Final = 0.1
_LOOKED_AT: Final = 64
_BRIEF: Final = frozenset({Reason.SLOT, Reason.ORDER})


class BriefWait(NamedTuple):
    """One delivery, its unfinished intent, and since when it waits, by the monotonic clock."""

    row: DeliveryRow
    record: Record
    since_s: float

    def is_of(self, record: Record) -> bool:
        """Whether it came from this very record, whose slice is being run again."""
        mine = self.record
        return (mine.topic, mine.partition, mine.offset) == (record.topic, record.partition, record.offset)


class BriefWaits:
    """Those of one number, in the order in which they came.

    Args:
        scheduler: Has them among what waits.
        census: Counts them.
        busy: Whether the worker has more to do than time.

    Attributes:
        parked: By webhook, how many rows wait that were never tried, without those in flight.
    """

    def __init__(self, scheduler: Scheduler, census: Census, busy: Callable[[], bool]) -> None:
        self._scheduler = scheduler
        self._census = census
        self._busy = busy
        self._waits: dict[str, BriefWait] = {}
        self._of_webhook: Counter[str] = Counter()
        self._crowded_since_s: float | None = None
        self.parked: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._waits)

    def get(self, delivery_id: str) -> BriefWait | None:
        """One of them."""
        return self._waits.get(delivery_id)

    def rows(self) -> list[DeliveryRow]:
        """All of them."""
        return [wait.row for wait in self._waits.values()]

    def suit(self, row: DeliveryRow, now: Now) -> bool:
        """Whether a delivery that is new may wait here."""
        return (
            row.reason in _BRIEF
            and row.webhook_id not in self.parked
            and len(self._waits) < BRIEF_LIMIT
            and self._scheduler.gets_on(row.webhook_id, now)
            and self._scheduler.keeps(row.webhook_id, lane_of(row.subject))
        )

    def add(self, row: DeliveryRow, record: Record, now: Now) -> None:
        """It waits."""
        self._waits[row.delivery_id] = BriefWait(row, record, now.monotonic_s)
        self._of_webhook[row.webhook_id] += 1
        self._census.waits(row.reason, 1)

    def take(self, delivery_id: str) -> BriefWait | None:
        """It waits no more; None: it did not."""
        wait = self._waits.pop(delivery_id, None)
        if wait is not None:
            row = wait.row
            self._of_webhook[row.webhook_id] -= 1
            if not self._of_webhook[row.webhook_id]:
                del self._of_webhook[row.webhook_id]
            self._census.waits(row.reason, -1)
        return wait

    def concern(self, webhook_id: str) -> bool:
        """Whether any is of this webhook, or must not overtake its rows."""
        return webhook_id in self._of_webhook or webhook_id in self.parked

    def all_of(self, webhook_id: str) -> list[BriefWait]:
        """All of a webhook, in order."""
        if webhook_id not in self._of_webhook:
            return []
        return [wait for wait in self._waits.values() if wait.row.webhook_id == webhook_id]

    def overdue(self, now: Now) -> list[BriefWait]:
        """All of each webhook of which one has waited for long, or that does not get on."""
        slow = {wait.row.webhook_id for wait in self._waits.values() if now.monotonic_s - wait.since_s >= BRIEF_S}
        slow |= {webhook_id for webhook_id in self._of_webhook if not self._scheduler.gets_on(webhook_id, now)}
        return [wait for wait in self._waits.values() if wait.row.webhook_id in slow]

    def row_changed(self, stored: DeliveryRow | None, after: DeliveryRow | None) -> None:
        """A row was written: from what lies in the table to what lies there now."""
        for row, change in ((stored, -1), (after, 1)):
            if row is not None and never_tried(row):
                self.parks(row.webhook_id, change)

    def starts(self, stored: DeliveryRow | None) -> None:
        """A delivery is in flight, with this row in the table."""
        if stored is not None and never_tried(stored):
            self.parks(stored.webhook_id, -1)

    def lands(self, stored: DeliveryRow | None) -> None:
        """It is so no longer; what its row becomes is told by `row_changed`."""
        if stored is not None and never_tried(stored):
            self.parks(stored.webhook_id, 1)

    def drop(self, webhook_id: str) -> None:
        """The last of a webhook is gone."""
        self.parked.pop(webhook_id, None)

    def parks(self, webhook_id: str, change: int) -> None:
        """A row that was never tried begins to wait (1) or ends (-1)."""
        self.parked[webhook_id] += change
        if not self.parked[webhook_id]:
            del self.parked[webhook_id]

    def crowded_s(self, now: Now) -> float:
        """How long the next slice should wait, so that not all of it needs a row; 0: not any longer."""
        if not self._busy() or not self._crowded(now):
            self._crowded_since_s = None
            return 0.0
        if self._crowded_since_s is None:
            self._crowded_since_s = now.monotonic_s
        left_s = self._crowded_since_s + CROWDED_S - now.monotonic_s
        if left_s <= 0:
            self._crowded_since_s = None
        return max(0.0, left_s)

    def _crowded(self, now: Now) -> bool:
        # Behind a row all that comes needs one, so those that get on are worked off to the last.
        parked = islice(self.parked, _LOOKED_AT)
        return len(self._waits) >= CROWDED or any(self._scheduler.gets_on(webhook_id, now) for webhook_id in parked)


def never_tried(row: DeliveryRow) -> bool:
    """Whether a row waits among those that are tried in the order in which they came."""
    return row.status is Status.PENDING
