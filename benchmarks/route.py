"""Contender: our router; each event is decoded, audited and becomes one intent, all of it acknowledged."""

from collections.abc import Iterable
from itertools import cycle

from agents.router import router_agent
from app.events import CloudEvent
from app.topics import Topics
from benchmarks.contender import Job, Measured, compete
from benchmarks.engine_run import run_engine
from benchmarks.records import PREFIX
from tables.positions import POSITIONS

WEBHOOKS = 100


class OneWebhookEach:
    """Every event is for one webhook, each in turn: matching has a benchmark of its own."""

    def __init__(self) -> None:
        self._turns = cycle([(f"wh_{number:024d}",) for number in range(WEBHOOKS)])

    def match(self, event: CloudEvent) -> Iterable[str]:  # noqa: ARG002  # the shape of a matcher
        return next(self._turns)


async def contend(job: Job) -> Measured:
    topics = Topics(PREFIX, job.app_id)
    return await run_engine(job, topics, router_agent(topics, OneWebhookEach(), POSITIONS))


if __name__ == "__main__":
    compete(contend)
