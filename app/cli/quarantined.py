"""What is in the quarantine topic: read, filtered, each origin once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
import orjson

from app.cli.topic_reader import TopicReader
from app.engine.quarantine import Quarantined, read_quarantined
from app.events import format_time, parse_time_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from confluent_kafka import Message

__all__ = ["Entry", "Filter", "entry_of", "filtered", "newest_of_each_origin", "whole"]

REASONS: Final = (
    "invalid_envelope", "invalid_data", "unknown_type", "too_large", "handler_error", "rejected_upstream",
)  # fmt: skip
_PART_BYTES: Final = 128 << 20
_OUR_TYPES: Final = "llm.data-vault."


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A quarantine record where it stands.

    Attributes:
        id: `{partition}-{offset}` in the quarantine topic.
        at_ms: When it was put there.
        type: Of the event in it, None where none can be read.
    """

    id: str
    at_ms: int
    type: str | None
    size_bytes: int
    record: Quarantined

    @property
    def place(self) -> tuple[str, int, int]:
        """Where it was read, in an order that keeps that of each partition."""
        return self.record.topic, self.record.partition, self.record.offset

    def without_bytes(self) -> Entry:
        """The same for a list; a topic full of values may be more than memory holds."""
        return msgspec.structs.replace(self, record=msgspec.structs.replace(self.record, key=None, value=None))


def entry_of(message: Message) -> Entry | None:
    """The entry of a record of the quarantine topic; None if somebody else wrote it."""
    value = message.value()
    value = value if isinstance(value, bytes) else None
    headers: Any = message.headers() or []
    try:
        record = read_quarantined(value, headers)
    except ValueError:
        return None
    return Entry(
        id=f"{message.partition()}-{message.offset()}",
        at_ms=message.timestamp()[1],
        type=_type(record),
        size_bytes=len(value or b""),
        record=record,
    )


def _type(record: Quarantined) -> str | None:
    for name, value in record.headers:
        if name.lower() == "ce_type" and value:
            return value.decode("utf-8", "replace")
    try:
        tree = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return None
    found = tree.get("type") if isinstance(tree, dict) else None
    return found if isinstance(found, str) else None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries; what is None does not matter."""

    reason: str | None = None
    agent: str | None = None
    type: str | None = None
    topic: str | None = None
    origin: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    @property
    def empty(self) -> bool:
        """Whether it lets everything pass."""
        return self == Filter()

    def takes(self, entry: Entry) -> bool:
        """Whether the entry is meant."""
        record = entry.record
        return (
            self.reason in (None, record.reason)
            and self.agent in (None, record.agent)
            and self.topic in (None, record.topic)
            and self.origin in (None, record.origin, record.first_origin)
            and (self.type is None or entry.type in (self.type, _OUR_TYPES + self.type))
            and (self.since_ms is None or entry.at_ms >= self.since_ms)
            and (self.until_ms is None or entry.at_ms < self.until_ms)
        )

    @property
    def words(self) -> dict[str, str]:
        """As it was given, for those who read of it later."""
        named = {"reason": self.reason, "agent": self.agent, "type": self.type, "topic": self.topic}
        times = {
            name: None if ms is None else format_time(ms)
            for name, ms in (("since", self.since_ms), ("until", self.until_ms))
        }
        return {name: value for name, value in (named | {"origin": self.origin} | times).items() if value is not None}


class _Time(click.ParamType):
    """RFC 3339, to milliseconds since 1970."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_time_ms(str(value))
        except ValueError:
            self.fail(f"{value!r} is no RFC 3339 time, such as 2026-03-01T00:00:00Z", param, ctx)


def filtered(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a filter, as the argument `only`."""

    @wraps(command)
    def with_filter(*args: Any, **options: Any) -> Any:
        names = ("reason", "agent", "type", "topic", "origin", "since_ms", "until_ms")
        return command(*args, only=Filter(**{name: options.pop(name) for name in names}), **options)

    for option in (
        click.option("--until", "until_ms", type=_Time(), help="Quarantined before this RFC 3339 time."),
        click.option("--since", "since_ms", type=_Time(), help="Quarantined at or after this RFC 3339 time."),
        click.option("--origin", metavar="TOPIC/P/OFFSET", help="Of one record, whatever became of its copies."),
        click.option("--topic", help="Read from one topic."),
        click.option("--type", help="Of one event type, such as dataset.created."),
        click.option("--agent", help="By one agent, such as router."),
        click.option("--reason", type=click.Choice(REASONS), help="For one reason."),
    ):
        option(with_filter)
    return with_filter


def _entries(reader: TopicReader, topic: str, doing: str) -> Iterator[Entry]:
    for message in reader.records(topic, doing):
        entry = entry_of(message)
        if entry is not None:
            yield entry


def newest_of_each_origin(reader: TopicReader, topic: str, only: Filter) -> list[Entry]:
    """What the filter takes, newest first, without keys and values.

    A record may be there twice, and one that was republished and failed again is there under its new origin: of each
    first origin the newest entry counts, or putting all of them back would double them each time.
    """
    newest: dict[str, Entry] = {}
    for entry in _entries(reader, topic, "reading quarantine"):
        before = newest.get(entry.record.first_origin)
        if before is None or (entry.at_ms, entry.id) >= (before.at_ms, before.id):
            newest[entry.record.first_origin] = entry.without_bytes()
    return sorted(filter(only.takes, newest.values()), key=lambda entry: (entry.at_ms, entry.id), reverse=True)


def whole(reader: TopicReader, topic: str, chosen: Sequence[Entry]) -> Iterator[Entry]:
    """The same entries with their keys and values, those of a partition in its order.

    They are read as often as it takes to have no more than some of them in memory.
    """
    for part in _parts(sorted(chosen, key=lambda entry: entry.place)):
        wanted = {entry.id for entry in part}
        found = [entry for entry in _entries(reader, topic, "reading their bytes") if entry.id in wanted]
        yield from sorted(found, key=lambda entry: entry.place)


def _parts(ordered: Sequence[Entry]) -> Iterator[list[Entry]]:
    part: list[Entry] = []
    size_bytes = 0
    for entry in ordered:
        part.append(entry)
        size_bytes += entry.size_bytes
        if size_bytes >= _PART_BYTES:
            yield part
            part, size_bytes = [], 0
    if part:
        yield part
