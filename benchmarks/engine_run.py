"""Our engine with one agent, in the process of a contender."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from app.engine import Agent, Connection
from app.engine.app import EngineApp, create_app
from app.engine.engine import Engine, EngineConfig
from benchmarks.contender import Job, Lateness, Measured, measure
from benchmarks.records import PARTITIONS

__all__ = ["positions", "run_engine", "start_engine"]


async def start_engine(
    job: Job, quarantine_topic: str, *agents: Agent, numbers: int = PARTITIONS, checkpoint_interval_s: float = 0.2
) -> tuple[Engine, EngineApp]:
    """An engine that has asked to join its group."""
    engine = Engine(
        EngineConfig(
            app_id=job.app_id,
            connection=Connection(job.brokers),
            numbers=numbers,
            data_dir=Path(job.data_dir),
            instance=job.instance,
            url="http://127.0.0.1:1",
            quarantine_topic=quarantine_topic,
            checkpoint_interval_s=checkpoint_interval_s,
        ),
        agents,
    )
    app = create_app(engine, stats_port=0)
    app.in_worker = True
    app.finalize()
    await app.start()
    return engine, app


def positions(engine: Engine) -> int:
    """Records whose unit is done: the topic begins at offset 0 and has no control records, so positions are counts."""
    return sum(tracker.position for number in engine.numbers.values() for tracker in number.trackers.values())


async def run_engine(
    job: Job, quarantine_topic: str, agent: Agent, count: Callable[[Engine], int] = positions
) -> Measured:
    """Run the agent on the job's topic, and count what `count` says of it.

    Args:
        count: By default a record counts when its unit is done, its outputs acknowledged.
    """
    engine, _ = await start_engine(job, quarantine_topic, agent)
    lateness, began = Lateness(), False

    def done() -> int:
        nonlocal began
        if not began and job.share in (0, sum(number.ready for number in engine.numbers.values())):
            began = count(engine) > 0
            if began:
                lateness.start()
        return count(engine) if began else 0

    measured = await measure(job, done)
    return replace(measured, figures=lateness.figures())
