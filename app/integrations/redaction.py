"""What an audit trail must not repeat: secrets by the name of their field, personal data by its form.

Two rules (contracts 4):

- *By name*: whatever stands under `password`, `token`, `secret`, `api_key`, `authorization`, `credit_card` or `ssn` is
  replaced, in any spelling (`apiKey`, `client-secret`, `DB_PASSWORD`). A number under a name that merely contains
  `token` (`max_tokens`, `token_count`) is a count and stays.
- *By form*: e-mail addresses, US social security numbers, payment card numbers (with a valid check digit) and
  telephone numbers are replaced wherever they stand in a text, keys of objects included.

Nearly all events hold neither, and `may_hold_secrets` says so in 1 µs; only the others are walked.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import Any, Final

import orjson

__all__ = ["REDACTED", "may_hold_secrets", "redact", "redact_text"]

REDACTED: Final = "[redacted]"

# Two foldings of a document, in which every spelling of what is looked for is one byte string: letters small, digits 0,
# separators gone; and digits 0, separators a dash.
_SEPARATORS: Final = b" -_.()"
_SMALL: Final = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ123456789", b"abcdefghijklmnopqrstuvwxyz000000000")
# Digits 0, and what may stand between the digits of a number gone, but for the dot of fractions.
_DIGITS: Final = bytes.maketrans(b"123456789", b"000000000")
_GAPS: Final = b" -()"
# As integers: Python looks for a byte of that number seven times as fast as for bytes of length one.
_AT: Final = ord("@")
_PLUS: Final = ord("+")
_DOT: Final = ord(".")
_ARRAY: Final = ord("[")
_DASHED: Final = bytes.maketrans(b"123456789 .()", b"000000000----")

_ANYWHERE: Final = (b"password", b"secret", b"apikey", b"authorization", b"creditcard")
_WORD_ENDS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
_SSN_WORDS: Final = frozenset({"ssn", "ssns"})

_EMAIL: Final = re.compile(r"[\w.%+-]+@[\w-]+(?:\.[\w-]+)+")
_SSN: Final = re.compile(r"(?<![\w-])\d{3}[- ]\d{2}[- ]\d{4}(?![\w-])", re.ASCII)
_CARD: Final = re.compile(r"(?<![\w-])(?:\d[ -]?){12,18}\d(?![\w-])", re.ASCII)
_PHONE: Final = re.compile(
    r"(?<![\w+-])(?:\+\d(?:[ ().-]{0,2}\d){7,14}|\(\d{3}\) ?\d{3}[-. ]\d{4}|\d{3}[-. ]\d{3}[-. ]\d{4})(?![\w-])",
    re.ASCII,
)
_LUHN_BASE: Final = 10
_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


class _Rule(Enum):
    """What happens to the value under a key."""

    KEEP = 0
    REPLACE = 1
    REPLACE_UNLESS_NUMBER = 2


def may_hold_secrets(value: Any) -> bool:
    """Whether a JSON value could hold anything that `redact` would change.

    Never False for one that does; True for some that do not, such as one with a long number.
    """
    document = orjson.dumps(value)
    # An object of scalars; one with such a bracket in a text is searched as if it were deeper.
    if value.__class__ is dict and _ARRAY not in document and document.rfind(b"{") == 0:
        named = _has_secret_name(tuple(value))
    else:
        named = _may_hold_secret_name(document)
    return named or _may_hold_personal_data(document)


@lru_cache(maxsize=4096)
def _has_secret_name(keys: tuple[str, ...]) -> bool:
    return any(_rule(key) is not _Rule.KEEP for key in keys)


def _may_hold_secret_name(document: bytes) -> bool:
    small = document.translate(_SMALL, _SEPARATORS)
    # Written out: a loop over the words costs as much again as the searches.
    return (
        b"password" in small
        or b"token" in small
        or b"secret" in small
        or b"apikey" in small
        or b"authorization" in small
        or b"creditcard" in small
        or b"ssn" in small
        or b"\\u00" in document
    )


def _may_hold_personal_data(document: bytes) -> bool:
    if _AT in document:
        return True
    # As text: Python looks for bytes in bytes only after it has tried to take them for a number.
    digits = document.translate(_DIGITS, _GAPS).decode("latin-1")
    if (
        "000000000" not in digits
        and (_DOT not in document or "000.0000" not in digits)
        and (_PLUS not in document or "+0" not in digits)
    ):
        return False
    small = document.translate(_SMALL, _SEPARATORS)
    dashed = document.translate(_DASHED)
    return (
        b"0000000000000" in small
        or b"+00000000" in small
        or b"000-00-0000" in dashed
        or b"000-000-0000" in dashed
        or b"000--000-0000" in dashed
    )


def redact(value: Any) -> Any:
    """The JSON value without secrets and personal data; the argument is left as it is."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, list):
        return [redact(item) for item in value]
    if not isinstance(value, dict):
        return value
    clean: dict[str, Any] = {}
    for key, item in value.items():
        name = redact_text(key)
        while name in clean:
            name += "'"
        clean[name] = REDACTED if _replaces(_rule(key), item) else redact(item)
    return clean


def redact_text(text: str) -> str:
    """The text with every e-mail address, social security, card and telephone number replaced."""
    if "@" in text:
        text = _EMAIL.sub("[redacted:email]", text)
    if any(map(str.isdigit, text)):
        text = _CARD.sub(_card, text)
        text = _SSN.sub("[redacted:ssn]", text)
        text = _PHONE.sub("[redacted:phone]", text)
    return text


def _replaces(rule: _Rule, item: Any) -> bool:
    if rule is _Rule.REPLACE_UNLESS_NUMBER:
        return not isinstance(item, int | float)
    return rule is _Rule.REPLACE


@lru_cache(maxsize=4096)
def _rule(key: str) -> _Rule:
    # The same folding as in `may_hold_secrets`, or that would miss what this finds.
    flat = key.encode("utf-8", "replace").translate(_SMALL, _SEPARATORS)
    if any(name in flat for name in _ANYWHERE) or flat.endswith(b"token"):
        return _Rule.REPLACE
    if not _SSN_WORDS.isdisjoint(_WORD_ENDS.sub(" ", key).lower().split(" ")):
        return _Rule.REPLACE
    return _Rule.REPLACE_UNLESS_NUMBER if b"token" in flat else _Rule.KEEP


def _card(match: re.Match[str]) -> str:
    digits = [int(character) for character in match.group() if character.isdigit()]
    checked = sum(_DOUBLED[digit] if place % 2 else digit for place, digit in enumerate(reversed(digits)))
    return match.group() if checked % _LUHN_BASE else "[redacted:card]"
