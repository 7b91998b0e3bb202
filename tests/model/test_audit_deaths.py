"""The governance agent, killed between any two of its steps, before a dashboard that answers in every way."""

from __future__ import annotations

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.integrations.governance import Flush
from tests.support.audit_world import World

PARTITIONS = (1, 5)
KINDS = st.sampled_from(["good", "good", "good", "poison", "large", "unreadable"])
ANSWERS = st.sampled_from(["real", "503", "429", "lost", "timeout"])


class AuditDeaths(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.world = World(Flush(size=4, limit_bytes=4000, interval_s=5.0), PARTITIONS)

    @initialize(limit=st.integers(1, 4), refusal=st.sampled_from([400, 422]))
    def start(self, limit: int, refusal: int) -> None:
        self.world.dashboard.limit, self.world.dashboard.refusal = limit, refusal
        self.runner.run(self.world.start())

    @rule(partition=st.sampled_from(PARTITIONS), kinds=st.lists(KINDS, min_size=1, max_size=6))
    def append(self, partition: int, kinds: list[str]) -> None:
        self.world.append(partition, *kinds)

    @rule(partition=st.sampled_from(PARTITIONS), count=st.integers(1, 8))
    def deliver(self, partition: int, count: int) -> None:
        self.runner.run(self.world.deliver(partition, count))

    @rule(seconds=st.sampled_from([0.0, 1.0, 6.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.runner.run(self.world.advance(seconds))

    @rule(answers=st.lists(ANSWERS, min_size=1, max_size=4))
    def misbehave(self, answers: list[str]) -> None:
        self.world.answers += answers

    @rule(slow=st.booleans())
    def keep_waiting(self, slow: bool) -> None:
        self.world.slow = slow

    @rule(steps=st.integers(1, 14))
    def doom(self, steps: int) -> None:
        """It dies on its way, so many steps from now."""
        self.world.dies_in = steps

    @rule()
    def die_at_rest(self) -> None:
        self.runner.run(self.world.restart())

    @rule()
    def checkpoint(self) -> None:
        self.world.checkpoint()

    @precondition(lambda self: self.world.late)
    @rule()
    def arrive_late(self) -> None:
        """A request that a dead worker sent."""
        self.world.dashboard.take(self.world.late.pop(0))

    @invariant()
    def what_was_sent_is_one_chain_of_ranges(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        try:
            self.runner.run(self.world.finish())
            self.world.check_all_done()
            self.runner.run(self.world.context.close())
        finally:
            self.runner.close()


TestAuditDeaths = AuditDeaths.TestCase
TestAuditDeaths.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
