"""Contender: a Faust agent as its handbook has it, `orjson.loads` and one send for each event; default settings."""

from typing import Any

import faust
import orjson

from benchmarks.contender import Job, Measured, compete, measure

OUTPUT_SUFFIX = "-faust-out"


async def contend(job: Job) -> Measured:
    app = faust.App(job.app_id, broker=f"kafka://{job.brokers}", datadir=job.data_dir, web_enabled=False)
    source = app.topic(job.topic, key_serializer="raw", value_serializer="raw")
    output = app.topic(job.topic + OUTPUT_SUFFIX, key_serializer="raw", value_serializer="raw")
    handled = 0

    @app.agent(source)
    async def relay(stream: Any) -> None:  # Faust ships no types
        nonlocal handled
        async for value in stream:
            event = orjson.loads(value)
            await output.send(key=event["subject"], value=value)
            handled += 1

    app.in_worker = True
    app.finalize()
    await app.start()
    return await measure(job, lambda: handled)


if __name__ == "__main__":
    compete(contend)
