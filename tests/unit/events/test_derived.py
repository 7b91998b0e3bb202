import pytest

from app.events import MAX_EVENT_BYTES, InvalidEvent, decode_derived, decode_record, derived_event, new_event
from app.events.kafka_binding import STRUCTURED_HEADERS

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def derive(subject: str = "ds-1", **extensions: str) -> bytes:
    cause = new_event(id="e-1", source="/vault", type="t", extensions=extensions)
    time = "2026-01-02T03:04:05.678Z"
    return derived_event(
        "audit.recorded", id_="e-1", source="/vault", subject=subject, time=time, data=b'{ "kept": 1.10 }', cause=cause
    )


def test_a_derived_event_is_a_structured_event_of_our_namespace_with_its_data_spliced_in() -> None:
    raw = derive()
    assert raw.endswith(b'"data":{ "kept": 1.10 }}')
    event = decode_record(raw, STRUCTURED_HEADERS)
    assert (event.id, event.source, event.subject) == ("e-1", "/vault", "ds-1")
    assert event.type == "llm.vault-stream.audit.recorded"
    assert event.time == "2026-01-02T03:04:05.678Z"


def test_trace_and_correlation_are_carried_over_and_nothing_else() -> None:
    event = decode_record(derive(traceparent=TRACE, correlationid="c-1", tenantid="t-1"), STRUCTURED_HEADERS)
    assert event.extensions == {"traceparent": TRACE, "correlationid": "c-1"}


def test_a_subject_that_an_attribute_may_not_contain_still_makes_a_valid_event() -> None:
    assert decode_record(derive("a\nb\x00"), STRUCTURED_HEADERS).subject == "a\ufffdb\ufffd"


def test_a_derived_event_is_read_back_however_large_or_deep_its_data_is() -> None:
    data = b'{"deep":' + b"[" * 100 + b"]" * 100 + b',"large":"' + b"x" * MAX_EVENT_BYTES + b'"}'
    raw = derived_event("audit.recorded", id_="e-1", source="/v", subject="s", time="2026-01-02T03:04:05Z", data=data)
    event = decode_derived(raw)
    assert event.id == "e-1"
    assert event.posted == raw
    assert len(event.data["large"]) == MAX_EVENT_BYTES


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"{}"])
def test_what_is_no_derived_event_is_invalid(value: bytes | None) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode_derived(value)
    assert caught.value.reason == "invalid_envelope"
