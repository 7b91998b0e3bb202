"""Contender: `async for` of aiokafka, `orjson.loads` of each value, no commit. What everything else is a ratio to."""

import asyncio

import orjson
from aiokafka import AIOKafkaConsumer

from benchmarks.contender import Job, Measured, compete, measure


async def contend(job: Job) -> Measured:
    consumer = AIOKafkaConsumer(
        job.topic,
        bootstrap_servers=job.brokers,
        group_id=job.app_id,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    handled = 0

    async def loop() -> None:
        nonlocal handled
        async for record in consumer:
            orjson.loads(record.value)
            handled += 1

    await consumer.start()
    looping = asyncio.create_task(loop())
    measured = await measure(job, lambda: handled)
    looping.cancel()
    return measured


if __name__ == "__main__":
    compete(contend)
