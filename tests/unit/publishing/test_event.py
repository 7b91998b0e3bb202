from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from app.events import VaultEventType, new_event
from app.events.payloads import DatasetCreated
from app.publishing import SerializationError, VaultEvent, checked

DATA = {"dataset_id": "ds-1", "name": "claims"}


def event(data: Any = DATA, type_: VaultEventType = VaultEventType.DATASET_CREATED) -> VaultEvent:
    return VaultEvent.new(type_, "/vault/datasets", data)


def test_a_new_event_has_an_id_of_its_own_and_happened_now() -> None:
    before = datetime.now(UTC)
    first, second = event(), event()
    assert first.id != second.id
    assert before <= datetime.fromisoformat(first.time) <= datetime.now(UTC)
    assert (first.type, first.source, first.data) == ("llm.data-vault.dataset.created", "/vault/datasets", DATA)


def test_a_type_may_be_given_as_its_type_string() -> None:
    assert VaultEvent.new("llm.data-vault.dataset.created", "/v", DATA).type == VaultEventType.DATASET_CREATED


def test_a_type_that_is_none_of_the_22_is_rejected() -> None:
    with pytest.raises(SerializationError, match="unknown vault event type"):
        VaultEvent.new("llm.data-vault.dataset.invented", "/v", DATA)


@pytest.mark.parametrize("source", ["", "not a uri", "a\nb", None])
def test_a_source_that_is_no_uri_reference_is_rejected_at_once_and_named(source: Any) -> None:
    with pytest.raises(SerializationError, match="source"):
        VaultEvent.new(VaultEventType.DATASET_CREATED, source, DATA)


def test_each_builder_returns_another_value_and_leaves_the_first_alone() -> None:
    plain = event()
    built = (
        plain.with_subject("s")
        .with_extension("tenantid", "t-1")
        .with_extension("sequence", 7)
        .with_time("2026-01-02T03:04:05Z")
    )
    assert (built.subject, built.time, built.id) == ("s", "2026-01-02T03:04:05Z", plain.id)
    assert built.extensions == {"tenantid": "t-1", "sequence": 7}
    assert (plain.subject, plain.extensions) == (None, {})


def test_a_datetime_is_written_in_utc() -> None:
    time = datetime(2026, 1, 2, 4, 4, 5, tzinfo=timezone(timedelta(hours=1)))
    assert event().with_time(time).time == "2026-01-02T03:04:05.000000Z"


def test_a_datetime_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        event().with_time(datetime(2026, 1, 2))  # noqa: DTZ001  # the mistake under test


def test_the_subject_is_set_from_the_payload() -> None:
    assert checked(event()).subject == "ds-1"
    degraded = event({"component": "storage"}, VaultEventType.HEALTH_DEGRADED)
    assert checked(degraded).subject == "storage"


def test_a_subject_that_was_given_stays() -> None:
    assert checked(event().with_subject("mine")).subject == "mine"


def test_a_payload_struct_is_data_too() -> None:
    ready = checked(event(DatasetCreated(dataset_id="ds-1", name="claims")))
    assert ready.data == DATA
    assert ready.subject == "ds-1"


def test_an_event_that_came_with_a_subject_is_sent_byte_for_byte() -> None:
    came = new_event(id="1", source="/s", type=VaultEventType.DATASET_DELETED, subject="x", data={"dataset_id": "ds-1"})
    assert checked(came) is came


def test_an_event_that_came_without_a_subject_gets_one() -> None:
    came = new_event(id="1", source="/s", type=VaultEventType.DATASET_DELETED, data={"dataset_id": "ds-1"})
    ready = checked(came)
    assert (ready.id, ready.subject, ready.data) == ("1", "ds-1", came.data)
    assert b'"subject":"ds-1"' in ready.posted


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (event({"dataset_id": "ds-1"}), "name"),
        (event({**DATA, "more": object()}), "object"),
        (event({**DATA, "big": 2**64}), "64-bit"),
        (event({**DATA, "large": "x" * 300_000}), "too_large"),
        (event().with_extension("Bad-Name", "x"), "Bad-Name"),
        (event().with_extension("tenantid", 1.5), "tenantid"),  # type: ignore[arg-type]  # what a caller may do
        (event().with_time("yesterday"), "time"),
        (event().with_subject(""), "subject"),
        (new_event(id="1", source="/s", type="com.example.other", data={}), "unknown_type"),
    ],
)
def test_what_the_processor_would_put_aside_is_refused_and_named(broken: Any, named: str) -> None:
    with pytest.raises(SerializationError, match=named):
        checked(broken)
