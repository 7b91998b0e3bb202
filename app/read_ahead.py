"""Randomness for the ids of what comes a thousand times a second."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ReadAhead"]

_BLOCK_BYTES: Final = 4096


class ReadAhead:
    """The kernel's randomness, a block at a time: each system call gives the interpreter's lock to another thread.

    For one thread, and for ids only: what waits to be handed out lies in memory, where a key must not.

    Args:
        source: Where it comes from.
    """

    def __init__(self, source: Callable[[int], bytes] = os.urandom) -> None:
        self._source = source
        self._block = b""
        self._at = 0
        # Two processes must not hand out the same bytes.
        os.register_at_fork(after_in_child=self._forget)

    def __call__(self, count: int) -> bytes:
        """So many bytes, which nobody was given before."""
        if self._at + count > len(self._block):
            self._block, self._at = self._source(max(count, _BLOCK_BYTES)), 0
        begin, self._at = self._at, self._at + count
        return self._block[begin : self._at]

    def _forget(self) -> None:
        self._block, self._at = b"", 0
