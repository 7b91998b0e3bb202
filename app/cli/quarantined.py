"""The quarantine topic as the command line reads it: filtered, each origin once."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import click

from app.cli.options import TIME
from app.cli.topic_reader import TopicReader
from app.redrive.entries import REASONS, Entry, Filter, read_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from confluent_kafka import Message

__all__ = ["entry_of", "filtered", "newest_of_each_origin", "whole"]

_PART_BYTES: Final = 128 << 20


def entry_of(message: Message) -> Entry | None:
    """The entry of a record of the quarantine topic; None if somebody else wrote it."""
    value = message.value()
    headers: Any = message.headers() or []
    value = value if isinstance(value, bytes) else None
    return read_entry(message.partition() or 0, message.offset() or 0, message.timestamp()[1], value, headers)


def filtered(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a filter, as the argument `only`."""

    @wraps(command)
    def with_filter(*args: Any, **options: Any) -> Any:
        names = ("reason", "agent", "type", "topic", "origin", "since_ms", "until_ms")
        return command(*args, only=Filter(**{name: options.pop(name) for name in names}), **options)

    for option in (
        click.option("--until", "until_ms", type=TIME, help="Quarantined before this time or date."),
        click.option("--since", "since_ms", type=TIME, help="Quarantined at or after this time or date (UTC)."),
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
