"""Every metric of the contract is fed by what really happens: each is driven by a test, and none is left out.

`FEEDS` names the test for each metric. One that is added without a feed fails here.
"""

import asyncio
import importlib
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiokafka import TopicPartition
from aiokafka.structs import RecordMetadata

from app.engine import Agent, Slice, Unit
from app.engine.assignor import Assigned
from app.engine.changelog import Write
from app.engine.errors import CheckpointFailed, StoreDamaged
from app.engine.number import State
from app.engine.output_queue import Message, OutputQueue
from app.engine.producer import HardProducer
from app.engine.restore import apply_records
from app.engine.status import Status
from app.events import VaultEventType, new_event
from app.integrations.upstream import HttpUpstream, UpstreamConfig
from app.main import Program
from app.observability import metrics
from app.observability.health import HealthStatus
from app.settings import Settings
from app.webhooks.census import Census
from tests.support.engine import ROWS, FakeRecord, Row, new_scope, new_store
from tests.support.number import FakeServices, put, ready_number, until
from tests.support.quiet import Quiet
from tests.support.webhooks import Desk, answer, webhook_row
from tests.unit.agents.test_router import of, route
from tests.unit.engine.test_engine import new_engine
from tests.unit.integrations.policy.test_evaluation import Desk as PolicyDesk
from tests.unit.integrations.policy.test_journal import Broker, decision, journal
from tests.unit.observability.test_metrics import CONTRACT
from tests.unit.web.test_server import serving

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
TRACE: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def scraped() -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in metrics.REGISTRY.collect()
        for sample in family.samples
    }


class Change:
    """What was counted since it was made."""

    def __init__(self) -> None:
        self._before = scraped()

    def of(self, name: str, **labels: str) -> float:
        key = (name, frozenset(labels.items()))
        return scraped().get(key, 0.0) - self._before.get(key, 0.0)


def value(name: str, **labels: str) -> float:
    found = metrics.REGISTRY.get_sample_value(name, labels)
    assert found is not None, f"{name} {labels} has no sample"
    return found


# --- the listener -----------------------------------------------------------------------------------------------------


async def test_requests_feed_their_metrics() -> None:
    change = Change()
    async with serving() as api:
        await api.call("GET", "/v1/things/a")
        await api.call("GET", "/v1/things/b")
        assert value("active_connections") == 1
    labels = {"method": "GET", "path": "/v1/things/{id}"}
    assert change.of("http_requests_total", **labels, status="200") == 2
    assert change.of("http_request_duration_seconds_count", **labels) == 2
    assert change.of("http_request_duration_seconds_bucket", **labels, le="+Inf") == 2


@pytest.mark.parametrize("method", ["BREW", "get", "X" * 200])
async def test_a_hostile_request_makes_no_series_of_its_own(method: str) -> None:
    async with serving() as api:
        await api.call("GET", "/nowhere")
        await api.call("BREW", "/nowhere")
        known = set(scraped())
        for path in ("/v1/../../etc/passwd", "/%00%0a", "/v1/things/" + "x" * 2000, "/" + "y" * 2000, "/nowhere?a=b"):
            await api.call("GET", path)
            await api.call(method, path)
        new = {labels for name, labels in set(scraped()) - known if name == "http_requests_total"}
    shown = [dict(labels) for labels in new]
    assert {one["method"] for one in shown} <= {"GET", "other"}
    assert {one["path"] for one in shown} <= {"unmatched", "/v1/things/{id}"}


async def test_a_sampled_trace_of_a_request_is_an_exemplar_in_openmetrics_and_only_there() -> None:
    async with serving() as api:
        await api.call("GET", "/v1/things", headers={"traceparent": TRACE})
        await api.call("GET", "/v1/things", headers={"traceparent": TRACE.replace("4bf9", "5bf9")[:-2] + "00"})
        await api.call("GET", "/v1/things", headers={"traceparent": "6bf9" * 100})
        _, plain, plain_headers = await api.call("GET", "/metrics")
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        _, shown, headers = await api.call("GET", "/metrics", headers=accept)
    assert plain_headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    exemplars = [line for line in shown.splitlines() if line.startswith(b"http_request_duration") and b" # {" in line]
    assert exemplars
    for line in exemplars:
        assert b'trace_id="4bf92f3577b34da6a3ce929d0e0e4736"' in line
        assert b'span_id="00f067aa0ba902b7"' in line
    assert b"5bf9" not in shown
    assert b"6bf9" not in shown
    assert b"4bf92f" not in plain
    assert shown.endswith(b"# EOF\n")


