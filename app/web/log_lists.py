"""Lists that are read from a topic: newest first, each thing once, page by page (contracts 8.3)."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

import orjson

from app.engine import LogUnavailable, Placed
from app.events import MOMENT_FORM, parse_moment_ms
from app.web.cursors import open_cursor, seal_cursor, wrong_cursor
from app.web.problems import FieldError, Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from app.engine import Record, TopicLog

__all__ = ["LogList", "LogPage", "log_cursor", "one", "place_of", "time_of", "unavailable", "whole"]

T = TypeVar("T")

SCAN_LIMIT: Final = 10_000
# Above a page everything is read again, to know what was shown already; beyond this an older one of a thing may show.
AGAIN_LIMIT: Final = 100_000
RETRY_AFTER_S: Final = 2
_MAX_OFFSET: Final = 2**63 - 1
# Below the largest offset, which has nineteen digits.
_PLACE: Final = re.compile(r"([0-9]{1,9})-([0-9]{1,18})", re.ASCII)


class LogPage(NamedTuple, Generic[T]):
    """A part of a list; `next_cursor` None: there is no more."""

    items: list[T]
    next_cursor: str | None


class LogList(Generic[T]):
    """The things in a topic.

    Args:
        log: The topic.
        read: One thing of a record; None: it is none of ours.
        name: What makes two records one thing: the newest of them counts.
    """

    def __init__(self, log: TopicLog, read: Callable[[Record], T | None], name: Callable[[T], str]) -> None:
        self._log = log
        self._read = read
        self._name = name

    async def page(self, takes: Callable[[T], bool], below: Mapping[int, int], limit: int) -> LogPage[T]:
        """One page.

        Args:
            takes: Which things.
            below: Where the last page ended, of `log_cursor`.
            limit: At most so many; a page also ends after 10,000 records.

        Raises:
            Problem: 503, the broker does not answer.
        """
        items: list[T] = []
        reached, scanned = dict(below), 0
        async for place, thing, is_new in self._walk(below):
            scanned += 1
            reached[place.partition] = min(place.offset, reached.get(place.partition, _MAX_OFFSET))
            if is_new and thing is not None and takes(thing):
                items.append(thing)
            if len(items) >= limit or scanned >= SCAN_LIMIT:
                return LogPage(items, _cursor_of(self._log, reached))
        return LogPage(items, None)

    async def all(self, takes: Callable[[T], bool], limit: int) -> list[T] | None:
        """All of them; None: there are more than that.

        Raises:
            Problem: 503, the broker does not answer.
        """
        items: list[T] = []
        async for _, thing, is_new in self._walk({}):
            if is_new and thing is not None and takes(thing):
                if len(items) >= limit:
                    return None
                items.append(thing)
        return items

    async def _walk(self, below: Mapping[int, int]) -> AsyncIterator[tuple[Placed[T], T | None, bool]]:
        """Everything below; whether it is the newest of its name."""
        seen: set[str] = set()
        again = 0
        try:
            async for place in self._log.newest_first(self._read):
                thing = place.read
                name = None if thing is None else self._name(thing)
                is_new = name is not None and name not in seen
                if place.offset < below.get(place.partition, _MAX_OFFSET):
                    yield place, thing, is_new
                else:
                    again += 1
                if name is not None and again < AGAIN_LIMIT:
                    seen.add(name)
        except LogUnavailable:
            raise unavailable() from None


def log_cursor(text: str | None, log: TopicLog, field: str = "cursor") -> dict[int, int]:
    """Where a list of a topic is to go on; empty: at its beginning.

    Raises:
        Problem: 422, it is none that a list of this topic has given.
    """
    if text is None:
        return {}
    try:
        found = orjson.loads(open_cursor(log.topic, text))
        below = {int(partition): offset for partition, offset in found.items()}
    except (ValueError, AttributeError):
        below = {-1: -1}
    if not all(0 <= p < log.partitions and type(o) is int and 0 <= o <= _MAX_OFFSET for p, o in below.items()):
        raise wrong_cursor(field)
    return below


def _cursor_of(log: TopicLog, reached: Mapping[int, int]) -> str:
    names = {str(partition): offset for partition, offset in sorted(reached.items())}
    return seal_cursor(log.topic, orjson.dumps(names))


def place_of(text: str) -> tuple[int, int] | None:
    """Partition and offset of an id `{partition}-{offset}`; None: it is none."""
    place = _PLACE.fullmatch(text)
    return None if place is None else (int(place[1]), int(place[2]))


def time_of(given: Mapping[str, Any], name: str, field: str | None = None) -> int | None:
    """A time among parameters, in milliseconds.

    Raises:
        Problem: 422, it is none.
    """
    value = given.get(name)
    if value is None:
        return None
    try:
        return parse_moment_ms(value)
    except (TypeError, ValueError):
        error = FieldError(field or name, "invalid", MOMENT_FORM)
        raise Problem(422, "invalid_query", "A time is not understood.", errors=[error]) from None


def unavailable() -> Problem:
    """503 for a topic that cannot be read now."""
    return Problem(503, "log_unavailable", "The broker does not answer. Try again.", retry_after_s=RETRY_AFTER_S)


async def one(log: TopicLog, id_: str, read: Callable[[Record], T | None]) -> T | None:
    """The thing of an id `{partition}-{offset}`; None: there is none of this id, or not any more.

    Args:
        read: One thing of a record; None: it is none of ours.

    Raises:
        Problem: 503, the broker does not answer.
    """
    place = place_of(id_)
    try:
        record = None if place is None else await log.record(*place)
    except LogUnavailable:
        raise unavailable() from None
    return None if record is None else read(record)


async def whole(log: TopicLog, ids: Iterable[str], read: Callable[[Record], T | None]) -> dict[str, T]:
    """The things of a list, read once more with all of their bytes; what retention took meanwhile is left out.

    Args:
        ids: `{partition}-{offset}` of each.
        read: One thing of a record; None: it is none of ours.

    Raises:
        LogUnavailable: The topic cannot be read.
    """
    wanted: defaultdict[int, list[int]] = defaultdict(list)
    for id_ in ids:
        partition, offset = map(int, id_.split("-"))
        wanted[partition].append(offset)
    found: dict[str, T] = {}
    for partition, offsets in wanted.items():
        for offset, record in (await log.records(partition, offsets)).items():
            if (thing := read(record)) is not None:
                found[f"{partition}-{offset}"] = thing
    return found
