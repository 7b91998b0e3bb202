"""Faust calls its sensors for each of its messages; ours carry all that was fetched for an agent."""

import asyncio
from types import SimpleNamespace
from typing import Any

from faust.types import TP

from app.engine.consumer import SliceConsumer
from app.engine.fetch_pace import FetchPace, ThreadClock
from app.engine.records import Slice, cut
from app.engine.tracker import Tracker
from tests.support.engine import FakeRecord

Place = tuple[str, int]

RECORDS = 1200
SLICE = 512
PLACES = [("in", 0), ("in", 1), ("other", 1)]


async def test_faust_sees_one_message_an_agent_however_many_records_were_fetched() -> None:
    trackers = {tp: Tracker(0) for tp in PLACES}
    for tracker in trackers.values():
        tracker.placed = True
    handed: list[Any] = []

    async def getmany(partitions: set[Place], timeout: float) -> dict[TP, list[FakeRecord]]:  # noqa: ASYNC109  # Faust's
        assert timeout > 0
        return {TP(*tp): [FakeRecord(*tp, offset=offset) for offset in range(RECORDS)] for tp in sorted(partitions)}

    async def callback(message: Any) -> None:
        handed.append(message)

    def slices(found: Any, _wanted: Any) -> list[Slice]:
        return [slice_ for tp, run in found.items() for slice_ in cut(tp[1], run, SLICE, trackers, None, 0.0)]

    intake = SimpleNamespace(wanted=lambda: trackers, slices=slices, pass_by=lambda *_: None)
    agent_of = {topic: SimpleNamespace(name=f"reads-{topic}") for topic, _ in PLACES}
    consumer = SliceConsumer.__new__(SliceConsumer)
    consumer.engine = SimpleNamespace(intake=intake, pace=FetchPace(), agent_of=agent_of)
    consumer.app = SimpleNamespace(consumer_generation_id=1)
    consumer.flow_active = True
    consumer.callback = callback
    consumer._thread = SimpleNamespace(getmany=getmany)
    consumer._poke = asyncio.Event()
    consumer._clock = ThreadClock()

    await consumer._drain_once()

    assert [message.topic for message in handed] == ["in", "other"]
    assert [[(s.number, len(s.records)) for s in message.value] for message in handed] == [
        [(0, 512), (0, 512), (0, 176), (1, 512), (1, 512), (1, 176)],
        [(1, 512), (1, 512), (1, 176)],
    ]
