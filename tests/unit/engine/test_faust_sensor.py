"""Faust calls its sensors for each of its messages; ours carry a slice each, so they stay off the way of a record."""

import asyncio
from types import SimpleNamespace
from typing import Any

from faust.types import TP

from app.engine.consumer import SliceConsumer
from app.engine.fetch_pace import FetchPace, ThreadClock
from app.engine.records import Slice, cut
from app.engine.tracker import Tracker
from tests.support.engine import FakeRecord

RECORDS = 1200
SLICE = 512


async def test_faust_sees_one_message_a_slice_however_many_records_it_has() -> None:
    records = [FakeRecord("in", 0, offset=offset) for offset in range(RECORDS)]
    tracker = Tracker(0)
    tracker.placed = True
    handed: list[Any] = []

    async def getmany(_partitions: set[TP], timeout: float) -> dict[TP, list[FakeRecord]]:  # noqa: ASYNC109  # Faust's
        assert timeout > 0
        return {TP("in", 0): records}

    async def callback(message: Any) -> None:
        handed.append(message)

    def slices(found: Any, _wanted: Any) -> list[Slice]:
        return cut(0, found["in", 0], SLICE, {("in", 0): tracker}, None, 0.0)

    intake = SimpleNamespace(wanted=lambda: {("in", 0): tracker}, slices=slices, pass_by=lambda *_: None)
    consumer = SliceConsumer.__new__(SliceConsumer)
    consumer.engine = SimpleNamespace(intake=intake, pace=FetchPace())
    consumer.app = SimpleNamespace(consumer_generation_id=1)
    consumer.flow_active = True
    consumer.callback = callback
    consumer._thread = SimpleNamespace(getmany=getmany)
    consumer._poke = asyncio.Event()
    consumer._clock = ThreadClock()

    await consumer._drain_once()

    assert [len(message.value.records) for message in handed] == [512, 512, 176]
