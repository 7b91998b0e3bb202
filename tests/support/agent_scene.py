"""One agent of one number, in memory; tests of agents build theirs on it."""

from dataclasses import dataclass, field

from app.engine import Processor, Record
from tests.support.memory_unit import MemoryContext


@dataclass
class AgentScene:
    context: MemoryContext = field(default_factory=MemoryContext)
    processor: Processor | None = None

    async def deliver(self, *records: Record) -> None:
        assert self.processor is not None
        await self.context.deliver(self.processor, *records)
        await self.context.settle(self.processor)

    async def advance(self, seconds: float) -> None:
        assert self.processor is not None
        self.context.clock.advance(seconds)
        await self.context.settle(self.processor)
