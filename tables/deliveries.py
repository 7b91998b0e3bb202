"""The table of deliveries, and the indexes that answer its questions (architecture 2).

Row key: webhook id, NUL, delivery id. The indexes are local and derived; each begins with one letter:

- `d` what is due: webhook, class, due time, sequence. One scan is one class of one webhook, as `Backlog` reads it;
  the key holds all of an `Entry` and the reason, so that a million waiting rows can be counted without reading them.
- `l` what waits in a lane: webhook, lane, class 0 or 1, sequence.
- `i` a delivery by its id alone.
- `e` the deliveries of one event (by a hash of its id), `s` one webhook's by status, `u` all by status: each newest
  first.
- `x` what expires: given up while it waits, removed once it ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from app.engine import Table
from app.webhooks.backlog import MAX_CLASS, Entry
from app.webhooks.model import DeliveryRow, Reason, Status

__all__ = [
    "DELIVERIES",
    "EXPIRY_PREFIX",
    "DeliveryRow",
    "delivery_key",
    "due_class_prefix",
    "due_of",
    "due_prefix",
    "entry_of",
    "event_prefix",
    "expiring_key",
    "expiry_of",
    "expiry_place",
    "horizon_bytes",
    "id_prefix",
    "lane_of",
    "lane_prefix",
    "newest_first",
    "place_of",
    "sequence_bytes",
    "sequence_of",
    "status_prefix",
    "time_prefix",
]

EXPIRY_PREFIX: Final = b"x"
_NUL: Final = b"\x00"
_TIME_BYTES: Final = 8
_LANE_BYTES: Final = 8
_SUBJECTS_KEPT: Final = 16_384
_KEPT_CHARS: Final = 256
_EVENT_HASH: Final = blake2b(digest_size=16)
_LATEST_MS: Final = 2**63 - 1
_NO_LANE: Final = bytes(1 + _LANE_BYTES)
_STATUS_BYTES: Final = {status: bytes([place]) for place, status in enumerate(Status)}
_REASONS: Final = tuple(Reason)


def delivery_key(webhook_id: str, delivery_id: str) -> bytes:
    """The row key of a delivery."""
    return webhook_id.encode() + _NUL + delivery_id.encode()


def lane_of(subject: str | None) -> bytes | None:
    """The lane of a subject; two that collide are merely kept in one order."""
    if subject is None:
        return None
    # Subjects have no limit of their own, so that long ones are not kept.
    return _lane_of(subject) if len(subject) <= _KEPT_CHARS else _lane_of.__wrapped__(subject)


@lru_cache(_SUBJECTS_KEPT)
def _lane_of(subject: str) -> bytes:
    return blake2b(subject.encode(), digest_size=_LANE_BYTES).digest()


def entry_of(row: DeliveryRow) -> Entry:
    """What the scheduler needs of a waiting row."""
    return Entry(
        row.next_at_ms or 0, row.sequence, row.delivery_id, row.webhook_id, _class_of(row), lane_of(row.subject)
    )


def due_prefix(webhook_id: str | None = None) -> bytes:
    """All waiting rows, or those of one webhook."""
    return b"d" if webhook_id is None else b"d" + webhook_id.encode() + _NUL


def due_class_prefix(webhook_id: str, tries: int) -> bytes:
    """The waiting rows of one class; append `horizon_bytes` to begin there."""
    return due_prefix(webhook_id) + bytes([tries])


def due_of(index_key: bytes) -> tuple[Entry, Reason]:
    """What a key of the due index says."""
    webhook_id, _, rest = index_key[1:].partition(_NUL)
    tries, at_ms, sequence = rest[0], int.from_bytes(rest[1:9], "big"), int.from_bytes(rest[9:17], "big")
    lane = rest[19 : 19 + _LANE_BYTES] if rest[18] else None
    delivery_id = rest[19 + _LANE_BYTES :].decode()
    return Entry(at_ms, sequence, delivery_id, webhook_id.decode(), tries, lane), _REASONS[rest[17]]


def lane_prefix(webhook_id: str, lane: bytes, tries: int) -> bytes:
    """The rows that wait in a lane, by sequence: those never tried (class 0), or all others."""
    return b"l" + webhook_id.encode() + _NUL + lane + bytes([min(tries, 1)])


def sequence_bytes(sequence: int) -> bytes:
    """A place inside a lane."""
    return _ms(sequence)


def sequence_of(place: bytes) -> tuple[int, str]:
    """What lies behind the prefix of a key of `l`: the sequence and the delivery id."""
    return int.from_bytes(place[:_TIME_BYTES], "big"), place[_TIME_BYTES:].decode()


def id_prefix(delivery_id: str) -> bytes:
    """The delivery of this id, whatever its webhook."""
    return b"i" + delivery_id.encode() + _NUL


def event_prefix(event_id: str) -> bytes:
    """The deliveries of one event, by its id; another event may have the same hash."""
    # A copy costs less than one that is made anew.
    event_hash = _EVENT_HASH.copy()
    event_hash.update(event_id.encode())
    return b"e" + event_hash.digest()


def status_prefix(webhook_id: str, status: Status) -> bytes:
    """One webhook's deliveries of one status, newest first."""
    return b"s" + webhook_id.encode() + _NUL + _STATUS_BYTES[status]


