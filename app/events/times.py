"""RFC 3339 times, to and from milliseconds since the Unix epoch."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

MOMENT_FORM: Final = "an RFC 3339 time, such as 2026-01-31T12:00:00Z, or a date, which is its midnight in UTC"
"""What `parse_moment_ms` takes, as an error says it."""
_RFC3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_COMMON_FRACTION: Final = re.compile(r"\.[0-9]+Z")
_MILLISECONDS: Final = tuple(f".{millisecond:03d}Z" for millisecond in range(1000))
# Sets, as a look-up costs a quarter of what a regular expression does.
_COMMON_SECONDS: Final = frozenset(f"{second:02d}" for second in range(60))
_WHOLE: Final = slice(0, 19)
_MINUTE: Final = slice(0, 17)
_SECONDS: Final = slice(17, 19)  # of YYYY-MM-DDTHH:MM:SS
_END: Final = slice(19, None)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_SECOND_MS: Final = 1000
# What nearly all times end with.
_MILLISECOND_OF: Final = {"Z": 0, **{end: millisecond for millisecond, end in enumerate(_MILLISECONDS)}}


def parse_time(text: str) -> datetime:
    """An RFC 3339 timestamp as an aware ``datetime`` (beyond microseconds cut off).

    A leap second (``:60``) is the first moment of the next minute.

    Raises:
        ValueError: The text is not an RFC 3339 timestamp, or names a day that does not exist.
    """
    if _RFC3339.fullmatch(text) is None:
        raise ValueError("not an RFC 3339 timestamp, such as 2026-01-31T23:59:59.123Z")
    if text[_SECONDS] == "60":
        return datetime.fromisoformat(f"{text[:17]}59{text[19:]}".upper()) + timedelta(seconds=1)
    return datetime.fromisoformat(text if text[-1] != "z" else text.upper())


def is_common_time(text: str) -> bool:
    """Whether this is RFC 3339 in UTC, as nearly all times are; False says only that it is not in that form."""
    if not _is_second(text[_WHOLE]):
        return False
    end = text[_END]
    return end in _MILLISECOND_OF or _COMMON_FRACTION.fullmatch(end) is not None


@lru_cache(maxsize=4096)
def _is_second(text: str) -> bool:
    return text[_SECONDS] in _COMMON_SECONDS and _is_minute(text[_MINUTE])


@lru_cache(maxsize=4096)
def _is_minute(text: str) -> bool:
    try:
        parse_time(text + "00Z")
    except ValueError:
        return False
    return True


def parse_time_ms(text: str) -> int:
    """Milliseconds since the epoch of an RFC 3339 timestamp, rounded down.

    Raises:
        ValueError: The text is not an RFC 3339 timestamp.
    """
    millisecond = _MILLISECOND_OF.get(text[_END])
    return _exact_ms(text) if millisecond is None else _second_ms(text[_WHOLE]) + millisecond


@lru_cache(maxsize=4096)
def _second_ms(text: str) -> int:
    return _exact_ms(text + "Z")


def _exact_ms(text: str) -> int:
    try:
        return (parse_time(text) - _EPOCH) // _MILLISECOND
    except OverflowError as error:
        raise ValueError("a time outside the years 1 to 9999") from error


def parse_moment_ms(text: str) -> int:
    """Milliseconds since the epoch of what people write for a time: RFC 3339, or a date, which is its midnight in UTC.

    Raises:
        ValueError: The text is neither.
    """
    return parse_time_ms(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text)


@lru_cache(maxsize=4096)
def _whole_second(second: int) -> str:
    try:
        moment = _EPOCH + timedelta(seconds=second)
    except OverflowError as error:
        raise ValueError("a time outside the years 1 to 9999") from error
    return moment.replace(tzinfo=None).isoformat()


@lru_cache(maxsize=256)
def format_time(time_ms: int) -> str:
    """Milliseconds since the epoch as RFC 3339 in UTC with millisecond precision.

    Remembered for the times seen last: under load several things happen in each millisecond.

    Raises:
        ValueError: The time lies outside the years 1 to 9999.
    """
    second, millisecond = divmod(time_ms, _SECOND_MS)
    return _whole_second(second) + _MILLISECONDS[millisecond]
