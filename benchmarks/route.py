"""Contender: our router; each event is decoded, audited and becomes one intent, all of it acknowledged."""

from collections.abc import Sequence
from itertools import cycle

from agents.router import router_agent
from app.events import CloudEvent
from app.topics import Topics
from benchmarks.contender import Job, Measured, compete
from benchmarks.engine_run import run_engine
from benchmarks.records import PREFIX
from tables.positions import POSITIONS

__all__ = ["SomeWebhooksEach", "contend_with"]

WEBHOOKS = 100


class SomeWebhooksEach:
    """Every event is for as many webhooks, each of them in turn: matching has a benchmark of its own."""

    def __init__(self, each: int) -> None:
        ids = [f"wh_{number:024d}" for number in range(WEBHOOKS)]
        self._turns = cycle([tuple(ids[(at + step) % WEBHOOKS] for step in range(each)) for at in range(WEBHOOKS)])

    def match(self, event: CloudEvent) -> Sequence[str]:  # noqa: ARG002  # the shape of a matcher
        return next(self._turns)


async def contend_with(job: Job, webhooks_each: int) -> Measured:
    topics = Topics(PREFIX, job.app_id)
    agent = router_agent(topics, SomeWebhooksEach(webhooks_each), POSITIONS)
    return await run_engine(job, topics.quarantine, agent)


async def contend(job: Job) -> Measured:
    return await contend_with(job, 1)


if __name__ == "__main__":
    compete(contend)