def time_prefix(status: Status) -> bytes:
    """All deliveries of one status, newest first."""
    return b"u" + _STATUS_BYTES[status]


def newest_first(created_at_ms: int, delivery_id: str = "") -> bytes:
    """A place behind the prefix of `e`, `s` and `t`; without an id: before all deliveries of this time."""
    return (_LATEST_MS - created_at_ms).to_bytes(_TIME_BYTES, "big") + delivery_id.encode()


def place_of(place: bytes) -> tuple[int, bytes]:
    """What lies behind the prefix of a key of `e`, `s` or `t`: the time of the delivery, and its row key."""
    delivery_id, _, webhook_id = place[_TIME_BYTES:].partition(_NUL)
    return _LATEST_MS - int.from_bytes(place[:_TIME_BYTES], "big"), webhook_id + _NUL + delivery_id


def expiry_place(expires_at_ms: int) -> bytes:
    """Where the rows that expire at this time begin in the expiry index."""
    return EXPIRY_PREFIX + _ms(expires_at_ms)


def expiry_of(index_key: bytes) -> int:
    """When the row of a key of the expiry index expires."""
    return int.from_bytes(index_key[1:9], "big")


def expiring_key(index_key: bytes) -> bytes:
    """The row key of a key of the expiry index."""
    return index_key[1 + _TIME_BYTES :]


def horizon_bytes(at_ms: int, sequence: int) -> bytes:
    """A place inside a class of the due index."""
    return _ms(at_ms) + _ms(sequence)


def _index(key: bytes, row: DeliveryRow) -> Iterable[bytes]:
    # As the functions above say it, but written out: it is made of each delivery.
    webhook_id, delivery_id, status = row.webhook_id.encode(), row.delivery_id.encode(), _STATUS_BYTES[row.status]
    by_time = (_LATEST_MS - row.created_at_ms).to_bytes(_TIME_BYTES, "big") + delivery_id + _NUL + webhook_id
    keys = [
        b"i" + delivery_id + _NUL + key,
        event_prefix(row.event_id) + by_time,
        b"s" + webhook_id + _NUL + status + by_time,
        b"u" + status + by_time,
        EXPIRY_PREFIX + _ms(row.expires_at_ms) + key,
    ]
    if row.status.waits:
        keys += _waiting(row)
    return keys


def _waiting(row: DeliveryRow) -> Iterator[bytes]:
    tries, lane = _class_of(row), lane_of(row.subject)
    place = horizon_bytes(row.next_at_ms or 0, row.sequence)
    reason = bytes([_REASONS.index(row.reason or Reason.SLOT)])
    marked = _NO_LANE if lane is None else b"\x01" + lane
    yield due_class_prefix(row.webhook_id, tries) + place + reason + marked + row.delivery_id.encode()
    if lane is not None:
        yield lane_prefix(row.webhook_id, lane, tries) + _ms(row.sequence) + row.delivery_id.encode()


def _class_of(row: DeliveryRow) -> int:
    return 0 if row.status is Status.PENDING else max(1, min(row.attempts, MAX_CLASS))


def _ms(value: int) -> bytes:
    return max(0, value).to_bytes(_TIME_BYTES, "big")


DELIVERIES = Table("deliveries", prefix=2, row=DeliveryRow, index=_index)
