"""The audit topic in memory, as the API reads it, and the governance agent over it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field

from agents.governance import GovernanceOptions, governance_agent
from app.engine import LogUnreadable, Processor, Record
from app.integrations.governance import Flush
from app.topics import Topics
from tables.audit_queries import AuditReaders
from tests.support.audit_records import audit_value
from tests.support.memory_unit import START_MS, MemoryContext, record
from tests.support.scripted_upstream import ScriptedUpstream

TOPICS = Topics("vault", "vs")
TP = tuple[str, int]
BLOCK = 3


@dataclass
class FakeAuditLog:
    """Records by partition.

    Attributes:
        begin: The first offset that retention left.
        breaks_after: So many blocks, then the broker is gone.
    """

    records: dict[int, list[Record]] = field(default_factory=dict)
    begin: dict[int, int] = field(default_factory=dict)
    breaks_after: int | None = None

    def fill(self, partition: int, count: int, *, step_ms: int = 1000) -> list[Record]:
        """More records, a second apart."""
        known = self.records.setdefault(partition, [])
        more = [
            record(
                audit_value(offset, details={"p": partition}),
                topic=TOPICS.audit,
                partition=partition,
                offset=offset,
                timestamp=START_MS + offset * step_ms,
            )
            for offset in range(len(known), len(known) + count)
        ]
        known += more
        return more

    async def bounds(self) -> dict[TP, tuple[int, int]]:
        self._require(1)
        return {
            (TOPICS.audit, partition): (self.begin.get(partition, 0), len(found))
            for partition, found in self.records.items()
        }

    async def offsets_at(self, partitions: Sequence[TP], at_ms: int) -> dict[TP, int | None]:
        self._require(1)
        return {
            tp: next((found.offset for found in self.records[tp[1]] if found.timestamp >= at_ms), None)
            for tp in partitions
        }

    async def read(self, start: Mapping[TP, int], until: Mapping[TP, int]) -> AsyncGenerator[list[Record], None]:
        chosen = [found for tp in start for found in self.records[tp[1]][start[tp] : until[tp]]]
        for number, at in enumerate(range(0, len(chosen), BLOCK)):
            self._require(number + 2)
            yield chosen[at : at + BLOCK]

    def _require(self, needed: int) -> None:
        if self.breaks_after is not None and self.breaks_after < needed:
            raise LogUnreadable("the broker is away")


@dataclass
class GovernedNumber:
    """One number of the real agent, open over rows in memory."""

    number: int
    readers: AuditReaders
    dashboard: ScriptedUpstream
    context: MemoryContext
    processor: Processor

    @classmethod
    async def open(cls, number: int, readers: AuditReaders, *, size: int = 3) -> GovernedNumber:
        """Batches of `size`."""
        dashboard, context = ScriptedUpstream(), MemoryContext(number=number)
        options = GovernanceOptions(flush=Flush(size=size, interval_s=1e6))
        processor = governance_agent(TOPICS, dashboard, options, readers=readers, jitter=lambda: 1.0).processor(context)
        await context.open(processor)
        return cls(number, readers, dashboard, context, processor)

    async def deliver(self, records: Sequence[Record]) -> None:
        """A slice, and everything that follows from it."""
        await self.context.deliver(self.processor, *records)
        await self.context.settle(self.processor)

    async def close(self) -> None:
        """The number is taken away."""
        await self.context.close(self.processor)
