"""Puts quarantined records back where they came from: same key, bytes and headers, and `vs-republished`.

In transactions of a few hundred, each with an event for the auditors that says what went where, so that a command that
is broken off has republished exactly what that event names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException

from app.engine.quarantine import REPUBLISHED
from app.events import AdminEventType
from app.redrive.entries import cut
from app.redrive.operator import Sent, Transaction, Transactions, operator_event

if TYPE_CHECKING:
    from app.redrive.entries import Entry
    from app.topics import Topics

__all__ = ["Redriven", "batches", "redrive"]

# The event that names them all must stay below 256 KiB, whatever their topics are called.
_BATCH_RECORDS: Final = 200
_BATCH_BYTES: Final = 8 << 20


@dataclass(slots=True)
class Redriven:
    """What became of the entries.

    Attributes:
        republished: Their ids, and where they stand now.
        refused: Their ids, and why.
    """

    republished: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


class _TooLarge(Exception):  # it ends a transaction, and is no error of the command
    """These the topics do not take."""

    def __init__(self, ids: list[str]) -> None:
        super().__init__(ids)
        self.ids = ids


def redrive(
    producer: Transactions,
    topics: Topics,
    entries: Iterator[Entry],
    partitions: Callable[[str], Sequence[int]],
    words: Mapping[str, Any],
    progress: Callable[[int], None],
    actor: str | Mapping[str, str] = "operator",
) -> Redriven:
    """Republish the entries, in order.

    Args:
        entries: With their keys and values.
        partitions: Those of a topic, none if it does not exist.
        words: What the operator asked for, for the auditors.
        progress: Told of each number of entries that is done.
        actor: Who asked.
    """
    result = Redriven()
    for batch in batches(entries):
        sound = []
        for entry in batch:
            if reason := _refusal(entry, partitions):
                result.refused[entry.id] = reason
            else:
                sound.append(entry)
        while sound:
            try:
                result.republished |= _transaction(producer, topics, sound, words, actor)
                break
            except _TooLarge as refused:
                result.refused |= dict.fromkeys(refused.ids, "its topic takes no record of that size")
                sound = [entry for entry in sound if entry.id not in refused.ids]
        progress(len(batch))
    return result


def batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Parts that one transaction, and memory, can hold."""
    batch: list[Entry] = []
    size_bytes = 0
    for entry in entries:
        batch.append(entry)
        size_bytes += entry.size_bytes
        if len(batch) == _BATCH_RECORDS or size_bytes >= _BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


def _refusal(entry: Entry, partitions: Callable[[str], Sequence[int]]) -> str | None:
    if (reason := cut(entry)) is not None:
        return reason
    record = entry.record
    there = partitions(record.topic)
    if not there:
        return f"there is no topic {record.topic} any more"
    if record.partition not in there:
        return f"{record.topic} has no partition {record.partition} any more"
    return None


def _transaction(
    producer: Transactions,
    topics: Topics,
    entries: Sequence[Entry],
    words: Mapping[str, Any],
    actor: str | Mapping[str, str],
) -> dict[str, str]:
    with producer.begin() as transaction:
        sent = [(entry, _send(transaction, entry)) for entry in entries]
        if failed := transaction.flush():
            too_large = [entry.id for entry, one in sent if one in failed and _is_too_large(one)]
            if len(too_large) == len(failed):
                raise _TooLarge(too_large)
            # What is too large fails the others, too; what else failed is the reason.
            raise KafkaException(next(one.error for one in failed if not _is_too_large(one)))
        places = {entry.id: f"{entry.record.topic}/{entry.record.partition}/{one.offset}" for entry, one in sent}
        told = [{"id": entry.id, "origin": entry.record.origin, "to": places[entry.id]} for entry in entries]
        data = {"id": topics.quarantine, "filter": dict(words), "count": len(told), "records": told}
        transaction.tell(topics.events, operator_event(topics.app_id, AdminEventType.OPERATOR_REPUBLISHED, data, actor))
    return places


def _is_too_large(sent: Sent) -> bool:
    return sent.error is not None and sent.error.code() == KafkaError.MSG_SIZE_TOO_LARGE


def _send(transaction: Transaction, entry: Entry) -> Sent:
    """To the partition that it came from: its number, and with it its rows, is found by that."""
    record = entry.record
    headers = [*record.headers, (REPUBLISHED, record.first_origin.encode())]
    return transaction.send(record.topic, record.key, record.value, headers, partition=record.partition)
