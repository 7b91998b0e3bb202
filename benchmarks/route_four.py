"""Contender: our router when four webhooks match each event: one audit record and four intents, all acknowledged."""

from benchmarks.contender import Job, Measured, compete
from benchmarks.route import contend_with

WEBHOOKS_EACH = 4


async def contend(job: Job) -> Measured:
    return await contend_with(job, WEBHOOKS_EACH)


if __name__ == "__main__":
    compete(contend)
