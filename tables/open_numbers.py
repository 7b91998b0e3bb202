"""Who reads a number of a table that is open in this process; one for each table that is asked over HTTP."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["OpenNumbers"]

R = TypeVar("R")


class OpenNumbers(Generic[R]):
    """The readers of the numbers that are open here."""

    def __init__(self) -> None:
        self._open: dict[int, R] = {}

    def opened(self, number: int, reader: R) -> None:
        """A number can be read."""
        self._open[number] = reader

    def closed(self, number: int, reader: R) -> None:
        """It cannot be any more, unless it was opened anew meanwhile."""
        if self._open.get(number) is reader:
            del self._open[number]

    def get(self, number: int) -> R | None:
        """Who reads a number; None: it is not open here."""
        return self._open.get(number)
