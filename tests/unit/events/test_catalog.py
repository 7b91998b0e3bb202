import pytest

from app.events import (
    AUDIT_RECORDED,
    KNOWN_TYPES,
    AdminEventType,
    EventKind,
    InvalidEvent,
    OperatorEventType,
    VaultEventType,
    check_type,
    new_event,
    subject_of,
    topic_of,
    vault_topics,
)
from app.events.payloads import PAYLOADS


def test_there_are_22_types_and_each_prints_and_parses_its_type_string() -> None:
    assert len(VaultEventType) == 22
    for type_ in VaultEventType:
        assert VaultEventType.parse(str(type_)) is type_
    assert f"{VaultEventType.PII_DETECTED}" == "llm.data-vault.pii.detected"


@pytest.mark.parametrize("text", ["", "dataset.created", "llm.data-vault.dataset.Created", "llm.data-vault.unknown"])
def test_an_unknown_type_is_rejected_and_never_becomes_another(text: str) -> None:
    with pytest.raises(ValueError, match="unknown vault event type"):
        VaultEventType.parse(text)


@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        *((type_, EventKind.VAULT) for type_ in VaultEventType),
        *((type_, EventKind.OPERATOR) for type_ in OperatorEventType),
        *((type_, EventKind.ADMIN) for type_ in AdminEventType),
        (AUDIT_RECORDED, EventKind.AUDIT_RECORDED),
    ],
)
def test_each_type_has_one_kind(type_: str, kind: EventKind) -> None:
    assert check_type(new_event(id="1", source="/s", type=str(type_))) is kind


def test_our_own_types_are_those_of_the_contract() -> None:
    own = {type_.removeprefix("llm.data-vault.") for type_ in KNOWN_TYPES - set(VaultEventType)}
    webhooks = {"failing", "recovered", "disabled", "ping", "created", "updated", "deleted", "rotated", "enabled"}
    operator = {"replayed", "republished", "exported", "positions-reset"}
    expected = {f"webhook.{name}" for name in webhooks} | {f"operator.{name}" for name in operator}
    assert own == expected | {"stream.gap", "audit.recorded"}


def test_every_known_type_has_a_payload() -> None:
    assert PAYLOADS.keys() == KNOWN_TYPES


def test_an_event_of_an_unknown_type_is_refused_without_showing_the_type() -> None:
    with pytest.raises(InvalidEvent) as caught:
        check_type(new_event(id="1", source="/s", type="com.example.secret"))
    assert caught.value.reason == "unknown_type"
    assert "secret" not in caught.value.detail


@pytest.mark.parametrize("text", ["dataset.created", "llm.data-vault.dataset.Created", "llm.data-vault.dataset.create"])
def test_what_is_said_of_an_unknown_type_names_the_nearest_one(text: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        check_type(new_event(id="1", source="/s", type=text))
    assert caught.value.detail == (
        "unknown event type; did you mean llm.data-vault.dataset.created? asyncapi.yaml lists all"
    )


@pytest.mark.parametrize("text", ["com.example.other", "llm.data-vault.dataset.created" + "d" * 100])
def test_no_type_is_named_where_none_is_near(text: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        check_type(new_event(id="1", source="/s", type=text))
    assert caught.value.detail == "unknown event type; asyncapi.yaml lists all"


def test_a_topic_a_type() -> None:
    assert topic_of("llm.data-vault.dataset.created") == "vault.llm-data-vault-dataset-created"
    assert topic_of("llm.data-vault.pii.detected", "acme") == "acme.llm-data-vault-pii-detected"


def test_the_single_layout_has_one_topic_for_all_types() -> None:
    assert {topic_of(type_, "acme", "single") for type_ in KNOWN_TYPES} == {"acme.events"}


@pytest.mark.parametrize("type_", [*OperatorEventType, *AdminEventType, AUDIT_RECORDED])
def test_our_own_types_travel_on_events_in_both_layouts(type_: str) -> None:
    assert topic_of(type_, "acme", "per_type") == topic_of(type_, "acme", "single") == "acme.events"


def test_an_unknown_type_or_layout_has_no_topic() -> None:
    with pytest.raises(ValueError, match="unknown event type"):
        topic_of("com.example.other")
    with pytest.raises(ValueError, match="unknown topic layout"):
        topic_of("llm.data-vault.dataset.created", "vault", "many")  # type: ignore[arg-type]  # what a caller may do


def test_there_are_23_vault_topics() -> None:
    topics = vault_topics("acme")
    assert len(set(topics)) == 23
    assert topics[0] == "acme.llm-data-vault-dataset-created"
    assert topics[-1] == "acme.events"


@pytest.mark.parametrize(
    ("data", "subject"),
    [
        ({"dataset_id": "ds-1", "resource_id": "r-1", "component": "c"}, "ds-1"),
        ({"resource_id": "r-1", "component": "c"}, "r-1"),
        ({"component": "c"}, "c"),
        ({"dataset_id": "", "resource_id": 5, "component": "c"}, "c"),
        ({}, None),
        (None, None),
        ("text", None),
    ],
)
def test_the_subject_is_the_dataset_else_the_resource_else_the_component(data: object, subject: str | None) -> None:
    assert subject_of(data) == subject
