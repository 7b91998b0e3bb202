"""What was seen of late, in a memory that does not grow."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Recent"]

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The last things put into it, at least so many and at most twice as many.

    In two generations, for a dict that loses its oldest key again and again looks longer and longer for it.

    Args:
        at_least: How many.
    """

    def __init__(self, at_least: int) -> None:
        self._at_least = at_least
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def __len__(self) -> int:
        """How many it holds."""
        return len(self._young) + len(self._old)

    def put(self, key: K, value: V) -> None:
        """Remember it, as the youngest."""
        if len(self._young) >= self._at_least:
            self._young, self._old = {}, self._young
        self._young[key] = value

    def get(self, key: K) -> V | None:
        """What was put under a key, unless that is too long ago."""
        found = self._young.get(key)
        return self._old.get(key) if found is None else found
