"""Settings and standard names: what wins, what is off, and what is refused with one line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import pytest
from opentelemetry.trace import SpanKind

from app.engine import StartRefused
from app.observability.tracing import TracingConfig, TracingError, start_tracing
from app.settings import Settings, load_settings
from app.worker_tracing import messages_of, tracing_of
from tests.support.collector import Collector, SeenSpan

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _no_standard_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as started:
        yield started


async def one_span(collector: Collector, config: TracingConfig, environ: Mapping[str, str]) -> SeenSpan:
    tracing = start_tracing(config, environ)
    assert tracing is not None
    span = tracing.tracer.begin("a", SpanKind.CLIENT, {}, begins=True)
    assert span is not None
    span.end()
    await tracing.close(30)
    (seen,) = collector.spans
    return seen


@pytest.mark.parametrize(
    ("config", "environ"),
    [
        (TracingConfig(), {}),
        (TracingConfig(), {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}),
        (TracingConfig(endpoint=NOWHERE), {"OTEL_SDK_DISABLED": "true"}),
        (TracingConfig(endpoint=NOWHERE), {"OTEL_TRACES_EXPORTER": "none"}),
    ],
)
def test_without_a_collector_or_switched_off_there_is_no_tracing(
    config: TracingConfig, environ: dict[str, str]
) -> None:
    assert start_tracing(config, environ) is None
    assert messages_of(Settings(), None) is None


async def test_the_path_of_otlp_is_added_to_an_endpoint_unless_it_is_there(collector: Collector) -> None:
    own, standard = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
    for config, environ in (
        (TracingConfig(endpoint=collector.endpoint), {standard: NOWHERE, own: NOWHERE}),
        (TracingConfig(endpoint=f"{collector.endpoint}/v1/traces"), {}),
        (TracingConfig(), {standard: collector.endpoint}),
        (TracingConfig(), {standard: f"{collector.endpoint}/"}),
        (TracingConfig(), {own: f"{collector.endpoint}/as/it/is", standard: NOWHERE}),
    ):
        await one_span(collector, config, environ)
        collector.spans.clear()
    assert collector.paths == ["/v1/traces"] * 4 + ["/as/it/is"]


@pytest.mark.parametrize(
    ("config", "environ", "name"),
    [
        (TracingConfig(), {}, "vault-stream"),
        (TracingConfig(), {"OTEL_RESOURCE_ATTRIBUTES": "service.name=c"}, "c"),
        (TracingConfig(), {"OTEL_RESOURCE_ATTRIBUTES": "service.name=c", "OTEL_SERVICE_NAME": "b"}, "b"),
        (TracingConfig(service_name="a"), {"OTEL_SERVICE_NAME": "b"}, "a"),
    ],
)
async def test_our_setting_names_the_service_before_the_standard_names_do(
    collector: Collector, config: TracingConfig, environ: dict[str, str], name: str
) -> None:
    seen = await one_span(collector, config, {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, **environ})
    assert seen.resource["service.name"] == name


async def test_a_span_says_which_program_and_which_worker_it_is_of(collector: Collector) -> None:
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=night%20shift, team=a"}
    config = TracingConfig(endpoint=collector.endpoint, instance_id="worker-1")
    resource = (await one_span(collector, config, environ)).resource
    assert resource["service.instance.id"] == "worker-1"
    assert resource["service.version"]
    assert (resource["deployment.environment.name"], resource["team"]) == ("night shift", "a")
    assert resource["telemetry.sdk.language"] == "python"


@pytest.mark.parametrize(
    ("ratio", "environ", "kept"),
    [
        (None, {}, True),
        (0.0, {"OTEL_TRACES_SAMPLER": "always_on"}, False),
        (1.0, {"OTEL_TRACES_SAMPLER": "always_off"}, True),
        (None, {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, False),
        (None, {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}, False),
        (None, {"OTEL_TRACES_SAMPLER_ARG": "0"}, False),
    ],
)
async def test_our_ratio_counts_before_the_standard_sampler(
    ratio: float | None, environ: dict[str, str], kept: bool
) -> None:
    tracing = start_tracing(TracingConfig(endpoint=NOWHERE, sample_ratio=ratio), environ)
    assert tracing is not None
    assert (tracing.tracer.place(None, begins=True) is not None) is kept
    await tracing.close(0)


async def test_headers_and_compression_are_those_of_the_standard_names(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret")
    config = TracingConfig(endpoint=collector.endpoint)
    await one_span(collector, config, {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"})
    (headers,) = collector.headers
    assert (headers["api-key"], headers["content-encoding"]) == ("secret", "gzip")
    assert headers["content-type"] == "application/x-protobuf"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:hush@collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:port"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "grpc://collector:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_TRACES_SAMPLER_ARG", "much"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan"),
        ("OTEL_RESOURCE_ATTRIBUTES", "hush"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-1"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "never"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/hush.pem"),
    ],
)
def test_what_cannot_be_meant_ends_the_start_with_one_line_that_names_it(name: str, value: str) -> None:
    environ = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": NOWHERE, name: value}
    if name == "OTEL_EXPORTER_OTLP_ENDPOINT":
        del environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
    with pytest.raises(TracingError) as caught:
        start_tracing(TracingConfig(), environ)
    assert str(caught.value).startswith(f"{name}: must be ")
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)
    with pytest.raises(StartRefused, match=name):
        tracing_of(Settings(), environ)


async def test_a_setting_that_is_only_a_default_gives_way_to_the_standard_name(collector: Collector) -> None:
    given = {"VAULT_STREAM_TRACING__ENDPOINT": collector.endpoint}
    standard = {"OTEL_SERVICE_NAME": "theirs", "OTEL_TRACES_SAMPLER": "always_off"}
    for more, name, kept in (
        ({}, "theirs", False),
        ({"VAULT_STREAM_TRACING__SERVICE_NAME": "ours", "VAULT_STREAM_TRACING__SAMPLE_RATIO": "1"}, "ours", True),
    ):
        tracing = tracing_of(load_settings(given | more), standard)
        assert tracing is not None
        span = tracing.tracer.begin("a", SpanKind.CLIENT, {}, begins=True)
        assert (span is not None) is kept
        if span is not None:
            span.end()
        await tracing.close(30)
        assert [seen.resource["service.name"] for seen in collector.spans] == ([name] if kept else [])