async def test_nothing_here_speaks_grpc() -> None:
    assert not [key for key in scraped() if key[0] == "grpc_requests_total"]
    assert "no" in metrics.GRPC_REQUESTS._documentation


# --- tables -----------------------------------------------------------------------------------------------------------


def storage(operation: str, status: str = "ok") -> dict[str, str]:
    return {"backend": "rocksdb", "operation": operation, "status": status}


def latency(operation: str) -> dict[str, str]:
    return {"backend": "rocksdb", "operation": operation}


async def test_reads_and_writes_of_tables_feed_the_storage_metrics(tmp_path: Path) -> None:
    change, store = Change(), new_store(tmp_path)
    row = ROWS.encode(Row(tag="red"))
    store.write({ROWS.store_key(b"a"): row}, {})
    assert store.get(ROWS.store_key(b"a")) == row
    assert store.get(ROWS.store_key(b"b")) is None
    assert len(list(store.items(ROWS.prefix_byte, b"\xfe"))) == 2
    services = FakeServices(tmp_path)
    agent = Agent(name="x", topics=(), processor=Quiet, home=ROWS, tables=(ROWS,))
    await apply_records(
        services.store(agent, 0), "x", ROWS, "log", [FakeRecord("log", 0, offset=0, key=b"k", value=row)], 1
    )
    assert change.of("storage_operations_total", **storage("put")) == 1
    assert change.of("storage_operations_total", **storage("get")) == 2
    assert change.of("storage_operations_total", **storage("scan")) == 1
    assert change.of("storage_operations_total", **storage("restore")) == 1
    for operation in ("put", "get", "scan", "restore"):
        assert change.of("storage_latency_seconds_count", **latency(operation)) > 0
        assert change.of("storage_latency_seconds_sum", **latency(operation)) > 0
    assert change.of("storage_bytes_total", backend="rocksdb", direction="read") >= 2 * len(row)
    assert change.of("storage_bytes_total", backend="rocksdb", direction="write") >= 2 * len(row)
    store._db.close()
    store._db = SimpleNamespace(get=_damaged, close=lambda: None)
    with pytest.raises(StoreDamaged):
        store.get(b"\x01a")
    assert change.of("storage_operations_total", **storage("get", "error")) == 1
    services.store(agent, 0).close()


def _damaged(_key: bytes) -> bytes:
    raise RuntimeError("Corruption: block checksum mismatch")


async def test_checkpoints_feed_their_metrics_and_so_does_a_restore(tmp_path: Path) -> None:
    change = Change()
    agent = Agent(name="x", topics=("x",), processor=_quiet(), home=ROWS, tables=(ROWS,))
    services = FakeServices(tmp_path, agent)
    number = await ready_number(services)
    await number.runners["x"].submit(put(b"k"))
    await number.runners["x"].checkpoint()
    assert change.of("vault_stream_checkpoints_total", outcome="committed") == 1
    assert change.of("vault_stream_checkpoint_seconds_count") == 1
    assert change.of("storage_operations_total", **storage("checkpoint")) == 1
    assert change.of("storage_latency_seconds_count", **latency("checkpoint")) == 1

    services.changelog.failures.append(CheckpointFailed("no answer"))
    await number.runners["x"].submit(put(b"l"))
    await until(lambda: change.of("vault_stream_checkpoints_total", outcome="failed") == 1)
    assert change.of("storage_operations_total", **storage("checkpoint", "error")) == 1
    await until(lambda: number.ready)

    services.store(agent, 0).wipe("damaged", "for the test")
    assert change.of("vault_stream_stores_removed_total", reason="damaged") == 1
    number.reopen("its copy is gone")
    await until(lambda: change.of("vault_stream_restored_rows_total", table=ROWS.name) >= 1 and number.ready)
    assert value("vault_stream_restore_remaining_rows") == 0
    await number.close(0.0, lost=True)
    services.store(agent, 0).close()


def _quiet() -> type[Quiet]:
    return type("Mine", (Quiet,), {"closings": []})


