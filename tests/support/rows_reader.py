"""Reads the rows of an open number, as requests that have reached their owner do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from app.engine import Revoked, Unit
from tables.delivery_queries import FoundDelivery
from tests.support.memory_unit import MemoryRows, MemoryUnit

T = TypeVar("T")


@dataclass
class RowsReader:
    """An open number; `closing`: it is taken away while it is asked."""

    rows: MemoryRows = field(default_factory=MemoryRows)
    closing: bool = False

    async def read(self, job: Callable[[Unit, Mapping[str, FoundDelivery]], T]) -> T:
        if self.closing:
            raise Revoked("the number is closed")
        return job(MemoryUnit(self.rows).unit, {})
