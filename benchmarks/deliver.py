"""Part: deliveries a second of one worker against a bare loop of POSTs, and how late a delivery is at a small load."""

import asyncio
import json
import subprocess
import sys
from statistics import median
from typing import Final

from benchmarks.bench import Bench, BenchmarkFailed, say
from benchmarks.deliveries_stage import Publisher, ReceiverProcess, Stage, make_event, signed

__all__ = ["most", "run"]

ROUNDS: Final = 3
# What lies ready when counting begins, and what comes while it is counted.
BACKLOG_EVENTS_PER_S: Final = 4_500
PUBLISHED_PER_S: Final = 1_000
SMALL_PER_S: Final = 100
# Of the live measurement: events that are published and not delivered, at most; a second's worth or two.
AHEAD_EVENTS: Final = 5_000
LOOK_S: Final = 0.02
# A new broker compiles itself for about so long, on one of two cores.
WARM_UP_S: Final = 10.0
SETTLE_S: Final = 2.0


def run(bench: Bench) -> dict[str, float]:
    """Rates, ratios and lateness."""
    return asyncio.run(_run(bench))


async def _run(bench: Bench) -> dict[str, float]:
    bare_per_s: list[float] = []
    per_s: list[float] = []
    live_per_s: list[float] = []
    cpu_us: list[float] = []
    with ReceiverProcess() as receiver:
        for _ in range(ROUNDS):
            bare_per_s.append(await _bare(f"{receiver.url}/ok", bench.seconds))
            rate, cost_us = await most(bench, receiver)
            per_s.append(rate)
            cpu_us.append(cost_us)
            live_per_s.append(await _live(bench, receiver))
            say(
                f"  bare {bare_per_s[-1]:,.0f}/s, delivered {rate:,.0f}/s at {cost_us:.0f} us CPU each,"
                f" live {live_per_s[-1]:,.0f}/s"
            )
        figures = {
            "post_bare_per_s": round(median(bare_per_s)),
            "deliver_per_s": round(median(per_s)),
            "deliver_cpu_us": round(median(cpu_us)),
            "deliver_ratio_bare": _ratio(per_s, bare_per_s),
            "deliver_live_per_s": round(median(live_per_s)),
            "deliver_live_ratio_bare": _ratio(live_per_s, bare_per_s),
        }
        for name, rate in (
            ("post", SMALL_PER_S),
            ("post_tenth", median(per_s) / 10),
            ("post_half", median(per_s) / 2),
        ):
            figures |= await _lateness(bench, receiver, name, rate)
    return figures


def _ratio(rates: list[float], bare: list[float]) -> float:
    return round(median(a / b for a, b in zip(rates, bare, strict=True)), 3)


async def _bare(url: str, seconds: float) -> float:
    _, body = make_event(0, "bare")
    headers = signed(body, "bare")
    command = [sys.executable, "-m", "benchmarks.post_bare", url, str(seconds), json.dumps(headers), body.decode()]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    if process.returncode:
        raise BenchmarkFailed(f"the bare loop ended with {process.returncode}")
    measured = json.loads(out)
    return float(measured["events"] / measured["elapsed_s"])


async def most(bench: Bench, receiver: ReceiverProcess) -> tuple[float, float]:
    """Deliveries a second with more waiting than can be delivered, and the worker's processor time for each."""
    async with Stage(bench) as stage:
        await stage.webhook(f"{receiver.url}/ok")
        with Publisher(bench.brokers, stage.prefix, PUBLISHED_PER_S) as publisher:
            await asyncio.to_thread(publisher.burst, int(BACKLOG_EVENTS_PER_S * (bench.seconds + WARM_UP_S)))
            await asyncio.sleep(WARM_UP_S)
            await receiver.taken()
            began_s, cpu_s = asyncio.get_running_loop().time(), stage.cpu_s()
            await asyncio.sleep(bench.seconds)
            count = (await receiver.taken()).get("/ok", {}).get("count", 0)
            elapsed_s = asyncio.get_running_loop().time() - began_s
            return count / elapsed_s, (stage.cpu_s() - cpu_s) / max(1, count) * 1e6


async def _live(bench: Bench, receiver: ReceiverProcess) -> float:
    """Deliveries a second when events come as fast as they are delivered, so that all of their way is paid for."""
    async with Stage(bench) as stage:
        await stage.webhook(f"{receiver.url}/ok")
        with Publisher(bench.brokers, stage.prefix, 0) as publisher:
            warm = await _keep_up(publisher, receiver, WARM_UP_S, 0)
            began_s = asyncio.get_running_loop().time()
            count = await _keep_up(publisher, receiver, bench.seconds, warm)
            return count / (asyncio.get_running_loop().time() - began_s)


async def _keep_up(publisher: Publisher, receiver: ReceiverProcess, seconds: float, delivered: int) -> int:
    """Publish what is delivered, for so long; how many were delivered meanwhile."""
    clock, count = asyncio.get_running_loop().time, 0
    end_s = clock() + seconds
    while clock() < end_s:
        count += int((await receiver.taken()).get("/ok", {}).get("count", 0))
        if (missing := AHEAD_EVENTS - (publisher.published - delivered - count)) > 0:
            await asyncio.to_thread(publisher.burst, missing)
        await asyncio.sleep(LOOK_S)
    return count


async def _lateness(bench: Bench, receiver: ReceiverProcess, name: str, per_s: float) -> dict[str, float]:
    """From the event's time to the POST, at a steady rate."""
    async with Stage(bench) as stage:
        await stage.webhook(f"{receiver.url}/ok")
        with Publisher(bench.brokers, stage.prefix, per_s):
            await asyncio.sleep(SETTLE_S)
            await receiver.taken()
            await asyncio.sleep(bench.seconds)
            taken = (await receiver.taken())["/ok"]
    say(f"  at {per_s:,.0f}/s: p50 {taken['p50_ms']} ms, p99 {taken['p99_ms']} ms")
    return {f"{name}_p50_ms": taken["p50_ms"], f"{name}_p99_ms": taken["p99_ms"], f"{name}_load_per_s": round(per_s)}
