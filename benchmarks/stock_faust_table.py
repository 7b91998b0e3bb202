"""Contender: a Faust agent as its handbook has it, one RocksDB row an event; default settings.

Its changelog record is on its way, not acknowledged, when the event counts.
"""

from typing import Any

import faust
import orjson

from benchmarks.contender import Job, Measured, compete, measure
from benchmarks.records import PARTITIONS

ROWS_A_DATASET = 100


async def contend(job: Job) -> Measured:
    app = faust.App(
        job.app_id,
        broker=f"kafka://{job.brokers}",
        datadir=job.data_dir,
        web_enabled=False,
        store="rocksdb://?driver=rocksdict",
        topic_partitions=PARTITIONS,
    )
    source = app.topic(job.topic, key_serializer="raw", value_serializer="raw")
    counts = app.Table("counts", default=int, partitions=PARTITIONS)
    handled = 0

    @app.agent(source)
    async def count(stream: Any) -> None:  # Faust ships no types
        nonlocal handled
        async for value in stream:
            event = orjson.loads(value)
            counts[f"{event['subject']}/{handled % ROWS_A_DATASET}"] += 1
            handled += 1

    app.in_worker = True
    app.finalize()
    await app.start()
    return await measure(job, lambda: handled)


if __name__ == "__main__":
    compete(contend)
