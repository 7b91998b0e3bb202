"""Contender: our engine with one row an event, `count += 1`; an event counts once its checkpoint is committed.

That is: its row is in the changelog, in one fenced transaction with the position behind it, and then on disk.
"""

import asyncio
from dataclasses import replace

from app.engine import Agent, Slice, Unit, slice_handler
from app.engine.engine import Engine
from app.engine.positions import POSITIONS_KEY, decode_positions
from app.events import decode_record
from app.topics import Topics
from benchmarks.contender import Job, Measured, compete
from benchmarks.engine_run import run_engine
from benchmarks.records import PREFIX
from benchmarks.rows import COUNTS, Count

AGENT = "count"
# With the 1,000 datasets of the source: 100,000 rows, so that hardly any changes twice between two checkpoints.
ROWS_A_DATASET = 100
YIELD_EVERY_RECORDS = 32


async def count(slice_: Slice, unit: Unit) -> None:
    for at, record in enumerate(slice_.records, 1):
        event = decode_record(record.value, record.headers)
        key = f"{event.subject}/{record.offset % ROWS_A_DATASET}".encode()
        row = unit.get(COUNTS, key)
        unit.put(COUNTS, key, Count(1 if row is None else row.n + 1))
        if at % YIELD_EVERY_RECORDS == 0:
            await asyncio.sleep(0)


def checkpointed(engine: Engine) -> int:
    """Events below the positions on disk, which are written only after the changelog has them."""
    return sum(
        position.offset
        for number in engine.numbers
        for position in decode_positions(
            engine.store(engine.agents[0], number).get(POSITIONS_KEY + AGENT.encode())
        ).values()
    )


def logged(engine: Engine) -> int:
    """Records in the changelogs; a row that changed twice between two checkpoints is there once."""
    topic = engine.changelog_topic(COUNTS.name)
    return sum(engine.store(engine.agents[0], number).applied(topic) for number in engine.numbers)


async def contend(job: Job) -> Measured:
    agent = Agent(name=AGENT, topics=(job.topic,), processor=slice_handler(count), home=COUNTS, tables=(COUNTS,))
    seen: list[Engine] = []

    def watched(engine: Engine) -> int:
        seen[:] = [engine]
        return checkpointed(engine)

    measured = await run_engine(job, Topics(PREFIX, job.app_id).quarantine, agent, watched)
    per_event = round(logged(seen[0]) / checkpointed(seen[0]), 2)
    return replace(measured, figures={**measured.figures, "logged_per_event": per_event})


if __name__ == "__main__":
    compete(contend)
