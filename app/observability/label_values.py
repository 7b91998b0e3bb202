"""Label values that come from outside, mapped to a set that is closed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["OTHER", "LabelValues"]

OTHER: Final = "other"
# What looks like the name of a kind or of a program. No address, number, sentence or secret does.
_WORD: Final = re.compile(r"[A-Za-z](?:[A-Za-z_.-]|[0-9](?![0-9]{3})){0,39}", re.ASCII)


class LabelValues:
    """Known values, and the first few others that look like a name; everything else is `other`.

    Args:
        known: Always admitted.
        more: How many others.
    """

    def __init__(self, known: Iterable[str], more: int) -> None:
        self._admitted = {*known, OTHER}
        self._left = more

    def of(self, value: object) -> str:
        """The label for a value."""
        if not isinstance(value, str):
            return OTHER
        if value not in self._admitted:
            if not self._left or not _WORD.fullmatch(value):
                return OTHER
            self._left -= 1
            self._admitted.add(value)
        return value
