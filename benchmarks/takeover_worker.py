"""A worker of the takeover: one row (`count += 1`) and one record, which says who sent it, for each that it reads."""

import asyncio
import os
import signal

from app.engine import Agent, Slice, Unit, slice_handler
from app.topics import Topics
from benchmarks.contender import Job, Measured, compete
from benchmarks.engine_run import start_engine
from benchmarks.rows import COUNTS, Count
from benchmarks.takeover import NUMBERS, OUTPUT_SUFFIX

STOP_S = 30.0


async def contend(job: Job) -> Measured:
    out, me = job.app_id + OUTPUT_SUFFIX, job.instance.encode()

    async def handle(slice_: Slice, unit: Unit) -> None:
        for record in slice_.records:
            key = record.key or b"?"
            row = unit.get(COUNTS, key)
            unit.put(COUNTS, key, Count(1 if row is None else row.n + 1))
            unit.send(out, key, me)

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    agent = Agent(name="count", topics=(job.topic,), processor=slice_handler(handle), home=COUNTS, tables=(COUNTS,))
    _, app = await start_engine(job, Topics(job.app_id, job.app_id).quarantine, agent, numbers=NUMBERS)
    await stop.wait()
    async with asyncio.timeout(STOP_S):
        await app.stop()
    os._exit(0)


if __name__ == "__main__":
    compete(contend)
