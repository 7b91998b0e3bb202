"""What a changelog says of those who wrote it, read from the broker's own files."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from app.engine.positions import POSITIONS_KEY, decode_positions
from tests.support.fold import FoldGroup

_BATCH = struct.Struct(">qiibIhiqqqhii")
"""Base offset, length, leader epoch, magic, checksum, attributes, last offset delta, two timestamps, producer id,
producer epoch, base sequence, count: the header of a record batch, version 2."""
_CONTROL = 0x20
_LENGTH_FROM = 12


class Writer(NamedTuple):
    """Who wrote a batch, as the broker knows it: an opening of a number has an epoch of its own."""

    producer_id: int
    epoch: int


@dataclass(frozen=True)
class Batch:
    """One record batch of a partition; a marker ends a transaction, and is the coordinator's."""

    first: int
    records: int
    marker: bool
    writer: Writer


def batches(broker: Path, topic: str, partition: int) -> Iterator[Batch]:
    """All batches of a partition, aborted ones too, in order."""
    for segment in sorted((broker / "log" / f"{topic}-{partition}").glob("*.log")):
        data, at = segment.read_bytes(), 0
        while at + _BATCH.size <= len(data):
            first, length, _, _, _, attributes, _, _, _, producer_id, epoch, _, count = _BATCH.unpack_from(data, at)
            if length <= 0:
                break  # the file is longer than what is written
            yield Batch(first, count, bool(attributes & _CONTROL), Writer(producer_id, epoch))
            at += _LENGTH_FROM + length


def writers(broker: Path, topic: str, partition: int) -> list[Writer]:
    """Who wrote rows into a partition, one after another; whoever comes twice came back after somebody else."""
    found: list[Writer] = []
    for batch in batches(broker, topic, partition):
        if not batch.marker and (not found or found[-1] != batch.writer):
            found.append(batch.writer)
    return found


def came_back(broker: Path, group: FoldGroup) -> dict[str, list[Writer]]:
    """Changelog partitions to which a former owner wrote after its heir; a promise says that there are none."""
    found = {}
    for table in ("counts", "positions"):
        for partition in range(group.numbers):
            order = writers(broker, topic := f"{group.app}-{table}-changelog", partition)
            if len(set(order)) < len(order):
                found[f"{topic}/{partition}"] = order
    return found


def written_again(group: FoldGroup) -> list[str]:
    """Committed positions that do not lie beyond those before them: a transaction that was sent a second time."""
    found = []
    for table, agent in (("counts", b"fold"), ("positions", b"relay")):
        last: dict[int, dict[tuple[str, int], int]] = {}
        for message in group.read(f"{group.app}-{table}-changelog", group.numbers):
            if message.key() != POSITIONS_KEY + agent:
                continue
            now = {tp: p.offset for tp, p in decode_positions(message.value()).items()}
            before = last.get(message.partition(), {})
            if now == before or any(now.get(tp, 0) < offset for tp, offset in before.items()):
                found.append(f"{message.topic()}/{message.partition()} at {message.offset()}: {before} then {now}")
            last[message.partition()] = now
    return found
