"""Ids that are a function of what they name (contracts 9.3)."""

import uuid
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from app.events.partitioning import murmur2

_DIGEST_BYTES: Final = 12
_DIGITS: Final = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS: Final = [high + low for high in _DIGITS for low in _DIGITS]
# A copy costs less than a new one with its length.
_empty_hasher: Final = blake2b(digest_size=_DIGEST_BYTES).copy


def delivery_id(webhook_id: str, source: str, event_id: str) -> str:
    """The id of the delivery of one event to one webhook.

    ``dlv_`` and lower-case unpadded base32 of the webhook id's murmur2 (4 bytes, big-endian; it tells which number has
    the webhook) and 12 bytes of blake2b over source, event id and webhook id: constant however often the event is seen.
    """
    head, rest = _head(webhook_id)
    hasher = _empty_hasher()
    hasher.update(f"{source}\0{event_id}\0{webhook_id}".encode())
    # 98 bits and two of padding are ten pairs of digits; written out, for a loop costs a third more, and the standard
    # library twice as much.
    bits = (rest | int.from_bytes(hasher.digest(), "big")) << 2
    return (
        f"{head}{_PAIRS[bits >> 90]}{_PAIRS[bits >> 80 & 0x3FF]}{_PAIRS[bits >> 70 & 0x3FF]}"
        f"{_PAIRS[bits >> 60 & 0x3FF]}{_PAIRS[bits >> 50 & 0x3FF]}{_PAIRS[bits >> 40 & 0x3FF]}"
        f"{_PAIRS[bits >> 30 & 0x3FF]}{_PAIRS[bits >> 20 & 0x3FF]}{_PAIRS[bits >> 10 & 0x3FF]}{_PAIRS[bits & 0x3FF]}"
    )


@lru_cache(maxsize=65536)
def _head(webhook_id: str) -> tuple[str, int]:
    """What all ids of a webhook begin with: 30 bits of its hash as digits, and two that stand before the digest."""
    hashed = murmur2(webhook_id.encode())
    head = f"dlv_{_PAIRS[hashed >> 22]}{_PAIRS[hashed >> 12 & 0x3FF]}{_PAIRS[hashed >> 2 & 0x3FF]}"
    return head, (hashed & 0b11) << 8 * _DIGEST_BYTES


def uuid7(now_ms: int, random_bytes: Callable[[int], bytes]) -> str:
    """A UUID of version 7 (RFC 9562, 5.7): time first, so that they sort by when they were made."""
    tail = int.from_bytes(random_bytes(10), "big")
    value = (now_ms & (1 << 48) - 1) << 80 | 0x7 << 76 | (tail >> 68 & 0xFFF) << 64 | 0b10 << 62 | tail & (1 << 62) - 1
    return str(uuid.UUID(int=value))
