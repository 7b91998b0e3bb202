"""Traps of Faust and aiokafka that lose or freeze, and the test that fails without our way round each.

- A fetch begun before a rebalance returns records of the new assignment: `tests/system/test_engine_traps.py`, whose
  proof fails without the seek, on partitions with and without a committed offset.
- Coordinator errors are never consumed: `tests/system/test_engine_refused_join.py`, and recovery in
  `tests/system/test_engine_traps.py`.
- The livelock detector asserts a position, and ends the worker: here.
- A standby replica brings Faust's own assignor: here, and `tests/system/test_engine_assignment.py`.
- A revoke forgets acknowledgements before it tells the application: here.
- Two workers of a method queue, both in a rebalance: `tests/system/test_engine_storm.py`, where no close could commit.
- An empty set of partitions means all: here.
- A commit error ends the application: here.
- A shutdown waits without a deadline for acknowledgements that we never give: here.
- A slice is put into a queue after it was cleared: here.
- No heartbeat while the assigned callback runs: `tests/system/test_engine_traps.py`, with a restore that takes longer
  than a session.
- Faust's producer is not idempotent, and `stop()` waits for a dead broker: `tests/integration/test_producer.py` and
  `test_output_queue.py`.
- Topics added after the start rebalance the group: all agents are registered before it.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faust.transport.consumer import Consumer as FaustConsumer
from faust.types import TP

from app.engine import Agent, Connection, slice_handler
from app.engine.app import EngineApp, create_app
from app.engine.consumer import SliceConsumer
from app.engine.engine import Engine, EngineConfig
from app.engine.fetch_pace import FetchPace, ThreadClock
from app.engine.intake import Intake
from app.engine.records import Slice
from tests.support.engine import ROWS, FakeRecord


async def nothing(*_: object) -> None:
    pass


@pytest.fixture
def app(tmp_path: Path) -> Iterator[EngineApp]:
    config = EngineConfig(
        app_id="traps",
        connection=Connection("127.0.0.1:1"),
        numbers=2,
        data_dir=tmp_path,
        instance="w",
        url="http://127.0.0.1:1",
        quarantine_topic="quarantine",
    )
    agent = Agent(name="a", topics=("in",), processor=slice_handler(nothing), home=ROWS, tables=(ROWS,))
    engine = Engine(config, [agent])
    yield create_app(engine, stats_port=0)
    engine.data_dir.close()


def test_faust_keeps_no_standby_and_creates_no_topic(app: EngineApp) -> None:
    assert app.conf.table_standby_replicas == 0
    assert app.conf.topic_allow_declare is False
    assert app.conf.topic_disable_leader is True


def test_a_shutdown_does_not_wait_for_acknowledgements_that_nobody_gives(app: EngineApp) -> None:
    assert app.conf.stream_wait_empty is False


def test_the_livelock_detector_looks_at_no_position() -> None:
    SliceConsumer.verify_event_path(SimpleNamespace(), 0.0, TP("in", 0))


async def test_faust_commits_nothing_so_nothing_can_fail() -> None:
    assert await SliceConsumer.commit(SimpleNamespace()) is False


class Recorder:
    """Notes what is called, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def note(self, name: str, *, fails: bool = False) -> Any:
        async def call(*_: object) -> None:
            self.calls.append(name)
            if fails:
                raise RuntimeError(name)

        return call


@pytest.mark.parametrize("fails", [False, True])
async def test_numbers_are_closed_before_faust_hears_of_a_revoke_and_it_hears_of_it_in_any_case(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(FaustConsumer, "on_partitions_revoked", recorder.note("faust"))
    consumer = object.__new__(SliceConsumer)
    consumer.engine = SimpleNamespace(revoked=recorder.note("numbers", fails=fails))

    await SliceConsumer.on_partitions_revoked(consumer, {TP("in", 0)})

    assert recorder.calls == ["numbers", "faust"]


async def test_nothing_is_fetched_when_nothing_is_wanted() -> None:
    recorder = Recorder()
    consumer = SimpleNamespace(
        flow_active=True,
        engine=SimpleNamespace(intake=SimpleNamespace(wanted=dict), pace=FetchPace()),
        _idle=recorder.note("idle"),
        _poke=asyncio.Event(),
        _clock=ThreadClock(),
        _thread=SimpleNamespace(getmany=recorder.note("fetch")),
    )

    await SliceConsumer._drain_once(consumer)

    assert recorder.calls == ["idle"]


def test_a_slice_of_an_opening_gone_by_or_of_a_number_that_is_not_ours_is_dropped() -> None:
    accepted: list[Slice] = []
    number = SimpleNamespace(epoch=object(), runners={"a": SimpleNamespace(accept=accepted.append)})
    intake = Intake(SimpleNamespace(numbers={0: number}))
    fresh = Slice(0, [FakeRecord(offset=0)], number.epoch)

    intake.accept("a", Slice(0, [FakeRecord(offset=0)], object()))
    intake.accept("a", Slice(1, [FakeRecord(offset=0)], number.epoch))
    intake.accept("b", Slice(0, [FakeRecord(offset=0)], number.epoch))
    intake.accept("a", fresh)

    assert accepted == [fresh]
