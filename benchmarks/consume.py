"""Contender: our engine with an agent that decodes each event and sends nothing."""

import asyncio

from app.engine import Agent, Slice, Unit, slice_handler
from app.events import decode_record
from app.topics import Topics
from benchmarks.contender import Job, Measured, compete
from benchmarks.engine_run import run_engine
from benchmarks.records import PREFIX
from tables.positions import POSITIONS

YIELD_EVERY_RECORDS = 32


async def decode(slice_: Slice, unit: Unit) -> None:  # noqa: ARG001  # an agent's handler, which sends nothing
    for count, record in enumerate(slice_.records, 1):
        decode_record(record.value, record.headers)
        if count % YIELD_EVERY_RECORDS == 0:
            await asyncio.sleep(0)


async def contend(job: Job) -> Measured:
    agent = Agent(
        name="decode", topics=(job.topic,), processor=slice_handler(decode), home=POSITIONS, tables=(POSITIONS,)
    )
    return await run_engine(job, Topics(PREFIX, job.app_id).quarantine, agent)


if __name__ == "__main__":
    compete(contend)
