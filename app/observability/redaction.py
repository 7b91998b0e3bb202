"""What of a value may be shown: no secret, no control character, and no more than a bounded part of it."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretBytes, SecretStr

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["REDACTED", "encodable", "escaped", "plain_fields", "redacted"]

REDACTED: Final = "[redacted]"
_SECRET_NAME: Final = re.compile(
    r"pass(?:word|wd|phrase)|secret|token|api[_-]?key|authorization|cookie|credit[_-]?card|private[_-]?key"
    r"|(?:encryption|signing)[_-]?keys?|signature|credential|(?:^|[^a-z])ssn(?:$|[^a-z])",
    re.IGNORECASE,
)
# The forms in which secrets stand in the middle of a text: our keys, an Authorization value, the user part of a URL.
_SECRET_TEXT: Final = re.compile(
    r"(?P<before>wh(?:sec|sk)_)[A-Za-z0-9+/=_-]+"
    r"|(?P<scheme>\b(?:Bearer|Basic)\s+)[\w.~+/=-]{4,}"
    r"|(?P<url>://)[^/\s@:]*:[^/\s@]*@",
    re.IGNORECASE,
)
# C0, DEL and C1, the Unicode line breaks, and the marks that change the direction of a text.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

_MAX_CHARACTERS: Final = 8192
_MAX_ITEMS: Final = 64
_MAX_DEPTH: Final = 6
_MAX_INT: Final = 2**63 - 1


def _without_secret(match: re.Match[str]) -> str:
    if match["url"]:
        return f"://{REDACTED}@"
    return f"{match['before'] or match['scheme']}{REDACTED}"


def redacted(text: str) -> str:
    """`text` without the secrets that can be told by their form, cut at 8,192 characters."""
    if len(text) > _MAX_CHARACTERS:
        text = f"{text[:_MAX_CHARACTERS]}… ({len(text)} characters)"
    return _SECRET_TEXT.sub(_without_secret, text)


def plain_fields(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """JSON values for `fields`: what stands under the name of a secret, or is of a secret type, is redacted.

    Bytes appear as their length, what is no JSON value as its text. At most 64 items a level and six levels.
    """
    return _mapping(fields, 0)


def _mapping(fields: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for key, value in islice(fields.items(), _MAX_ITEMS):
        name = str(key)
        shown[name] = REDACTED if _SECRET_NAME.search(name) else _plain(value, depth)
    if len(fields) > _MAX_ITEMS:
        shown["…"] = f"{len(fields) - _MAX_ITEMS} more"
    return shown


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return int(value) if -_MAX_INT <= value <= _MAX_INT else str(value)
    if isinstance(value, dict | list | tuple | set | frozenset):
        return _container(value, depth + 1)
    return _text(value)


def _container(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return f"[{type(value).__name__}]"
    if isinstance(value, dict):
        return _mapping(value, depth)
    return [_plain(item, depth) for item in islice(value, _MAX_ITEMS)]


def _text(value: Any) -> str:
    if isinstance(value, SecretStr | SecretBytes):
        return REDACTED
    if isinstance(value, bytes | bytearray):
        return f"[{len(value)} bytes]"
    return redacted(str(value))


def escaped(text: str) -> str:
    """`text` on one line: control characters, and what a terminal obeys, in their JSON escape."""
    shown = _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return shown.encode("utf-8", "backslashreplace").decode()


def encodable(value: Any) -> Any:
    """A JSON value without lone surrogates, which UTF-8 cannot carry."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {encodable(key): encodable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [encodable(item) for item in value]
    return value
