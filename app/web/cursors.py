"""Cursors of lists: where the last page ended, as one opaque word (contracts 8.3, Lists)."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Final

from app.web.problems import FieldError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["cursor_of", "cursor_place", "parse_cursor"]

# A time of 15 digits is the year 9999 and fits every key; an id is one of ours.
_PLACE: Final = re.compile(r"([0-9]{1,15})/([A-Za-z0-9_-]{1,64})", re.ASCII)


def cursor_of(at_ms: int, id_: str) -> str:
    """The cursor behind an item.

    Args:
        at_ms: The time that the list is sorted by; milliseconds since 1970.
        id_: Tells items of one time apart.
    """
    return base64.urlsafe_b64encode(f"{at_ms}/{id_}".encode()).decode()


def parse_cursor(text: str) -> tuple[int, str]:
    """The inverse: time in milliseconds, and id.

    Raises:
        ValueError: It is no cursor.
    """
    place = _PLACE.fullmatch(base64.b64decode(text, altchars=b"-_", validate=True).decode())
    if place is None:
        raise ValueError("not a cursor")
    return int(place[1]), place[2]


def cursor_place(query: Mapping[str, str]) -> tuple[int, str] | None:
    """Where a list is to go on, by its query parameter `cursor`; None: at its beginning.

    Raises:
        Problem: 422, it is none that a list has given.
    """
    text = query.get("cursor")
    if text is None:
        return None
    try:
        return parse_cursor(text)
    except ValueError:
        error = FieldError("cursor", "invalid", "a next_cursor of an earlier answer")
        raise Problem(422, "invalid_query", "A query parameter is not understood.", errors=[error]) from None
