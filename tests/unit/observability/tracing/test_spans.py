"""Spans are what the specification and its SDK say they are, and cost nothing where they are not kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import sampling as sdk
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes, url_attributes
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.observability.tracing import Sampling, Tracer, client_span
from app.observability.tracing.spans import MAX_LINKS, OneResource, parsed
from tests.support.memory_unit import record
from tests.support.spans import (
    PARENT,
    PARENT_ID,
    TRACE_ID,
    UNSAMPLED,
    Spans,
    attributes,
    parent_id,
    traceparent_of_span,
)

TRACE_IDS = st.integers(1, 2**128 - 1)
RATIOS = st.floats(0, 1) | st.sampled_from([0.0, 1.0, 0.01])
STANDARD = {
    value
    for module in (messaging_attributes, http_attributes, server_attributes, url_attributes, error_attributes)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
} | {"http.request.resend_count"}


@given(TRACE_IDS, RATIOS, st.booleans(), st.booleans())
def test_a_trace_goes_on_exactly_where_the_sampler_of_the_sdk_lets_it(
    trace_id: int, ratio: float, sampled: bool, parent_based: bool
) -> None:
    root = sdk.TraceIdRatioBased(ratio)
    sampler = sdk.ParentBased(root) if parent_based else root
    parent = trace.SpanContext(trace_id, 1, is_remote=True, trace_flags=trace.TraceFlags(int(sampled)))
    context = trace.set_span_in_context(trace.NonRecordingSpan(parent))
    decision = sampler.should_sample(context, trace_id, "name").decision
    kept = Spans(ratio, parent_based=parent_based).tracer.place(
        f"00-{trace_id:032x}-{1:016x}-{int(sampled):02x}", begins=False
    )
    assert (kept is not None) == decision.is_sampled()


@given(TRACE_IDS, RATIOS)
def test_a_trace_begins_exactly_where_the_sampler_of_the_sdk_lets_it(trace_id: int, ratio: float) -> None:
    decision = sdk.ParentBased(sdk.TraceIdRatioBased(ratio)).should_sample(None, trace_id, "name").decision
    tracer = Tracer(lambda _: None, sampling=Sampling(ratio), random_bits=lambda _: trace_id)
    assert (tracer.place(None, begins=True) is not None) == decision.is_sampled()


@given(TRACE_IDS, st.integers(1, 2**64 - 1), st.integers(0, 255))
def test_what_comes_in_is_read_as_the_propagator_of_the_api_reads_it(trace_id: int, span_id: int, flags: int) -> None:
    text = f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}"
    context = TraceContextTextMapPropagator().extract({"traceparent": text})
    theirs, ours = trace.get_current_span(context).get_span_context(), parsed(text)
    assert ours is not None
    assert (ours.trace_id, ours.span_id, ours.trace_flags) == (theirs.trace_id, theirs.span_id, theirs.trace_flags)


@pytest.mark.parametrize(
    "junk",
    ["", "junk", PARENT + "0", PARENT.upper(), "ff" + PARENT[2:], f"00-{'0' * 32}-{'1' * 16}-01",
     f"00-{'1' * 32}-{'0' * 16}-01", PARENT[:-1] + "x", PARENT + "\r\nX-Evil: 1"],
)  # fmt: skip
def test_what_is_malformed_counts_as_missing(junk: str) -> None:
    spans = Spans()
    assert parsed(junk) is None
    assert spans.tracer.begin("a", SpanKind.CLIENT, {}, traceparent=junk) is None
    begun = spans.tracer.begin("a", SpanKind.CLIENT, {}, traceparent=junk, begins=True)
    assert begun is not None
    assert begun.parent is None


def test_a_span_is_a_child_of_what_came_in_and_what_goes_out_is_its_own() -> None:
    spans = Spans()
    span = spans.tracer.begin("POST", SpanKind.CLIENT, {"answer": 42}, traceparent=PARENT)
    assert span is not None
    span.end()
    (ended,) = spans.ended
    assert ended.context is not None
    assert (ended.name, ended.kind, ended.context.trace_id) == ("POST", SpanKind.CLIENT, TRACE_ID)
    assert parent_id(ended) == PARENT_ID
    assert ended.parent is not None
    assert ended.parent.is_remote
    assert span.traceparent == traceparent_of_span(ended) != PARENT
    assert ended.start_time is not None
    assert ended.end_time is not None
    assert ended.start_time < ended.end_time
    assert ended.status.status_code is StatusCode.UNSET


def test_the_mark_of_a_random_trace_id_is_handed_on() -> None:
    span = Spans().tracer.begin("POST", SpanKind.CLIENT, {}, traceparent=PARENT[:-2] + "03")
    assert span is not None
    assert span.traceparent.endswith("-03")


def test_an_error_has_a_type_and_a_status() -> None:
    spans = Spans()
    span = spans.tracer.begin("POST", SpanKind.CLIENT, {}, begins=True)
    assert span is not None
    span.end("timeout")
    (ended,) = spans.ended
    assert attributes(ended) == {"error.type": "timeout"}
    assert ended.status.status_code is StatusCode.ERROR


def test_a_text_is_cut_and_a_missing_value_is_no_attribute() -> None:
    spans = Spans()
    span = spans.tracer.begin("a", SpanKind.CLIENT, {"long": "x" * 1000, "none": None}, begins=True)
    assert span is not None
    assert span.attributes == {"long": "x" * 256}


@pytest.mark.parametrize("traceparent", [UNSAMPLED, None])
def test_what_is_not_kept_asks_for_no_time_and_makes_no_id(traceparent: str | None) -> None:
    def never(*_: object) -> int:
        raise AssertionError("asked for")

    tracer = Tracer(never, now_ns=never, random_bits=never)  # type: ignore[arg-type]  # never is never called
    assert tracer.begin("a", SpanKind.CLIENT, {}, traceparent=traceparent) is None
    assert tracer.begin_linked("a", SpanKind.CLIENT, {}, [traceparent, "junk"]) is None


def test_a_batch_is_linked_with_what_is_kept_and_only_so_much_of_it() -> None:
    spans = Spans()
    kept = [f"00-{trace_id:032x}-{trace_id:016x}-01" for trace_id in range(1, MAX_LINKS + 3)]
    span = spans.tracer.begin_linked("a", SpanKind.CONSUMER, {}, [UNSAMPLED, None, *kept])
    assert span is not None
    span.end()
    (ended,) = spans.ended
    assert ended.parent is None
    assert [link.context.trace_id for link in ended.links] == list(range(1, MAX_LINKS + 1))
    assert attributes(ended) == {"vault_stream.links_left_out": 2}


def test_a_record_has_a_span_for_itself_and_one_for_each_topic_that_it_goes_to() -> None:
    spans = Spans()
    passage = spans.messages.passage(
        record(b"", topic="vault.events", partition=3, offset=7),
        PARENT,
        id_="e-1",
        source="https://user:word@vault/a?token=x#y",
        type_="llm.data-vault.dataset.created",
    )
    assert passage is not None
    headers = [passage.header("out"), passage.header("out"), passage.header("other")]
    passage.end()
    assert spans.names == ["send out", "send other", "process vault.events"]
    process, out, other = (spans.named(name) for name in ("process vault.events", "send out", "send other"))
    assert (process.kind, parent_id(process)) == (SpanKind.CONSUMER, PARENT_ID)
    assert attributes(process) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "vault.events",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 7,
        "messaging.consumer.group.name": "vault-stream",
        "cloudevents.event_id": "e-1",
        "cloudevents.event_source": "https://vault/a",
        "cloudevents.event_type": "llm.data-vault.dataset.created",
    }
    assert process.context is not None
    assert {parent_id(out), parent_id(other)} == {process.context.span_id}
    assert (out.kind, attributes(out)["messaging.batch.message_count"]) == (SpanKind.PRODUCER, 2)
    assert attributes(other) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "other",
    }
    assert headers == [
        ("traceparent", traceparent_of_span(out).encode()),
        ("traceparent", traceparent_of_span(out).encode()),
        ("traceparent", traceparent_of_span(other).encode()),
    ]


def test_every_name_is_the_standards_or_says_that_it_is_ours() -> None:
    spans = Spans()
    passage = spans.messages.passage(record(b""), PARENT, id_="1", source="/a", type_="b")
    batch = spans.messages.batch("t", 1, [PARENT], 3)
    call = client_span(spans.tracer, "POST", "https://a.example/b", traceparent=PARENT)
    assert passage is not None
    assert batch is not None
    assert call is not None
    passage.header("out")
    passage.end()
    batch.end("500")
    call.end()
    names = {name for span in spans.ended for name in attributes(span)}
    assert {name for name in names if not name.startswith(("vault_stream.", "cloudevents."))} <= STANDARD


@pytest.mark.parametrize(
    ("url", "show_path", "shown", "host", "port"),
    [
        ("https://a.example/services/T0/secret?key=x", False, "https://a.example/REDACTED", "a.example", 443),
        ("https://a.example", False, "https://a.example", "a.example", 443),
        ("http://user:word@[::1]:8080/a", False, "http://[::1]:8080/REDACTED", "::1", 8080),
        ("https://a.example:1/v1/ds-1?cursor=x", True, "https://a.example:1/v1/ds-1?REDACTED", "a.example", 1),
    ],
)  # fmt: skip
def test_a_url_is_shown_without_what_may_be_a_password(
    url: str, show_path: bool, shown: str, host: str, port: int
) -> None:
    span = client_span(Spans().tracer, "POST", url, traceparent=PARENT, show_path=show_path)
    assert span is not None
    assert span.attributes == {
        "http.request.method": "POST",
        "url.full": shown,
        "server.address": host,
        "server.port": port,
    }


def test_a_url_that_cannot_be_read_is_not_shown() -> None:
    span = client_span(Spans().tracer, "POST", "http://[bad:x/", traceparent=PARENT)
    assert span is not None
    assert span.attributes == {"http.request.method": "POST"}


def test_a_resource_is_the_one_of_the_sdk_and_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"service.name": "vault-stream", "service.version": "1"}
    ours, theirs = OneResource(told), Resource(told)
    assert (ours, hash(ours)) == (theirs, hash(theirs))
    monkeypatch.setattr(Resource, "__hash__", None)
    assert {ours: 1}[ours] == 1
