"""Which partition a key belongs to: murmur2, as Kafka's default partitioner (contracts 1.4)."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Protocol

from aiokafka.partitioner import murmur2 as _murmur2

from app.events.envelope import extension_text


class Keyed(Protocol):
    """The attributes of an event that its record key comes from."""

    @property
    def id(self) -> str:
        """The event's id."""

    @property
    def subject(self) -> str | None:
        """The event's subject, if any."""

    @property
    def extensions(self) -> Mapping[str, str | bool | int]:
        """The event's extension attributes."""


@lru_cache(maxsize=65536)
def murmur2(key: bytes) -> int:
    """Kafka's hash of a key: murmur2 with the sign bit cleared, 0 to 2**31 - 1.

    Remembered for the keys seen last: the hash costs 5 us in Python, and keys repeat.
    """
    return int(_murmur2(key)) & 0x7FFFFFFF


def partition_for(key: bytes, count: int) -> int:
    """The partition of ``key`` in a topic of ``count`` partitions, as Java's producer chooses it."""
    return murmur2(key) % count


def record_key(event: Keyed) -> bytes:
    """The key of the event's record: extension ``partitionkey``, else ``subject``, else ``id`` (contracts 1.1)."""
    partition_key = event.extensions.get("partitionkey")
    if partition_key is not None:
        return extension_text(partition_key).encode()
    return (event.subject or event.id).encode()
