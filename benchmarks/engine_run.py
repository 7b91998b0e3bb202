"""Our engine with one agent, in the process of a contender."""

from pathlib import Path

from app.engine import Agent, Connection
from app.engine.app import create_app
from app.engine.engine import Engine, EngineConfig
from app.topics import Topics
from benchmarks.contender import Job, Measured, measure
from benchmarks.records import PARTITIONS

__all__ = ["run_engine"]


async def run_engine(job: Job, topics: Topics, agent: Agent) -> Measured:
    """Run the agent on the job's topic; a record counts when its unit is done, its outputs acknowledged."""
    engine = Engine(
        EngineConfig(
            app_id=job.app_id,
            connection=Connection(job.brokers),
            numbers=PARTITIONS,
            data_dir=Path(job.data_dir),
            instance="bench",
            url="http://127.0.0.1:1",
            quarantine_topic=topics.quarantine,
        ),
        [agent],
    )
    app = create_app(engine, stats_port=0)
    app.in_worker = True
    app.finalize()
    await app.start()

    def done() -> int:
        # The topic begins at offset 0 and has no control records, so positions are counts.
        return sum(tracker.position for number in engine.numbers.values() for tracker in number.trackers.values())

    return await measure(job, done)
