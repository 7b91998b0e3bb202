"""Ids that are a function of what they name (contracts 9.3)."""

from base64 import b32encode
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from app.events.partitioning import murmur2

_PREFIX: Final = "dlv_"
_DIGEST_BYTES: Final = 12


def delivery_id(webhook_id: str, source: str, event_id: str) -> str:
    """The id of the delivery of one event to one webhook.

    ``dlv_`` and lower-case unpadded base32 of the webhook id's murmur2 (4 bytes, big-endian; it tells which number has
    the webhook) and 12 bytes of blake2b over source, event id and webhook id: constant however often the event is seen.
    """
    digest = blake2b(f"{source}\0{event_id}\0{webhook_id}".encode(), digest_size=_DIGEST_BYTES).digest()
    return _PREFIX + b32encode(_hash_bytes(webhook_id) + digest).decode().rstrip("=").lower()


@lru_cache(maxsize=65536)
def _hash_bytes(webhook_id: str) -> bytes:
    return murmur2(webhook_id.encode()).to_bytes(4, "big")
