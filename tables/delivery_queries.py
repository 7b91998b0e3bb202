"""Questions to the table of deliveries: the scheduler's, and the API's (contracts 8.3, deliveries).

All of them read one number, inside a unit. `Readers` is where the API finds the numbers that are open here.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from app.webhooks.backlog import MAX_CLASS
from app.webhooks.model import Status
from tables.deliveries import (
    DELIVERIES,
    EXPIRY_PREFIX,
    delivery_key,
    due_class_prefix,
    due_of,
    due_prefix,
    entry_of,
    event_prefix,
    expiry_of,
    expiry_place,
    horizon_bytes,
    id_prefix,
    lane_prefix,
    newest_first,
    place_of,
    sequence_bytes,
    sequence_of,
    status_prefix,
    time_prefix,
)
from tables.open_numbers import OpenNumbers

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping

    from app.engine import Unit
    from app.webhooks.backlog import Entry, Horizon
    from app.webhooks.model import DeliveryRow, Reason
    from app.webhooks.recent import Activity
    from app.webhooks.scheduler import Refill

__all__ = [
    "SCAN_LIMIT",
    "DeliveryPage",
    "DeliveryQuery",
    "FoundDelivery",
    "Place",
    "Reader",
    "Readers",
    "expired_keys",
    "find_delivery",
    "find_page",
    "last_in_lane",
    "merge_pages",
    "next_expiry_ms",
    "read_refill",
    "waiting_classes",
    "waiting_keys",
    "waiting_page",
]

T = TypeVar("T")
SCAN_LIMIT: Final = 10_000
_PAGE: Final = 1000
_READ_AT_ONCE: Final = 256
_AFTER_ID: Final = b"\x01"


class Place(NamedTuple):
    """Where a delivery stands in lists: newest first, then by id."""

    created_at_ms: int
    delivery_id: str

    @property
    def order(self) -> tuple[int, str]:
        """What lists are sorted by."""
        return -self.created_at_ms, self.delivery_id


@dataclass(frozen=True, slots=True)
class DeliveryQuery:
    """What to list; None: all.

    Attributes:
        after: Begin behind this place.
    """

    webhook_id: str | None = None
    status: Status | None = None
    event_id: str | None = None
    since_ms: int | None = None
    after: Place | None = None

    def asks_for(self, row: DeliveryRow) -> bool:
        """Whether a row belongs to the answer."""
        return (
            self.webhook_id in {None, row.webhook_id}
            and self.status in {None, row.status}
            and self.event_id in {None, row.event_id}
            and (self.since_ms is None or row.created_at_ms >= self.since_ms)
            and (self.after is None or place_in_lists(row).order > self.after.order)
        )


class FoundDelivery(NamedTuple):
    """A delivery as it is now; in flight, or waiting for a moment only, it may have no row yet."""

    row: DeliveryRow
    in_flight: bool

    @property
    def place(self) -> Place:
        """Its place in lists."""
        return place_in_lists(self.row)


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """A part of a list.

    Attributes:
        reached: There may be more behind this place; None: there is no more.
    """

    items: list[FoundDelivery]
    reached: Place | None = None


class Reader(Protocol):
    """A number that is open here."""

    async def read(self, job: Callable[[Unit, Mapping[str, FoundDelivery]], T]) -> T:
        """Run a job between slices; its second argument are the deliveries that the owner holds in memory, by id.

        Raises:
            Revoked: The number closed first.
        """

    def activity(self, webhook_id: str, now_ms: int) -> Activity:
        """What the owner knows of a webhook of this number; from memory."""


class Readers(OpenNumbers[Reader]):
    """The numbers of the deliveries table that are open in this process."""


def place_in_lists(row: DeliveryRow) -> Place:
    """The place of a row in lists."""
    return Place(row.created_at_ms, row.delivery_id)


def waiting_page(unit: Unit, start: bytes | None) -> tuple[list[tuple[Entry, Reason]], bytes | None]:
    """Up to 1,000 waiting deliveries of the number, by webhook and class, and where to go on."""
    keys = unit.scan_index(DELIVERIES, due_prefix(), start=start, limit=_PAGE)
    return [due_of(key) for key in keys], keys[-1] + b"\x00" if len(keys) == _PAGE else None


def waiting_classes(unit: Unit, webhook_id: str) -> Iterator[int]:
    """The classes in which deliveries of a webhook wait."""
    prefix = due_prefix(webhook_id)
    start: bytes | None = prefix
    while start is not None and (found := unit.scan_index(DELIVERIES, prefix, start=start, limit=1)):
        tries = due_of(found[0])[0].tries
        yield tries
        start = None if tries == MAX_CLASS else due_class_prefix(webhook_id, tries + 1)


def waiting_keys(unit: Unit, webhook_id: str, limit: int) -> list[bytes]:
    """The row keys of some deliveries of a webhook that wait."""
    found: list[bytes] = []
    for status in (Status.PENDING, Status.RETRYING):
        prefix = status_prefix(webhook_id, status)
        keys = unit.scan_index(DELIVERIES, prefix, limit=limit - len(found)) if len(found) < limit else []
        found += [place_of(key[len(prefix) :])[1] for key in keys]
    return found


def expired_keys(unit: Unit, from_ms: int, now_ms: int, limit: int) -> list[bytes]:
    """Keys of the expiry index, of rows that expired between the two times, both included."""
    return unit.scan_index(
        DELIVERIES, EXPIRY_PREFIX, start=expiry_place(from_ms), stop=expiry_place(now_ms + 1), limit=limit
    )


def next_expiry_ms(unit: Unit, from_ms: int) -> int | None:
    """When the next row expires, from a time on."""
    found = unit.scan_index(DELIVERIES, EXPIRY_PREFIX, start=expiry_place(from_ms), limit=1)
    return expiry_of(found[0]) if found else None


def last_in_lane(unit: Unit, webhook_id: str, lane: bytes) -> DeliveryRow | None:
    """The last that waits in a lane and was never tried, if it is among the first 10,000 of it."""
    prefix = lane_prefix(webhook_id, lane, 0)
    keys = unit.scan_index(DELIVERIES, prefix, limit=SCAN_LIMIT)
    return unit.get(DELIVERIES, delivery_key(webhook_id, sequence_of(keys[-1][len(prefix) :])[1])) if keys else None


def read_refill(
    unit: Unit, asked: Refill, flights: Container[str], *, strict: bool
) -> tuple[list[Entry], Horizon | None]:
    """What the scheduler asked for, without what is in flight, and where the rest begins."""
    if asked.lane is not None:
        return _lane(unit, asked, asked.lane, flights, strict=strict)
    prefix = due_class_prefix(asked.webhook_id, asked.tries)
    keys = unit.scan_index(DELIVERIES, prefix, start=prefix + horizon_bytes(*asked.horizon), limit=asked.limit)
    entries = [due_of(key)[0] for key in keys]
    horizon = (entries[-1].next_at_ms, entries[-1].sequence + 1) if len(keys) == asked.limit else None
    return [entry for entry in entries if entry.delivery_id not in flights], horizon


def find_delivery(unit: Unit, held: Mapping[str, FoundDelivery], delivery_id: str) -> FoundDelivery | None:
    """One delivery by its id."""
    if (found := held.get(delivery_id)) is not None:
        return found
    prefix = id_prefix(delivery_id)
    for key in unit.scan_index(DELIVERIES, prefix, limit=1):
        row = unit.get(DELIVERIES, key[len(prefix) :])
        if row is not None:
            return FoundDelivery(row, in_flight=False)
    return None


def find_page(unit: Unit, held: Mapping[str, FoundDelivery], query: DeliveryQuery, limit: int) -> DeliveryPage:
    """A page of a list, newest first; it ends early after 10,000 rows looked at."""
    unstored = sorted((found for found in held.values() if query.asks_for(found.row)), key=lambda f: f.place.order)
    items: list[FoundDelivery] = []
    last: Place | None = None
    for looked_at, (created_at_ms, key) in enumerate(_places(unit, query)):
        delivery_id = key.partition(b"\x00")[2].decode()
        place = Place(created_at_ms, delivery_id)
        while unstored and unstored[0].place.order <= place.order:
            items.append(unstored.pop(0))
        if len(items) >= limit or looked_at >= SCAN_LIMIT:
            return _cut(items, limit, items[limit - 1].place if len(items) >= limit else last)
        last = place
        row = None if delivery_id in held else unit.get(DELIVERIES, key)
        if row is not None and query.asks_for(row):
            items.append(FoundDelivery(row, in_flight=False))
    items += unstored
    return _cut(items, limit, None)


def merge_pages(pages: list[DeliveryPage], limit: int) -> DeliveryPage:
    """One page of several, each of other rows; nothing that one of them has not reached yet is passed."""
    reached = min((page.reached for page in pages if page.reached is not None), key=lambda p: p.order, default=None)
    items = sorted((item for page in pages for item in page.items), key=lambda item: item.place.order)
    if reached is None:
        return _cut(items, limit, None)
    return _cut([item for item in items if item.place.order <= reached.order], limit, reached)


def _cut(items: list[FoundDelivery], limit: int, reached: Place | None) -> DeliveryPage:
    if len(items) > limit or (reached is not None and len(items) == limit):
        return DeliveryPage(items[:limit], items[limit - 1].place)
    return DeliveryPage(items, reached)


def _lane(
    unit: Unit, asked: Refill, lane: bytes, flights: Container[str], *, strict: bool
) -> tuple[list[Entry], Horizon | None]:
    entries: list[Entry] = []
    reached: list[int] = []
    for tries in (0, 1) if strict else (0,):
        prefix = lane_prefix(asked.webhook_id, lane, tries)
        keys = unit.scan_index(DELIVERIES, prefix, start=prefix + sequence_bytes(asked.horizon[1]), limit=asked.limit)
        places = [sequence_of(key[len(prefix) :]) for key in keys]
        if len(keys) == asked.limit:
            reached.append(places[-1][0])
        for _, delivery_id in places:
            row = unit.get(DELIVERIES, delivery_key(asked.webhook_id, delivery_id))
            if row is not None and row.delivery_id not in flights:
                entries.append(entry_of(row))
    entries.sort(key=lambda entry: entry.sequence)
    if not reached:
        return entries, None
    # What one class has beyond the end of the other may come after something that was not read.
    return [entry for entry in entries if entry.sequence <= min(reached)], (0, min(reached) + 1)


def _places(unit: Unit, query: DeliveryQuery) -> Iterator[tuple[int, bytes]]:
    statuses = Status if query.status is None else (query.status,)
    if query.event_id is not None:
        prefixes = [event_prefix(query.event_id)]
    elif query.webhook_id is not None:
        prefixes = [status_prefix(query.webhook_id, status) for status in statuses]
    else:
        prefixes = [time_prefix(status) for status in statuses]
    found = heapq.merge(*(_newest_first(unit, prefix, query) for prefix in prefixes))
    return (place_of(place) for place in islice(found, SCAN_LIMIT + 1))


def _newest_first(unit: Unit, prefix: bytes, query: DeliveryQuery) -> Iterator[bytes]:
    start: bytes | None = prefix
    if query.after is not None:
        start = prefix + newest_first(query.after.created_at_ms, query.after.delivery_id) + _AFTER_ID
    stop = None if query.since_ms is None else prefix + newest_first(query.since_ms - 1)
    while start is not None:
        keys = unit.scan_index(DELIVERIES, prefix, start=start, stop=stop, limit=_READ_AT_ONCE)
        yield from (key[len(prefix) :] for key in keys)
        start = keys[-1] + b"\x00" if len(keys) == _READ_AT_ONCE else None
