"""Part: a million deliveries that wait: what they cost while they do, and how soon those that become due go out."""

import asyncio
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import aiohttp
from confluent_kafka import Consumer, TopicPartition

from app.events import format_time
from benchmarks.bench import Bench, BenchmarkFailed, say
from benchmarks.deliveries_stage import Publisher, ReceiverProcess, Stage
from benchmarks.process_cost import peak_rss_mb

__all__ = ["hold", "park", "run"]

ROWS: Final = 1_000_000
WEBHOOKS: Final = 10
PUBLISHED_PER_S: Final = 1_000
DAY_MS: Final = 86_400_000
PARK_DEADLINE_S: Final = 1_500.0
QUIET_S: Final = 10.0
FIRST_DEADLINE_S: Final = 60.0
POLL_S: Final = 1.0
_WAITING: Final = re.compile(r'^vault_stream_deliveries_waiting\{reason="hold"\} (\S+)$', re.MULTILINE)


def run(bench: Bench) -> dict[str, float]:
    """Memory, disk, growth of topics, and the way out."""
    # Short runs are for a look at the harness.
    return asyncio.run(_measure(bench, min(ROWS, int(ROWS * bench.seconds / 10))))


async def _measure(bench: Bench, rows: int) -> dict[str, float]:
    with ReceiverProcess() as receiver:
        async with Stage(bench) as stage:
            hooks = [await stage.webhook(f"{receiver.url}/{number}/ok") for number in range(WEBHOOKS)]
            for hook in hooks:
                await hold(stage, hook, format_time(time.time_ns() // 1_000_000 + DAY_MS))
            began_s = time.monotonic()
            await park(bench, stage, rows)
            parked_s = time.monotonic() - began_s
            ends = await asyncio.to_thread(_ends, bench.brokers, stage.prefix)
            rss_mb = stage.rss_mb()
            say(f"  {rows:,} rows wait after {parked_s:.0f} s: {rss_mb:.0f} MB, {_disk_mb(stage):.0f} MB of disk")
            await asyncio.sleep(QUIET_S)
            later = await asyncio.to_thread(_ends, bench.brokers, stage.prefix)
            grown = sum(later.values()) - sum(ends.values())
            first_s, per_s = await _let_go(stage, receiver, hooks[0], bench.seconds)
            figures = {
                "waiting_rows": rows,
                "waiting_parked_per_s": round(rows / parked_s),
                "waiting_rss_mb": round(rss_mb, 1),
                "waiting_peak_rss_mb": peak_rss_mb(stage.worker.pid or "self"),
                "waiting_disk_mb": round(_disk_mb(stage), 1),
                "waiting_records_grown": grown,
                "waiting_first_post_s": round(first_s, 3),
                "waiting_drain_per_s": round(per_s),
            }
            began_s = time.monotonic()
            await stage.worker.kill()
            await stage.worker.start()
            await stage.until_ready(PARK_DEADLINE_S)
            figures["waiting_restart_s"] = round(time.monotonic() - began_s, 1)
    say(f"  grown by {grown} records, first POST after {first_s:.2f} s, then {per_s:,.0f}/s")
    say(f"  ready {figures['waiting_restart_s']} s after kill -9")
    return figures


async def hold(stage: Stage, hook: str, until: str | None) -> None:
    """Let a webhook wait until then, or no longer."""
    url = f"{stage.url}/v1/webhooks/{hook}/hold"
    async with aiohttp.ClientSession() as session, session.post(url, json={"until": until}) as answer:
        if not answer.ok:
            raise BenchmarkFailed(f"no hold: {answer.status} {await answer.text()}")


async def park(bench: Bench, stage: Stage, rows: int) -> None:
    """Publish, and wait until every delivery waits."""
    with Publisher(bench.brokers, stage.prefix, PUBLISHED_PER_S) as publisher:
        while publisher.published < rows // WEBHOOKS:  # noqa: ASYNC110  # a thread
            await asyncio.sleep(0.01)
        publisher.per_s = 0
    wanted = publisher.published * WEBHOOKS
    async with asyncio.timeout(PARK_DEADLINE_S):
        while await _waiting(stage) < wanted:  # noqa: ASYNC110  # another process
            await asyncio.sleep(POLL_S)


async def _waiting(stage: Stage) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{stage.url}/metrics") as answer:
        return sum(map(float, _WAITING.findall(await answer.text())))


async def _let_go(stage: Stage, receiver: ReceiverProcess, hook: str, seconds: float) -> tuple[float, float]:
    """From the answer to the API on until the first POST, and how many a second come after it."""
    await receiver.taken()
    await hold(stage, hook, None)
    began_s = time.monotonic()
    async with asyncio.timeout(FIRST_DEADLINE_S):
        while not (await receiver.taken()).get("/0/ok", {}).get("count"):  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.01)
    first_s = time.monotonic() - began_s
    began_s = time.monotonic()
    await asyncio.sleep(seconds)
    count = (await receiver.taken()).get("/0/ok", {}).get("count", 0)
    return first_s, count / (time.monotonic() - began_s)


def _ends(brokers: str, prefix: str) -> Mapping[tuple[str, int], int]:
    """Where each partition of the application's topics ends."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": f"{prefix}-ends", "log_level": 0})
    try:
        topics = consumer.list_topics(timeout=20).topics
        return {
            (name, partition): consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=20)[1]
            for name, topic in topics.items()
            if name.startswith(prefix)
            for partition in topic.partitions
        }
    finally:
        consumer.close()


def _disk_mb(stage: Stage) -> float:
    total = 0
    for file in Path(stage.folder / "data").rglob("*"):
        with suppress(FileNotFoundError):
            total += file.stat().st_size
    return total / 1e6