async def test_what_is_still_to_be_restored_is_a_gauge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(name="x", topics=("x",), processor=_quiet(), home=ROWS, tables=(ROWS,))
    services, seen = FakeServices(tmp_path, agent), list[float]()
    services.reader.append([Write(ROWS.name, 0, [(b"k", ROWS.encode(Row(n=1)))] * 3)])
    read = services.reader.read

    async def watched(*args: Any) -> None:
        seen.append(value("vault_stream_restore_remaining_rows"))
        await read(*args)

    monkeypatch.setattr(services.reader, "read", watched)
    before = value("vault_stream_restore_remaining_rows")
    number = await ready_number(services)
    assert seen[0] - before == 4  # three rows, and what ends their transaction
    assert value("vault_stream_restore_remaining_rows") == before
    await number.close(0.0, lost=True)
    services.store(agent, 0).close()


# --- vault events -----------------------------------------------------------------------------------------------------


async def test_events_feed_what_they_say_of_personal_data_and_of_anonymization() -> None:
    change = Change()
    pii = {"dataset_id": "ds-1", "pii_types": ["email", "ssn"], "counts": {"email": 3}, "detector": "regex"}
    done = {"dataset_id": "ds-1", "job_id": "j-1", "strategy": "mask", "duration_ms": 250.0}
    events = [(VaultEventType.PII_DETECTED, pii), (VaultEventType.ANONYMIZATION_COMPLETED, done)]
    unit = await route(
        *(of(new_event(id="e", source="/vault", type=type_, data=data).posted) for type_, data in events)
    )
    assert not unit.quarantined
    assert change.of("pii_detections_total", pii_type="email", detector="regex") == 0, "not before the unit is done"
    unit.done()
    assert change.of("pii_detections_total", pii_type="email", detector="regex") == 3
    assert change.of("pii_detections_total", pii_type="ssn", detector="regex") == 1
    assert change.of("anonymization_duration_seconds_sum", strategy="mask") == pytest.approx(0.25)
    assert change.of("anonymization_duration_seconds_bucket", strategy="mask", le="0.5") == 1
    assert change.of("vault_stream_events_consumed_total", type=VaultEventType.PII_DETECTED, outcome="routed") == 1


