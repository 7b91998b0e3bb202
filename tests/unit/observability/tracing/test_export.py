"""What becomes of spans: they arrive, or are counted; nobody waits for a collector."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from opentelemetry.trace import SpanKind

from app.observability import metrics
from app.observability.tracing import Tracing, TracingConfig, start_tracing
from tests.support.canaries import CREDENTIALS, Watch
from tests.support.collector import Collector
from tests.support.spans import PARENT, PARENT_ID, TRACE_ID


@pytest.fixture(autouse=True)
def _no_thread_outlives_its_test() -> Iterator[None]:
    """One that was left behind would log into the next test."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(60)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as started:
        yield started


def started(endpoint: str, **environ: str) -> Tracing:
    tracing = start_tracing(TracingConfig(endpoint=endpoint), environ)
    assert tracing is not None
    return tracing


def make(tracing: Tracing, count: int = 1) -> None:
    for number in range(count):
        span = tracing.tracer.begin("POST", SpanKind.CLIENT, {"n": number}, traceparent=PARENT)
        assert span is not None
        span.end()


def counted(outcome: str) -> float:
    return metrics.REGISTRY.get_sample_value("vault_stream_spans_total", {"outcome": outcome}) or 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def until(condition: object, deadline_s: float = 30) -> None:
    assert callable(condition)
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_official_classes_read_what_is_sent(collector: Collector) -> None:
    before = counted("exported")
    tracing = started(collector.endpoint)
    make(tracing, 3)
    await tracing.close(30)
    assert [span.attributes for span in collector.spans] == [{"n": 0}, {"n": 1}, {"n": 2}]
    for span in collector.spans:
        assert (span.name, span.kind, span.failed) == ("POST", "client", False)
        assert (int(span.trace_id, 16), int(span.parent_id, 16)) == (TRACE_ID, PARENT_ID)
    assert counted("exported") - before == 3


async def test_a_canary_in_a_span_is_found_even_if_the_span_is_refused() -> None:
    with Collector(watch := Watch()) as collector:
        for answer in (200, 400):
            collector.answers.append(answer)
            tracing = started(collector.endpoint, OTEL_EXPORTER_OTLP_COMPRESSION="gzip")
            span = tracing.tracer.begin("POST", SpanKind.CLIENT, {"url.path": CREDENTIALS["policy token"]}, begins=True)
            assert span is not None
            span.end()
            await tracing.close(30)
            assert watch.take() == ["spans sent to /v1/traces"]


async def test_spans_go_out_while_the_process_runs(collector: Collector) -> None:
    tracing = started(collector.endpoint, OTEL_BSP_SCHEDULE_DELAY="20")
    make(tracing)
    await until(lambda: collector.spans)
    await tracing.close(30)


async def test_what_was_not_sent_yet_is_sent_at_the_end(collector: Collector) -> None:
    tracing = started(collector.endpoint, OTEL_BSP_SCHEDULE_DELAY="3600000")
    make(tracing, 1000)
    await tracing.close(30)
    assert len(collector.spans) == 1000


async def test_an_outage_is_one_line_and_a_count_and_its_end_another(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    before = counted("failed")
    tracing = started(collector.endpoint, OTEL_BSP_SCHEDULE_DELAY="20")
    with caplog.at_level(logging.INFO):
        for sent in range(1, 4):
            collector.answers.append(401)
            make(tracing)
            await until(lambda sent=sent: counted("failed") - before == sent)
        make(tracing)
        await until(lambda: collector.spans)
        await tracing.close(30)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert told == [
        "spans cannot be exported, and are lost and counted until they can: answered 401",
        "spans are exported again; 3 were lost",
    ]


async def test_a_redirect_is_no_success_and_is_not_followed(collector: Collector) -> None:
    before = counted("failed")
    tracing = started(collector.endpoint)
    collector.answers.append(307)
    make(tracing)
    await tracing.close(30)
    assert counted("failed") - before == 1
    assert len(collector.paths) == 1


async def test_a_dead_collector_costs_a_count_and_the_end_is_in_time(caplog: pytest.LogCaptureFixture) -> None:
    failed, dropped = counted("failed"), counted("dropped")
    tracing = started(f"http://127.0.0.1:{free_port()}", OTEL_BSP_SCHEDULE_DELAY="20")
    make(tracing, 10)
    began_s = time.monotonic()
    await tracing.close(0.3)
    assert time.monotonic() - began_s < 10
    assert counted("failed") - failed + counted("dropped") - dropped == 10
    (told,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert told.startswith("spans cannot be exported, and are lost and counted until they can: no answer: ")
    assert "127.0.0.1" not in told


async def test_a_collector_that_does_not_answer_does_not_hold_up_the_end(collector: Collector) -> None:
    collector.hangs.set()
    tracing = started(collector.endpoint, OTEL_BSP_SCHEDULE_DELAY="20")
    make(tracing, 10)
    began_s = time.monotonic()
    await tracing.close(0.3)
    assert time.monotonic() - began_s < 5


async def test_a_full_queue_drops_what_comes_and_counts_it_and_nobody_waits(collector: Collector) -> None:
    collector.hangs.set()
    dropped = counted("dropped")
    tracing = started(collector.endpoint, OTEL_BSP_MAX_QUEUE_SIZE="8", OTEL_BSP_SCHEDULE_DELAY="20")
    make(tracing, 1000)
    assert 1000 - 3 * 8 <= counted("dropped") - dropped <= 1000 - 8
    await tracing.close(0.1)


async def test_what_ends_after_the_end_is_counted_and_a_second_end_is_none(collector: Collector) -> None:
    dropped = counted("dropped")
    tracing = started(collector.endpoint)
    await tracing.close(30)
    await tracing.close(30)
    make(tracing)
    assert counted("dropped") - dropped == 1
    assert collector.spans == []
