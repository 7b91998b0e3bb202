"""Cursors of lists: where the last page ended, as one opaque word (contracts 8.3, Lists).

A digest in it, of the list's name, too, shows one that was cut, changed, or is another list's. It is no secret: whoever
makes up a cursor sees what the list shows anyway.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Final

from app.web.problems import FieldError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["cursor_of", "cursor_place", "open_cursor", "parse_cursor", "seal_cursor", "wrong_cursor"]

# A time of 15 digits is the year 9999 and fits every key; an id is one of ours.
_PLACE: Final = re.compile(r"([0-9]{1,15})/([A-Za-z0-9_-]{1,64})", re.ASCII)

_DIGEST_BYTES: Final = 6


def seal_cursor(list_name: str, place: bytes) -> str:
    """The cursor for a place in a list."""
    return base64.urlsafe_b64encode(_digest(list_name, place) + place).decode()


def open_cursor(list_name: str, text: str) -> bytes:
    """The inverse.

    Raises:
        ValueError: It is no cursor of this list.
    """
    sealed = base64.b64decode(text, altchars=b"-_", validate=True)
    place = sealed[_DIGEST_BYTES:]
    if sealed[:_DIGEST_BYTES] != _digest(list_name, place):
        raise ValueError("not a cursor of this list")
    return place


def _digest(list_name: str, place: bytes) -> bytes:
    return hashlib.blake2b(list_name.encode() + b"\x00" + place, digest_size=_DIGEST_BYTES).digest()


def cursor_of(at_ms: int, id_: str, list_name: str) -> str:
    """The cursor behind an item.

    Args:
        at_ms: The time that the list is sorted by; milliseconds since 1970.
        id_: Tells items of one time apart.
        list_name: Tells the cursors of lists apart.
    """
    return seal_cursor(list_name, f"{at_ms}/{id_}".encode())


def parse_cursor(text: str, list_name: str) -> tuple[int, str]:
    """The inverse: time in milliseconds, and id.

    Raises:
        ValueError: It is no cursor.
    """
    place = _PLACE.fullmatch(open_cursor(list_name, text).decode())
    if place is None:
        raise ValueError("not a cursor")
    return int(place[1]), place[2]


def cursor_place(query: Mapping[str, str], list_name: str) -> tuple[int, str] | None:
    """Where a list is to go on, by its query parameter `cursor`; None: at its beginning.

    Raises:
        Problem: 422, it is none that a list has given.
    """
    text = query.get("cursor")
    if text is None:
        return None
    try:
        return parse_cursor(text, list_name)
    except ValueError:
        raise wrong_cursor() from None


def wrong_cursor(field: str = "cursor") -> Problem:
    """422 for what no page of the list has given."""
    error = FieldError(field, "invalid", "a next_cursor of an earlier page of this list")
    return Problem(422, "invalid_query", "A cursor is not understood.", errors=[error])
