"""Where a partition starts, and when that may not be decided by a program.

A position row says `[topic id, next offset]` for each source partition; it is written in the same transaction as the
rows that the records below it made, so it is the truth. The group's offsets are a copy for tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from app.engine.errors import PositionRefused

__all__ = [
    "META_KEY",
    "POSITIONS_KEY",
    "Bounds",
    "Meta",
    "Position",
    "Start",
    "decode_positions",
    "encode_positions",
    "start_of",
]

POSITIONS_KEY = b"\x00positions/"
META_KEY = b"\x00meta/"


class Position(msgspec.Struct, frozen=True, array_like=True):
    """The remembered topic id ("" where the broker does not tell one) and the next offset."""

    topic_id: str
    offset: int


class Meta(msgspec.Struct, frozen=True):
    """Written once an agent and number: what the data was laid out for."""

    numbers: int
    row_version: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the broker says of a partition now.

    Attributes:
        begin: The first offset that is still there.
        end: The offset after the last one.
        committed: The group's offset, None without one.
        topic_id: "" where the broker does not tell one.
    """

    begin: int
    end: int
    committed: int | None
    topic_id: str


@dataclass(frozen=True, slots=True)
class Start:
    """Where to read from, and how many records retention took before we read them."""

    offset: int
    gap: int = 0


def start_of(topic: str, partition: int, row: Position | None, bounds: Bounds) -> Start:
    """The rule of architecture 4, *Where a partition starts*.

    Raises:
        PositionRefused: Beyond the end, another topic of that name, or a group offset without a position row
            (a lost changelog must not skip history).
    """
    resolve = f"vault-stream positions reset {topic}/{partition} --to beginning|end|OFFSET --yes"
    if row is None:
        if bounds.committed is not None and bounds.committed > bounds.begin:
            raise PositionRefused(
                topic,
                partition,
                f"{topic}/{partition}: the group has offset {bounds.committed} but the changelog has no position row;"
                f" a changelog was lost. Decide with: {resolve}",
            )
        return Start(bounds.begin)
    if row.topic_id and bounds.topic_id and row.topic_id != bounds.topic_id:
        raise PositionRefused(
            topic,
            partition,
            f"{topic}/{partition}: the topic was deleted and made again (position {row.offset} of the old one,"
            f" end {bounds.end}). Decide with: {resolve}",
        )
    if row.offset > bounds.end:
        raise PositionRefused(
            topic,
            partition,
            f"{topic}/{partition}: position {row.offset} is beyond the end {bounds.end}. Decide with: {resolve}",
        )
    if row.offset < bounds.begin:
        return Start(bounds.begin, bounds.begin - row.offset)
    return Start(row.offset)


def encode_positions(positions: Mapping[tuple[str, int], Position]) -> bytes:
    """`{topic: {partition: [topic id, next offset]}}` as msgpack, topics and partitions sorted."""
    nested: dict[str, dict[int, Position]] = {}
    for (topic, partition), position in sorted(positions.items()):
        nested.setdefault(topic, {})[partition] = position
    return msgspec.msgpack.encode(nested)


def decode_positions(data: bytes | None) -> dict[tuple[str, int], Position]:
    """The inverse of `encode_positions`; no row, no positions."""
    if data is None:
        return {}
    nested = msgspec.msgpack.decode(data, type=dict[str, dict[int, Position]])
    return {(topic, partition): p for topic, inner in nested.items() for partition, p in inner.items()}
