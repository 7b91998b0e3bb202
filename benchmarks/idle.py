"""Part: a real worker with all agents, its upstreams and no event: what it costs to have it."""

import asyncio
import time
from typing import Final

from app.devstack.kafka import free_port
from app.devstack.processes import Worker
from app.devstack.stack import Upstreams, WorkerApi, encryption_key, listening, worker_settings
from app.devstack.standins import Observations
from benchmarks.bench import Bench, BenchmarkFailed, say
from benchmarks.process_cost import cpu_s, peak_rss_mb, rss_mb

__all__ = ["run"]

NUMBERS: Final = 12
SETTLE_S: Final = 5.0
SECONDS_MAX: Final = 15.0


def run(bench: Bench) -> dict[str, float]:
    """Processor time as a share of a core, and resident memory."""
    return asyncio.run(_measure(bench))


async def _measure(bench: Bench) -> dict[str, float]:
    folder = bench.new_folder("idle")
    upstreams = Upstreams.new(Observations())
    async with listening(*upstreams.all):
        settings = worker_settings(
            brokers=bench.brokers,
            app_id="bench-idle",
            data_dir=folder / "data",
            web_port=free_port(),
            encryption_key=encryption_key(),
            upstreams=upstreams,
        )
        settings |= {"PARTITIONS": str(NUMBERS), "SESSION_TIMEOUT_S": "10", "TOPIC_PREFIX": "bench-idle"}
        worker = Worker(settings, folder)
        try:
            began_s = time.monotonic()
            await worker.start()
            async with WorkerApi(f"http://127.0.0.1:{settings['WEB_PORT']}") as api:
                await worker.while_alive(api.ready())
            ready_s = time.monotonic() - began_s
            if worker.pid is None:
                raise BenchmarkFailed("the idle worker ended")
            await asyncio.sleep(SETTLE_S)
            began_s, cpu_began_s = time.monotonic(), cpu_s(worker.pid)
            await asyncio.sleep(min(SECONDS_MAX, 1.5 * bench.seconds))
            cpu_percent = (cpu_s(worker.pid) - cpu_began_s) / (time.monotonic() - began_s) * 100
            held_mb = rss_mb(worker.pid)
            peak_mb = peak_rss_mb(worker.pid)
        finally:
            await worker.stop()
    say(f"  {cpu_percent:.1f} % of a core, {held_mb:.0f} MB ({peak_mb:.0f} at most), ready after {ready_s:.1f} s")
    return {
        "idle_cpu_percent": round(cpu_percent, 2),
        "idle_rss_mb": round(held_mb, 1),
        "idle_peak_rss_mb": peak_mb,
        "start_to_ready_s": round(ready_s, 2),
    }
