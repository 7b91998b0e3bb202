"""Five ways to tamper with an audit trail, in an export and on a topic."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson
from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from app.integrations.chain import hash_of

__all__ = ["LINES", "RECORDS", "Records", "copy_topic", "records_of"]

Line = dict[str, Any]
Records = dict[int, list[tuple[int, bytes | None]]]
"""By partition: timestamp and value, in order."""
DEADLINE_S: Final = 60.0


def _forged(entry: Line) -> Line:
    forged = {**entry, "action": "forged"}
    return {**forged, "hash": hash_of(forged)}


def _edited(lines: list[Line], at: int) -> list[Line]:
    return [*lines[:at], {**lines[at], "outcome": "denied"}, *lines[at + 1 :]]


def _removed(lines: list[Line], at: int) -> list[Line]:
    return [*lines[:at], *lines[at + 1 :]]


def _swapped(lines: list[Line], at: int) -> list[Line]:
    return [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]


def _inserted(lines: list[Line], at: int) -> list[Line]:
    """Chained to the entry before it, as whoever inserts would do."""
    forged = _forged({**lines[at], "previous_hash": lines[at]["hash"], "id": "forged"})
    return [*lines[: at + 1], forged, *lines[at + 1 :]]


def _truncated(lines: list[Line], at: int) -> list[Line]:
    """The last entries of the partition are gone, its trailer is not."""
    partition = lines[at]["partition"]
    last = [place for place, line in enumerate(lines) if line.get("partition") == partition][-2:]
    return [line for place, line in enumerate(lines) if place not in last]


LINES: Final[Mapping[str, Callable[[list[Line], int], list[Line]]]] = {
    "edited": _edited,
    "removed": _removed,
    "swapped": _swapped,
    "inserted": _inserted,
    "truncated": _truncated,
}
"""By what verify calls it: the lines of an export, and the place of one of them, which is followed by another one of
its partition."""


def _forged_value(value: bytes | None) -> bytes:
    event = orjson.loads(value or b"")
    event["data"]["action"] = "forged"
    return orjson.dumps(event)


def _edited_record(records: list[tuple[int, bytes | None]], at: int) -> None:
    records[at] = (records[at][0], _forged_value(records[at][1]))


def _removed_record(records: list[tuple[int, bytes | None]], at: int) -> None:
    records[at] = (records[at][0], None)


def _swapped_records(records: list[tuple[int, bytes | None]], at: int) -> None:
    records[at], records[at + 1] = records[at + 1], records[at]


def _inserted_record(records: list[tuple[int, bytes | None]], at: int) -> None:
    records.insert(at, (records[at][0], _forged_value(records[at][1])))


def _truncated_records(records: list[tuple[int, bytes | None]], at: int) -> None:
    del records[-1]


RECORDS: Final[Mapping[str, Callable[[list[tuple[int, bytes | None]], int], None]]] = {
    "edited": _edited_record,
    "removed": _removed_record,
    "swapped": _swapped_records,
    "inserted": _inserted_record,
    "truncated": _truncated_records,
}
"""The records of one partition, and the offset of one that is not the last."""


def records_of(messages: Sequence[Message]) -> Records:
    """What was read of a topic without holes."""
    found: defaultdict[int, list[tuple[int, bytes | None]]] = defaultdict(list)
    for message in messages:
        records = found[message.partition() or 0]
        assert message.offset() == len(records), "a copy would have other offsets"
        value = message.value()
        records.append((message.timestamp()[1], value if isinstance(value, bytes) else None))
    return dict(found)


def copy_topic(brokers: str, topic: str, records: Records, partitions: int) -> None:
    """A topic with these records at the same offsets and times."""
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(DEADLINE_S)
    producer = Producer({"bootstrap.servers": brokers, "log_level": 0, "enable.idempotence": True, "linger.ms": 20})
    deadline_s = time.monotonic() + DEADLINE_S
    for partition, found in records.items():
        for timestamp_ms, value in found:
            while True:
                try:
                    producer.produce(topic, value, partition=partition, timestamp=timestamp_ms)
                    break
                except BufferError:
                    assert time.monotonic() < deadline_s
                    producer.poll(0.1)
    assert producer.flush(DEADLINE_S) == 0
