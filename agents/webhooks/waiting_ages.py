"""How long the oldest waiting delivery of a number has waited (`vault_stream_deliveries_oldest_waiting_seconds`).

Counts by the time at which deliveries were made, a few seconds together: a million waiting rows that came within a
minute are twelve entries. What changes is counted as it changes. What waited when the number was opened is read from
the index in the background, a page at a time; up to where that is, changes of those webhooks are counted, too.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from app.observability import metrics
from app.webhooks.model import Status
from tables.deliveries import DELIVERIES, newest_first, place_of, status_prefix

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.engine import Context, Unit
    from app.webhooks.model import DeliveryRow

__all__ = ["WaitingAges"]

TOGETHER_MS: Final = 5000
PAGE_KEYS: Final = 1000
_WAITING: Final = (Status.PENDING, Status.RETRYING)
_open: set[WaitingAges] = set()


def _feed() -> None:
    metrics.DELIVERIES_OLDEST_WAITING_SECONDS.set(max((ages.oldest_s() for ages in _open), default=0.0))


metrics.before_scrape(_feed)


class WaitingAges:
    """One number's; part of the gauge until `close`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        # By the time, in units of TOGETHER_MS: how many, and the first of them.
        self._counts: dict[int, tuple[int, int]] = {}
        # By webhook: the index is read up to here.
        self._unread: dict[str, bytes] = {}
        _open.add(self)

    def oldest_s(self) -> float:
        """The age of the oldest one, to a few seconds; 0 where none waits."""
        if not self._counts:
            return 0.0
        _, first_ms = self._counts[min(self._counts)]
        return max(0, self._context.clock.now_ms() - first_ms) / 1000

    def row_changed(self, before: DeliveryRow | None, after: DeliveryRow | None) -> None:
        """A row was written: from what lay in the table to what lies there now."""
        if before is not None and before.status.waits and self._is_read(before):
            self._add(before.created_at_ms, -1)
        if after is not None and after.status.waits and self._is_read(after):
            self._add(after.created_at_ms, 1)

    def read_later(self, webhook_ids: Iterable[str]) -> None:
        """Deliveries of these webhooks waited when the number was opened; to be called before anything changes."""
        self._unread = dict.fromkeys(webhook_ids, b"")

    async def read(self) -> None:
        """Count them, between everything else."""
        for webhook_id in list(self._unread):
            for status in _WAITING:
                start = status_prefix(webhook_id, status)
                while await self._context.submit(partial(self._page, webhook_id, start)):
                    start = self._unread[webhook_id] + b"\x00"
            del self._unread[webhook_id]

    def close(self) -> None:
        """The number is counted elsewhere from now on."""
        _open.discard(self)

    def _page(self, webhook_id: str, start: bytes, unit: Unit) -> bool:
        prefix = start[: len(status_prefix(webhook_id, Status.PENDING))]
        keys = unit.scan_index(DELIVERIES, prefix, start=start, limit=PAGE_KEYS)
        # In the order of the jobs: what others of the same unit change counts before this page or after it.
        unit.on_done(partial(self._read_to, webhook_id, prefix, keys))
        return len(keys) == PAGE_KEYS

    def _read_to(self, webhook_id: str, prefix: bytes, keys: list[bytes]) -> None:
        for key in keys:
            self._add(place_of(key[len(prefix) :])[0], 1)
        self._unread[webhook_id] = keys[-1] if len(keys) == PAGE_KEYS else prefix + b"\xff"

    def _is_read(self, row: DeliveryRow) -> bool:
        read_to = self._unread.get(row.webhook_id)
        if read_to is None:
            return True
        place = newest_first(row.created_at_ms, row.delivery_id) + b"\x00" + row.webhook_id.encode()
        return status_prefix(row.webhook_id, row.status) + place <= read_to

    def _add(self, at_ms: int, change: int) -> None:
        together = at_ms // TOGETHER_MS
        count, first_ms = self._counts.get(together, (0, at_ms))
        if count + change > 0:
            self._counts[together] = (count + change, min(first_ms, at_ms))
        else:
            self._counts.pop(together, None)
