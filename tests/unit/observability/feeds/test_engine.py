"""The engine feeds its metrics, with all that it sends and reads."""

import asyncio
import time
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiokafka import TopicPartition
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import RecordMetadata

from app.engine import Slice, Unit
from app.engine.assignor import Assigned
from app.engine.number import State
from app.engine.output_queue import Message, OutputQueue
from app.engine.producer import HardProducer
from app.engine.status import Status
from app.integrations.upstream import HttpUpstream, UpstreamConfig
from tests.support.engine import FakeRecord, new_scope, new_store
from tests.support.metric_samples import Change, value
from tests.unit.engine.test_engine import new_engine


class Engine:
    """What `Status` reads of an engine."""

    def __init__(self) -> None:
        runner = SimpleNamespace(oldest_unfinished_s=lambda: 3.5, jobs_waiting=2, problem=lambda: None)
        tracker = SimpleNamespace(position=5)
        number = SimpleNamespace(
            number=0,
            state=State.OPEN,
            ready=True,
            reason="",
            runners={"webhooks": runner},
            problems=list,
            trackers={("t", 0): tracker},
        )
        self.numbers = {0: number}
        self.numbers_count = 1
        self.agents = (SimpleNamespace(name="webhooks"), SimpleNamespace(name="registry"))
        self.agent_of = {"t": "webhooks"}
        self.consumer = SimpleNamespace(end_of=lambda _tp: 12, unreadable={})
        self.clock = SimpleNamespace(monotonic_s=lambda: 1.0)
        self.ownership = SimpleNamespace(owner=lambda _number: SimpleNamespace(name="w"))
        self.instance = "w"
        self.draining = False
        self.assignment_seen = True
        self.problem = self.coordinator_problem = ""
        self.session_s = 10.0

    def lease_valid(self) -> bool:
        return True


async def test_the_gauges_of_the_engine_are_fed() -> None:
    status = Status(cast("Any", Engine()))
    feeding = asyncio.create_task(status.feed_gauges())
    await asyncio.sleep(0)
    feeding.cancel()
    assert value("vault_stream_numbers", state="open") == 1
    assert value("vault_stream_numbers", state="refused") == 0
    assert value("vault_stream_oldest_unfinished_seconds", agent="webhooks") == 3.5
    assert value("vault_stream_oldest_unfinished_seconds", agent="registry") == 0
    assert value("vault_stream_consumer_lag", topic="t") == 7
    assert value("queue_depth", queue_name="jobs_webhooks") == 2
    assert value("queue_depth", queue_name="jobs_registry") == 0
    assert value("vault_stream_ready") == 1


async def test_an_assignment_and_a_gap_are_counted(tmp_path: Path) -> None:
    change, engine = Change(), new_engine(tmp_path)
    engine._learn(Assigned(generation=1, numbers=(), owners={}, problem=""))
    await engine.gap("t", 0, 10, 15)
    assert change.of("vault_stream_rebalances_total") == 1
    assert change.of("vault_stream_gap_records_total", topic="t") == 5
    await engine.stop()


async def test_what_is_put_into_quarantine_is_counted(tmp_path: Path) -> None:
    change, store = Change(), new_store(tmp_path)
    unit = Unit(new_scope(store), Slice(0, []))
    unit.quarantine(FakeRecord("in", 0, offset=0), "invalid_data", "no dataset_id")
    assert change.of("vault_stream_quarantined_total", agent=unit._scope.agent, reason="invalid_data") == 0
    await unit.flush()
    assert change.of("vault_stream_quarantined_total", agent=unit._scope.agent, reason="invalid_data") == 1
    store.close()


class Producer:
    """Acknowledges everything; the topic is one whose records the broker stamps."""

    def __init__(self, broker_ahead_s: float) -> None:
        self._ahead_s = broker_ahead_s

    async def start(self) -> None: ...

    async def hard_close(self) -> bool:
        return True

    def create_plain_batch(self) -> BatchBuilder:
        return BatchBuilder(16384, 0)

    async def send_batch(self, _batch: Any, topic: str, *, partition: int) -> asyncio.Future[RecordMetadata]:
        sent: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        stamp_ms = round((time.time() + self._ahead_s) * 1000)
        tp = TopicPartition(topic, partition)
        sent.set_result(RecordMetadata(topic, partition, tp, 7, stamp_ms, 1, 0))
        return sent


async def test_acknowledged_outputs_are_counted_and_tell_the_clock_of_the_broker() -> None:
    change = Change()
    queue = OutputQueue(lambda: cast("HardProducer", Producer(broker_ahead_s=60)))
    messages: Sequence[Message] = [Message("t", b"k", b"v"), Message("t", b"k", b"v")]
    assert await queue.add("t", 0, messages) == 7
    await queue.close()
    assert change.of("vault_stream_outputs_total", topic="t") == 2
    assert value("vault_stream_clock_skew_seconds", peer="broker") == pytest.approx(-60, abs=1)


async def test_the_date_of_an_answer_tells_the_clock_of_an_upstream() -> None:
    async def late(_request: web.Request) -> web.Response:
        return web.json_response({}, headers={"Date": formatdate(time.time() - 3600, usegmt=True)})

    application = web.Application()
    application.router.add_get("/x", late)
    server = TestServer(application)
    await server.start_server()
    client = HttpUpstream(UpstreamConfig(str(server.make_url("/")), 30.0), peer="governance")
    await client.send("GET", "/x")
    assert value("vault_stream_clock_skew_seconds", peer="governance") == pytest.approx(3600, abs=31)
    await client.close()
    await server.close()
