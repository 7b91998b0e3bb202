"""The tables of the contenders that keep rows, and the changelogs behind them."""

from collections.abc import Sequence
from typing import Final

import msgspec

from app.engine import Table
from app.topics import Topics, TopicSpec

__all__ = ["COUNTS", "Count", "changelogs"]


class Count(msgspec.Struct, frozen=True):
    """Events of one key."""

    n: int = 0


COUNTS: Final = Table("counts", prefix=1, row=Count)


def changelogs(topics: Topics, tables: Sequence[str], partitions: int) -> list[TopicSpec]:
    """The changelog topics of tables that only a benchmark has."""
    return [TopicSpec(topics.changelog(name), partitions, 1, {"cleanup.policy": "compact"}) for name in tables]
