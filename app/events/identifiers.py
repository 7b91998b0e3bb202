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


def delivery_id(webhook_id: str, source: str, event_id: str) -> str:
    """The id of the delivery of one event to one webhook.

    ``dlv_`` and lower-case unpadded base32 of the webhook id's murmur2 (4 bytes, big-endian; it tells which number has
    the webhook) and 12 bytes of blake2b over source, event id and webhook id: constant however often the event is seen.
    """
    digest = blake2b(f"{source}\0{event_id}\0{webhook_id}".encode(), digest_size=_DIGEST_BYTES).digest()
    # 128 bits and two of padding are 13 pairs of digits; written out, for a loop costs a third more, and the standard
    # library twice as much.
    bits = int.from_bytes(_hash_bytes(webhook_id) + digest, "big") << 2
    return (
        f"dlv_{_PAIRS[bits >> 120]}{_PAIRS[bits >> 110 & 0x3FF]}{_PAIRS[bits >> 100 & 0x3FF]}"
        f"{_PAIRS[bits >> 90 & 0x3FF]}{_PAIRS[bits >> 80 & 0x3FF]}{_PAIRS[bits >> 70 & 0x3FF]}"
        f"{_PAIRS[bits >> 60 & 0x3FF]}{_PAIRS[bits >> 50 & 0x3FF]}{_PAIRS[bits >> 40 & 0x3FF]}"
        f"{_PAIRS[bits >> 30 & 0x3FF]}{_PAIRS[bits >> 20 & 0x3FF]}{_PAIRS[bits >> 10 & 0x3FF]}{_PAIRS[bits & 0x3FF]}"
    )


@lru_cache(maxsize=65536)
def _hash_bytes(webhook_id: str) -> bytes:
    return murmur2(webhook_id.encode()).to_bytes(4, "big")


def uuid7(now_ms: int, random_bytes: Callable[[int], bytes]) -> str:
    """A UUID of version 7 (RFC 9562, 5.7): time first, so that they sort by when they were made."""
    tail = int.from_bytes(random_bytes(10), "big")
    value = (now_ms & (1 << 48) - 1) << 80 | 0x7 << 76 | (tail >> 68 & 0xFFF) << 64 | 0b10 << 62 | tail & (1 << 62) - 1
    return str(uuid.UUID(int=value))
