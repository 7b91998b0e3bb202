"""The quarantine record of contracts 9.2: a record as it came, with where it came from and why it is here."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from app.engine.outputs import Message
from app.engine.records import Header, Record

__all__ = [
    "QUARANTINE_VALUE_BYTES",
    "REPUBLISHED",
    "TRUNCATED_BYTES",
    "Quarantined",
    "cut_message",
    "quarantine_message",
    "read_quarantined",
]

REPUBLISHED: Final = "vs-republished"
"""The header of a record that was put back: the first origin of the record that it is a copy of."""
_DETAIL_LIMIT_BYTES = 1024
TRUNCATED_BYTES = 256 * 1024
# The quarantine topic takes 2 MiB; our headers and the record's own must fit beside the value.
QUARANTINE_VALUE_BYTES = 2 * 1024 * 1024 - 128 * 1024


def quarantine_message(topic: str, agent: str, record: Record, reason: str, detail: str) -> Message:
    """The record whole; cut where the topic could not carry it."""
    value = record.value
    headers = [*record.headers, *_origin(agent, record, record.key or b"", reason, detail)]
    if len(value or b"") + _size(headers) > QUARANTINE_VALUE_BYTES:
        return cut_message(topic, agent, record, reason, detail)
    return Message(topic, _key(record), value, headers)


def cut_message(topic: str, agent: str, record: Record, reason: str, detail: str) -> Message:
    """What is left of a record that the topic refuses: the first 256 KiB of everything, and the digest of the whole."""
    value = record.value or b""
    headers: list[Header] = []
    left = TRUNCATED_BYTES
    for header in record.headers:
        left -= _size([header])
        if left < 0:
            break
        headers.append(header)
    headers += _origin(agent, record, (record.key or b"")[:TRUNCATED_BYTES], reason, detail)
    headers += [
        ("vs-truncated", b"%d" % len(value)),
        ("vs-sha256", hashlib.sha256(value).hexdigest().encode()),
    ]
    return Message(topic, _key(record), None if record.value is None else value[:TRUNCATED_BYTES], headers)


def _key(record: Record) -> bytes:
    return f"{record.topic}/{record.partition}/{record.offset}".encode()


def _origin(agent: str, record: Record, key: bytes, reason: str, detail: str) -> list[Header]:
    return [
        ("vs-reason", reason.encode()),
        ("vs-detail", detail.encode("utf-8", "replace")[:_DETAIL_LIMIT_BYTES]),
        ("vs-topic", record.topic.encode()),
        ("vs-partition", b"%d" % record.partition),
        ("vs-offset", b"%d" % record.offset),
        ("vs-timestamp", b"%d" % record.timestamp),
        ("vs-key", base64.b64encode(key)),
        ("vs-agent", agent.encode()),
    ]


def _size(headers: Sequence[Header]) -> int:
    # Kafka's header values may be null, whatever a client's types say.
    return sum(len(name) + len(value or b"") for name, value in headers)


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """A quarantine record, read back.

    Attributes:
        first_origin: `topic/partition/offset` of the record that it was republished from; its own if it never was.
        headers: Those that it came with.
        truncated: How long its value was, if it was cut.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    agent: str
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    first_origin: str
    truncated: int | None = None

    @property
    def origin(self) -> str:
        """`topic/partition/offset` of the record that failed."""
        return f"{self.topic}/{self.partition}/{self.offset}"


def read_quarantined(value: bytes | None, headers: Sequence[Header]) -> Quarantined:
    """The inverse of `quarantine_message`.

    The record's own headers may have any names, ours too (an intent has a `vs-reason`): ours are the last ones.

    Raises:
        ValueError: It is not of our making.
    """
    begin = max((at for at, (name, _) in enumerate(headers) if name == "vs-reason"), default=len(headers))
    ours = dict(headers[begin:])
    own = [header for header in headers[:begin] if header[0] != REPUBLISHED]
    try:
        place = ours["vs-topic"].decode(), int(ours["vs-partition"]), int(ours["vs-offset"])
        truncated = ours.get("vs-truncated")
        before = [value for name, value in headers[:begin] if name == REPUBLISHED and value]
        return Quarantined(
            topic=place[0],
            partition=place[1],
            offset=place[2],
            timestamp_ms=int(ours["vs-timestamp"]),
            agent=ours["vs-agent"].decode(),
            reason=ours["vs-reason"].decode(),
            detail=ours["vs-detail"].decode("utf-8", "replace"),
            # No key and an empty one look the same; producers mean the former.
            key=base64.b64decode(ours["vs-key"]) or None,
            value=value,
            headers=tuple(own),
            first_origin=before[-1].decode("utf-8", "replace") if before else "/".join(map(str, place)),
            truncated=None if truncated is None else int(truncated),
        )
    except (KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"no record of our quarantine: {error!r}") from None