async def test_what_an_event_claims_makes_no_series_and_no_nonsense() -> None:
    claims = ["jane.doe@example.com", "123-45-6789", "+49 170 1234567", "4111111111111111", "a" * 41, "x\ny", "é", ""]
    claims += [f"kind_{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(200)]
    for claim in claims:
        pii = {"dataset_id": "d", "pii_types": [claim or "x y"], "detector": claim, "counts": {claim or "x y": -5}}
        done = {"dataset_id": "d", "job_id": "j", "strategy": claim, "duration_ms": 1e300}
        unit = await route(
            of(new_event(id="e", source="/v", type=VaultEventType.PII_DETECTED, data=pii).posted),
            of(new_event(id="e", source="/v", type=VaultEventType.ANONYMIZATION_COMPLETED, data=done).posted),
        )
        unit.done()
    labels = [dict(labels) for name, labels in scraped() if name == "pii_detections_total"]
    assert len({one["pii_type"] for one in labels}) < 60
    assert len({one["detector"] for one in labels}) < 60
    assert not any(set(one["pii_type"] + one["detector"]) & set("@0123456789 \n") for one in labels)
    assert value("pii_detections_total", pii_type="other", detector="other") > 0


# --- webhooks ---------------------------------------------------------------------------------------------------------


async def test_deliveries_feed_their_metrics() -> None:
    change = Change()
    desk = await Desk().open(webhook_row())
    assert change.of("vault_stream_webhooks", health="ok") == 1
    desk.receiver.hold()
    await desk.deliver(desk.intent("e1", time="2025-06-15T15:00:00Z", traceparent=TRACE))
    assert change.of("queue_depth", queue_name="webhooks_in_flight") == 1
    desk.receiver.fails_first(1)
    desk.receiver.release()
    await desk.settle()
    assert change.of("vault_stream_event_to_post_seconds_count") == 1
    assert change.of("queue_depth", queue_name="webhooks_waiting") == 1
    assert change.of("vault_stream_deliveries_waiting", reason="retry") == 1
    assert change.of("vault_stream_deliveries_total", status="retrying") == 1
    assert change.of("vault_stream_attempts_total", **{"class": "5xx"}) == 1
    await desk.until(lambda: change.of("vault_stream_deliveries_total", status="delivered") == 1, within_s=86_400)
    assert change.of("vault_stream_attempts_total", **{"class": "2xx"}) == 1
    desk.receiver.fails_first(0)
    desk.receiver.always(answer(400))
    await desk.deliver(desk.intent("e2"))
    await desk.until(lambda: change.of("vault_stream_dead_letters_total", reason="rejected") == 1, within_s=86_400)
    desk.receiver.always(answer(410))
    await desk.deliver(desk.intent("e3"))
    assert change.of("vault_stream_webhooks", health="disabled") == 1
    await desk.context.close(desk.processor)
    assert change.of("vault_stream_webhooks", health="disabled") == 0
    assert b'trace_id="4bf92f3577b34da6a3ce929d0e0e4736"' in metrics.render("application/openmetrics-text")[1]


async def test_the_gauges_of_a_number_that_is_closed_are_taken_back() -> None:
    change, census = Change(), Census()
    census.flies(3)
    census.close()
    assert change.of("queue_depth", queue_name="webhooks_in_flight") == 0


# --- the engine -------------------------------------------------------------------------------------------------------


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

    def create_plain_batch(self) -> Any:
        return SimpleNamespace(append=lambda **_: object(), close=lambda: None)

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


# --- the process ------------------------------------------------------------------------------------------------------


async def test_a_worker_says_that_it_has_no_key_and_how_much_disk_is_left(tmp_path: Path) -> None:
    program = Program(Settings(data_dir=tmp_path / "data", stats_port=0))
    assert value("vault_stream_encryption_key_missing") == 1
    report = await program.health.report()
    assert [check.status for check in report.checks if check.name == "webhook_keys"] == [HealthStatus.DEGRADED]
    assert value("vault_stream_disk_free_bytes") > 0
    await program.engine.stop()


# --- policy -----------------------------------------------------------------------------------------------------------


async def test_questions_about_policy_feed_their_metrics() -> None:
    change, desk = Change(), PolicyDesk()
    await desk.ask()
    await desk.ask()
    assert (change.of("cache_misses_total"), change.of("cache_hits_total")) == (1, 1)
    assert change.of("vault_stream_policy_evaluations_total", source="engine", decision="allow") == 1
    assert change.of("vault_stream_policy_evaluations_total", source="cache", decision="allow") == 1
    desk.pass_s(60)
    desk.invalidate("p:alice")
    await desk.ask()
    assert change.of("vault_stream_policy_cache_stale_total") == 1


async def test_decisions_that_are_not_written_yet_are_a_queue() -> None:
    broker = Broker()
    broker.gate.clear()
    async with journal(broker) as decisions:
        await decisions.made(decision(), "engine")
        assert value("queue_depth", queue_name="decisions_audit") == 1
        broker.gate.set()
        await until(lambda: value("queue_depth", queue_name="decisions_audit") == 0)


# --- the table --------------------------------------------------------------------------------------------------------

Test = Callable[..., Any]
FEEDS: Final[dict[str, Test | str]] = {
    "http_requests_total": test_requests_feed_their_metrics,
    "http_request_duration_seconds": test_requests_feed_their_metrics,
    "grpc_requests_total": test_nothing_here_speaks_grpc,
    "storage_operations_total": test_reads_and_writes_of_tables_feed_the_storage_metrics,
    "storage_bytes_total": test_reads_and_writes_of_tables_feed_the_storage_metrics,
    "storage_latency_seconds": test_reads_and_writes_of_tables_feed_the_storage_metrics,
    "pii_detections_total": test_events_feed_what_they_say_of_personal_data_and_of_anonymization,
    "anonymization_duration_seconds": test_events_feed_what_they_say_of_personal_data_and_of_anonymization,
    "active_connections": test_requests_feed_their_metrics,
    "queue_depth": test_the_gauges_of_the_engine_are_fed,
    "cache_hits_total": test_questions_about_policy_feed_their_metrics,
    "cache_misses_total": test_questions_about_policy_feed_their_metrics,
    "vault_stream_events_consumed_total": test_events_feed_what_they_say_of_personal_data_and_of_anonymization,
    "vault_stream_outputs_total": test_acknowledged_outputs_are_counted_and_tell_the_clock_of_the_broker,
    "vault_stream_oldest_unfinished_seconds": test_the_gauges_of_the_engine_are_fed,
    "vault_stream_checkpoint_seconds": test_checkpoints_feed_their_metrics_and_so_does_a_restore,
    "vault_stream_checkpoints_total": test_checkpoints_feed_their_metrics_and_so_does_a_restore,
    "vault_stream_restored_rows_total": test_checkpoints_feed_their_metrics_and_so_does_a_restore,
    "vault_stream_outcome_unknown_total":
        "tests.unit.engine.test_abandoned_calls:test_calls_in_flight_at_the_close_are_counted",
    "vault_stream_deliveries_total": test_deliveries_feed_their_metrics,
    "vault_stream_attempts_total": test_deliveries_feed_their_metrics,
    "vault_stream_deliveries_waiting": test_deliveries_feed_their_metrics,
    "vault_stream_audit_batches_total":
        "tests.unit.agents.test_governance:test_a_repeat_that_the_dashboard_knows_is_accepted",
    "vault_stream_audit_oldest_unaccepted_seconds":
        "tests.unit.agents.test_governance:test_the_age_of_the_oldest_unaccepted_record_is_a_metric",
    "vault_stream_consumer_lag": test_the_gauges_of_the_engine_are_fed,
    "vault_stream_rebalances_total": test_an_assignment_and_a_gap_are_counted,
    "vault_stream_gap_records_total": test_an_assignment_and_a_gap_are_counted,
    "vault_stream_event_to_post_seconds": test_deliveries_feed_their_metrics,
    "vault_stream_deliveries_oldest_waiting_seconds":
        "tests.unit.agents.test_webhook_ages:"
        "test_the_age_is_that_of_the_oldest_delivery_that_waits_and_0_where_none_does",
    "vault_stream_webhooks": test_deliveries_feed_their_metrics,
    "vault_stream_policy_evaluations_total": test_questions_about_policy_feed_their_metrics,
    "vault_stream_dead_letters_total": test_deliveries_feed_their_metrics,
    "vault_stream_quarantined_total": test_what_is_put_into_quarantine_is_counted,
    "vault_stream_restore_remaining_rows": test_what_is_still_to_be_restored_is_a_gauge,
    "vault_stream_numbers": test_the_gauges_of_the_engine_are_fed,
    "vault_stream_loop_lag_seconds":
        "tests.unit.observability.test_health:test_the_heartbeat_measures_how_late_its_timer_is",
    "vault_stream_clock_skew_seconds": test_acknowledged_outputs_are_counted_and_tell_the_clock_of_the_broker,
    "vault_stream_encryption_key_missing": test_a_worker_says_that_it_has_no_key_and_how_much_disk_is_left,
    "vault_stream_disk_free_bytes": test_a_worker_says_that_it_has_no_key_and_how_much_disk_is_left,
    "vault_stream_build_info": "tests.unit.observability.test_metrics:test_build_info_says_what_runs",
    # Ours beyond the contract.
    "vault_stream_ready": test_the_gauges_of_the_engine_are_fed,
    "vault_stream_stores_removed_total": test_checkpoints_feed_their_metrics_and_so_does_a_restore,
    "vault_stream_spans_total":
        "tests.unit.observability.tracing.test_export:test_a_dead_collector_costs_a_count_and_the_end_is_in_time",
    "vault_stream_policy_cache_stale_total": test_questions_about_policy_feed_their_metrics,
    "vault_stream_log_lines_dropped_total":
        "tests.unit.observability.test_log_output:test_what_does_not_fit_is_counted_and_its_place_says_so",
}  # fmt: skip


def test_every_metric_has_a_test_that_drives_it() -> None:
    assert FEEDS.keys() == CONTRACT.keys()


@pytest.mark.parametrize("name", FEEDS)
def test_the_test_that_a_metric_is_driven_by_is_there_and_speaks_of_it(name: str) -> None:
    feed = FEEDS[name]
    if isinstance(feed, str):
        module, _, function = feed.partition(":")
        assert name in inspect.getsource(importlib.import_module(module))
        feed = getattr(importlib.import_module(module), function)
    else:
        assert name in inspect.getsource(feed)
    assert callable(feed)
