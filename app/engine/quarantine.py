"""The quarantine record of contracts 9.2: a record as it came, with where it came from and why it is here."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from app.engine.outputs import Message
from app.engine.records import Header, Record

__all__ = ["QUARANTINE_VALUE_BYTES", "TRUNCATED_BYTES", "cut_message", "quarantine_message"]

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
