"""What is in the quarantine topic: one record of it read back, and which are meant."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from app.engine.quarantine import Quarantined, read_quarantined
from app.events import format_time

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["REASONS", "Entry", "Filter", "cut", "plan_of", "read_entry", "show_bytes", "show_entry"]

REASONS: Final = (
    "invalid_envelope", "invalid_data", "unknown_type", "too_large", "handler_error", "rejected_upstream",
)  # fmt: skip
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


def read_entry(
    partition: int, offset: int, at_ms: int, value: bytes | None, headers: Sequence[tuple[str, bytes]]
) -> Entry | None:
    """The entry of a record of the quarantine topic; None if somebody else wrote it."""
    try:
        record = read_quarantined(value, headers)
    except ValueError:
        return None
    return Entry(
        id=f"{partition}-{offset}",
        at_ms=at_ms,
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


def show_entry(entry: Entry) -> dict[str, Any]:
    """An entry as lists show it, without its bytes."""
    record = entry.record
    return {
        "id": entry.id,
        "quarantined_at": _time(entry.at_ms),
        "reason": record.reason,
        "detail": record.detail,
        "agent": record.agent,
        "type": entry.type,
        "origin": record.origin,
        "first_origin": record.first_origin,
        "timestamp": _time(record.timestamp_ms),
        "truncated": record.truncated,
    }


def show_bytes(entry: Entry) -> dict[str, Any]:
    """The key, headers and value that a record came with."""
    record = entry.record
    headers = [{"name": name, "value": _bytes(value)} for name, value in record.headers]
    return {"key": _bytes(record.key), "headers": headers, "value": _bytes(record.value)}


def plan_of(chosen: Sequence[Entry]) -> dict[str, Any]:
    """What republishing them would do, as far as they themselves tell: a topic may be gone, too."""
    refused = {entry.id: reason for entry in chosen if (reason := cut(entry)) is not None}
    sound = [entry for entry in chosen if entry.id not in refused]
    counts = Counter((entry.record.topic, entry.record.reason, entry.record.agent) for entry in sound)
    rows = [
        {"topic": topic, "reason": reason, "agent": agent, "records": count}
        for (topic, reason, agent), count in sorted(counts.items())
    ]
    return {"would_republish": len(sound), "of": rows, "refused": refused}


def cut(entry: Entry) -> str | None:
    """Why an entry cannot be put back, if only a part of its record was kept."""
    size_bytes = entry.record.truncated
    return None if size_bytes is None else f"only a part of its {size_bytes} bytes is here"


def _bytes(data: bytes | None) -> Any:
    """Text where it is text, else base64, said so."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _time(ms: int) -> str | int:
    """A record may be here for its impossible timestamp."""
    try:
        return format_time(ms)
    except (ValueError, OverflowError):
        return ms
