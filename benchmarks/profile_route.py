"""`python -m benchmarks.profile_route`: where the processor time of an event goes on its way through the router.

A Kafka of its own, the route contender in this very process, and a sampler; a table by stage and thread.
"""

import argparse
import logging
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import uvloop

from agents.router import router_agent
from app.devstack.kafka import KafkaServer
from app.topics import Topics
from benchmarks.bench import Bench
from benchmarks.contender import Job, Measured, measure
from benchmarks.engine_run import positions, start_engine
from benchmarks.records import PREFIX
from benchmarks.route import SomeWebhooksEach
from benchmarks.sampling import Sampler
from tables.positions import POSITIONS

__all__ = ["STAGES", "stage_of"]

# The first that matches a frame, from the innermost outwards: a part of its file's path, and of its function's name.
STAGES: Final[Sequence[tuple[str, str, str]]] = (
    ("payload", "app/events/payload", ""),
    ("derive", "app/events/derived", ""),
    ("derive", "app/webhooks/derived", ""),
    ("derive", "app/events/identifiers", ""),
    ("derive", "app/events/times", ""),
    ("derive", "agents/router", "_send_derived"),
    ("derive", "agents/router", "_deliver"),
    ("decode", "app/events/", ""),
    ("audit", "app/integrations/", ""),
    ("match", "benchmarks/route", ""),
    ("match", "app/webhooks/matching", ""),
    ("route", "agents/", ""),
    ("batch", "app/engine/producer", "append_many"),
    ("batch", "aiokafka/producer/message_accumulator", "append"),
    ("batch", "aiokafka/producer/message_accumulator", "_build"),
    ("batch", "aiokafka/producer/message_accumulator", "close"),
    ("batch", "aiokafka/codec", ""),
    ("checkpoint", "app/engine/checkpoint", ""),
    ("checkpoint", "app/engine/changelog", ""),
    ("checkpoint", "app/engine/offset_copies", ""),
    ("checkpoint", "app/engine/store", ""),
    ("send", "app/engine/outputs", ""),
    ("send", "app/engine/producer", ""),
    ("send", "aiokafka/producer/", ""),
    ("merge", "app/engine/records", ""),
    ("merge", "app/engine/intake", ""),
    ("merge", "app/engine/tracker", ""),
    ("unit", "app/engine/unit", ""),
    ("unit", "app/engine/runner", ""),
    ("fetch", "app/engine/fetching", ""),
    ("fetch", "app/engine/consumer", ""),
    ("fetch", "aiokafka/consumer/", ""),
    ("sockets", "aiokafka/", ""),
    ("loop", "faust/", ""),
    ("loop", "mode/", ""),
)
_LOOP: Final = "loop"
_MAIN: Final = "MainThread"
_FUNCTIONS: Final = 12


def stage_of(frame: FrameType) -> str:
    """The stage of the innermost frame that belongs to one."""
    at: FrameType | None = frame
    while at is not None:
        code = at.f_code
        for stage, file, function in STAGES:
            if file in code.co_filename and function in code.co_name:
                return stage
        at = at.f_back
    return _LOOP


async def profile(job: Job) -> tuple[Measured, Sampler]:
    """Route for as long as the job says, from the first event on."""
    topics = Topics(PREFIX, job.app_id)
    engine, _ = await start_engine(job, topics.quarantine, router_agent(topics, SomeWebhooksEach(1), POSITIONS))
    sampler = Sampler(stage_of)

    def done() -> int:
        count = positions(engine)
        if count and not sampler.running:
            sampler.start()
        return count

    measured = await measure(job, done)
    sampler.stop()
    return measured, sampler


def table(measured: Measured, sampler: Sampler) -> str:
    """Microseconds an event by stage and thread, and the functions that cost most by themselves."""
    stages: Counter[str] = Counter()
    main: Counter[str] = Counter()
    for (thread, stage), cpu_s in sampler.cpu_s.items():
        stages[stage] += cpu_s
        main[stage] += cpu_s if thread == _MAIN else 0.0
    total_s = stages.total() or 1.0
    lines = [f"{measured.events_per_s:,.0f} events/s, {measured.cpu_us:.1f} us CPU an event, with the sampler", ""]
    lines.append(f"{'stage':12} {'us/event':>9} {'share':>6} {'loop thread':>12} {'other threads':>14}")
    for stage, cpu_s in stages.most_common():
        each = [value / measured.events * 1e6 for value in (cpu_s, main[stage], cpu_s - main[stage])]
        lines.append(f"{stage:12} {each[0]:9.2f} {cpu_s / total_s:6.0%} {each[1]:12.2f} {each[2]:14.2f}")
    lines += ["", f"{'us/event':>9}  by itself"]
    for (stage, function), cpu_s in sampler.lines.most_common(_FUNCTIONS):
        lines.append(f"{cpu_s / measured.events * 1e6:9.2f}  {stage}: {function}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_route", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="default 10")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="vault-stream-profile-"))
    server = KafkaServer(folder / "kafka", leash=True)
    try:
        server.start()
        bench = Bench(server.bootstrap, folder, options.seconds)
        job = bench.source_job("profile")

        async def run() -> None:
            measured, sampler = await profile(job)
            print(table(measured, sampler), flush=True)
            # As a contender ends, nothing of it is used again; what it says of its broker's end is of no use.
            logging.disable(logging.CRITICAL)
            server.kill()
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(0)

        uvloop.run(run())
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
