"""The CloudEvents SDK as a foreign oracle: what it writes we read, and what we write it reads."""

from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import (
    KafkaMessage,
    from_binary_event,
    from_structured_event,
    to_binary_event,
    to_structured_event,
)
from cloudevents.core.v1.event import CloudEvent as SdkEvent

from app.events import CloudEvent, decode_record, encode_binary, new_event
from app.events.kafka_binding import STRUCTURED_HEADERS

ATTRIBUTES = {
    "id": "3f1c2a9e-7b1d-4f53-9b6e-0d9a4f1a2b3c",
    "source": "/vault/datasets",
    "type": "llm.data-vault.dataset.created",
    "subject": "ds-1",
    "dataschema": "https://example.com/schemas/dataset",
    "tenantid": "t-1",
    "correlationid": "grüße-1",
}
TIME = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
DATA = {"dataset_id": "ds-1", "name": "claims €", "tags": ["pii", {"key": "region", "value": "eu"}], "share": 0.1}
EXAMPLES: list[tuple[str | None, Any]] = [
    ("application/json", DATA),
    ("application/vnd.vault+json", DATA),
    (None, DATA),
    ("application/octet-stream", b"\x00\x01\xff"),
    ("application/json", None),
]


def sdk_event(media_type: str | None, data: Any) -> SdkEvent:
    attributes: dict[str, Any] = {**ATTRIBUTES, "specversion": "1.0", "time": TIME}
    if media_type is not None:
        attributes["datacontenttype"] = media_type
    return SdkEvent(attributes=attributes, data=data)


def our_event(media_type: str | None, data: Any) -> CloudEvent:
    extensions = {name: ATTRIBUTES[name] for name in ("tenantid", "correlationid")}
    return new_event(
        id=ATTRIBUTES["id"],
        source=ATTRIBUTES["source"],
        type=ATTRIBUTES["type"],
        subject=ATTRIBUTES["subject"],
        dataschema=ATTRIBUTES["dataschema"],
        time="2026-01-02T03:04:05.678Z",
        datacontenttype=media_type,
        data=data,
        extensions=extensions,
    )


def assert_we_have_it(event: CloudEvent, media_type: str | None, data: Any) -> None:
    for name in ("id", "source", "type", "subject", "dataschema"):
        assert getattr(event, name) == ATTRIBUTES[name]
    assert event.extensions == {"tenantid": "t-1", "correlationid": "grüße-1"}
    assert event.time is not None
    assert datetime.fromisoformat(event.time) == TIME
    assert event.datacontenttype == media_type
    assert event.data == data


def assert_the_sdk_has_it(event: Any, media_type: str | None, data: Any) -> None:
    for name, value in ATTRIBUTES.items():
        assert event.get_attributes()[name] == value
    assert event.get_time() == TIME
    assert event.get_datacontenttype() == media_type
    assert event.get_data() == data


@pytest.mark.parametrize(("media_type", "data"), EXAMPLES)
def test_we_read_what_the_sdk_writes_structured(media_type: str | None, data: Any) -> None:
    message = to_structured_event(sdk_event(media_type, data))
    assert_we_have_it(decode_record(message.value, list(message.headers.items())), media_type, data)


@pytest.mark.parametrize(("media_type", "data"), [example for example in EXAMPLES if example[0] is not None])
def test_we_read_what_the_sdk_writes_binary(media_type: str, data: Any) -> None:
    message = to_binary_event(sdk_event(media_type, data))
    event = decode_record(message.value, list(message.headers.items()))
    assert_we_have_it(event, media_type, data)


@pytest.mark.parametrize(("media_type", "data"), EXAMPLES)
def test_the_sdk_reads_what_we_write_structured(media_type: str | None, data: Any) -> None:
    posted = our_event(media_type, data).posted
    event = from_structured_event(KafkaMessage(dict(STRUCTURED_HEADERS), None, posted))
    assert_the_sdk_has_it(event, media_type, data)


@pytest.mark.parametrize(("media_type", "data"), EXAMPLES)
def test_the_sdk_reads_what_we_write_binary(media_type: str | None, data: Any) -> None:
    headers, value = encode_binary(our_event(media_type, data))
    event = from_binary_event(KafkaMessage(dict(headers), None, value))
    assert_the_sdk_has_it(event, media_type or "application/json", data)


@pytest.mark.parametrize(("media_type", "data"), [example for example in EXAMPLES if example[0] is not None])
def test_the_sdk_reads_what_we_post_of_a_binary_event_of_its_own(media_type: str, data: Any) -> None:
    message = to_binary_event(sdk_event(media_type, data))
    posted = decode_record(message.value, list(message.headers.items())).posted
    event = from_structured_event(KafkaMessage(dict(STRUCTURED_HEADERS), None, posted))
    assert_the_sdk_has_it(event, media_type, data)
