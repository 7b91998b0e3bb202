"""Which number a key belongs to, and which worker owns it now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from app.engine.outputs import partition_of

__all__ = ["Owner", "Ownership"]


@dataclass(frozen=True, slots=True)
class Owner:
    """A worker: its name, and the URL at which other workers reach it."""

    name: str
    url: str


class Ownership:
    """The owner table of the last assignment.

    Args:
        count: N.
        ready: Whether this process has a number open now.
    """

    def __init__(self, count: int, ready: Callable[[int], bool]) -> None:
        self.count = count
        self._ready = ready
        self._owners: Mapping[int, Owner] = {}

    def update(self, owners: Mapping[int, Owner]) -> None:
        """A new assignment."""
        self._owners = owners

    def number_of(self, key: bytes) -> int:
        """The number of a record key."""
        return partition_of(key, self.count)

    def owner(self, number: int) -> Owner | None:
        """Its owner, None while nobody owns it as far as we know."""
        return self._owners.get(number)

    def worker(self, name: str) -> Owner | None:
        """The worker of that name, None if it owns nothing as far as we know."""
        return next((owner for owner in self._owners.values() if owner.name == name), None)

    def is_mine(self, number: int) -> bool:
        """Whether this process owns the number and has its rows."""
        return self._ready(number)
