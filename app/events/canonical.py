"""Canonical JSON: RFC 8785 (JCS), except that integers keep all their digits (contracts 9.4).

What hashes, batch bytes, cache keys and ``schema_hash`` are computed over: sorted keys (by UTF-16 code units), no white
space, the shortest escapes, floats as ECMAScript prints them.
"""

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

import orjson

_FOUR_BYTE_LEAD: Final = frozenset(range(0xF0, 0xF5))
_LARGEST_PLAIN_EXPONENT: Final = 21
_SMALLEST_PLAIN_EXPONENT: Final = -6


def canonical_json(value: Any) -> bytes:
    """The one UTF-8 form of a JSON value.

    Args:
        value: ``dict`` (with ``str`` keys), ``list``, ``tuple``, ``str``, ``int`` of any size, ``float``, ``bool`` or
            ``None``, nested.

    Raises:
        TypeError: Something in it is not JSON.
        ValueError: A NaN or an infinity, or a string with half a surrogate pair.
    """
    if _orjson_agrees(value):
        try:
            encoded = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        except orjson.JSONEncodeError:
            encoded = None  # the writer below says what is wrong
        # orjson sorts by code point, RFC 8785 by UTF-16 unit: the same order unless a character is beyond U+FFFF.
        if encoded is not None and (encoded.isascii() or _FOUR_BYTE_LEAD.isdisjoint(encoded)):
            return encoded
    parts: list[str] = []
    _write(value, parts)
    return "".join(parts).encode()


def _orjson_agrees(value: Any) -> bool:
    """True if there is nothing in the tree that orjson writes otherwise, or that is not JSON."""
    pending: list[Any] = [value]
    while pending:
        node = pending.pop()
        kind = node.__class__
        if kind is str or kind is bool or node is None:
            continue
        if kind is int:
            if not -(2**63) <= node < 2**64:
                return False
        elif kind is dict:
            for key in node:
                if key.__class__ is not str:
                    return False
            pending.extend(node.values())
        elif kind is list:
            pending.extend(node)
        else:
            return False
    return True


def _write(value: Any, parts: list[str]) -> None:
    if value is None:
        parts.append("null")
    elif isinstance(value, bool):
        parts.append("true" if value else "false")
    elif isinstance(value, str):
        parts.append(_string(value))
    elif isinstance(value, int):
        parts.append(int.__repr__(value))
    elif isinstance(value, float):
        parts.append(_number(value))
    elif isinstance(value, dict):
        _write_members(value, parts)
    elif isinstance(value, list | tuple):
        _write_items(value, parts)
    else:
        raise TypeError(f"{type(value).__name__} is not JSON: pass dict, list, str, int, float, bool or None")


def _write_members(value: dict[Any, Any], parts: list[str]) -> None:
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"{type(key).__name__} is not a JSON key: pass str")
    separator = "{"
    for key in sorted(value, key=_utf16):
        parts.append(separator)
        parts.append(_string(key))
        parts.append(":")
        _write(value[key], parts)
        separator = ","
    parts.append("}" if value else "{}")


def _write_items(value: Iterable[Any], parts: list[str]) -> None:
    separator = "["
    for item in value:
        parts.append(separator)
        _write(item, parts)
        separator = ","
    parts.append("]" if separator == "," else "[]")


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be")


def _string(text: str) -> str:
    try:
        return orjson.dumps(str(text)).decode()
    except orjson.JSONEncodeError as error:
        raise ValueError("a string with half a surrogate pair") from error


def _number(number: float) -> str:
    """ECMAScript's Number::toString, from the shortest digits that Python's ``repr`` finds too."""
    if not math.isfinite(number):
        raise ValueError("NaN and infinities are not JSON")
    if number == 0:
        return "0"
    sign = "-" if number < 0 else ""
    _, figures, exponent = Decimal(repr(abs(float(number)))).as_tuple()
    # The value is 0.digits x 10^point.
    point = len(figures) + int(exponent)
    digits = "".join(map(str, figures)).rstrip("0")
    count = len(digits)
    if count <= point <= _LARGEST_PLAIN_EXPONENT:
        return f"{sign}{digits}{'0' * (point - count)}"
    if 0 < point <= _LARGEST_PLAIN_EXPONENT:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if _SMALLEST_PLAIN_EXPONENT < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    scale = point - 1
    rest = f".{digits[1:]}" if count > 1 else ""
    return f"{sign}{digits[0]}{rest}e{'+' if scale > 0 else '-'}{abs(scale)}"
