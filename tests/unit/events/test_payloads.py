from typing import Any

import pytest

from app.events import InvalidEvent, VaultEventType, decode_payload, new_event
from app.events.payloads import PAYLOADS, AccessGranted, DatasetCreated, PIIDetected, PolicyViolation, StreamGap, Tag

# Contracts 1.2, the column "required in data".
REQUIRED: dict[VaultEventType, dict[str, Any]] = {
    VaultEventType.DATASET_CREATED: {"dataset_id": "ds-1", "name": "claims"},
    VaultEventType.DATASET_UPDATED: {"dataset_id": "ds-1"},
    VaultEventType.DATASET_DELETED: {"dataset_id": "ds-1"},
    VaultEventType.DATASET_ARCHIVED: {"dataset_id": "ds-1"},
    VaultEventType.VERSION_CREATED: {"dataset_id": "ds-1", "version_id": "v-1"},
    VaultEventType.VERSION_TAGGED: {"dataset_id": "ds-1", "version_id": "v-1", "tag": "gold"},
    VaultEventType.BRANCH_CREATED: {"dataset_id": "ds-1", "branch": "main"},
    VaultEventType.BRANCH_MERGED: {"dataset_id": "ds-1", "source_branch": "a", "target_branch": "b"},
    VaultEventType.RECORDS_INGESTED: {"dataset_id": "ds-1", "record_count": 5},
    VaultEventType.RECORDS_DELETED: {"dataset_id": "ds-1", "record_count": 5},
    VaultEventType.RECORDS_EXPORTED: {"dataset_id": "ds-1", "record_count": 5},
    VaultEventType.ANONYMIZATION_STARTED: {"dataset_id": "ds-1", "job_id": "j-1"},
    VaultEventType.ANONYMIZATION_COMPLETED: {"dataset_id": "ds-1", "job_id": "j-1"},
    VaultEventType.PII_DETECTED: {"dataset_id": "ds-1", "pii_types": ["email"]},
    VaultEventType.ACCESS_GRANTED: {"principal_id": "p-1", "resource_id": "r-1", "action": "read"},
    VaultEventType.ACCESS_REVOKED: {"principal_id": "p-1", "resource_id": "r-1", "action": "read"},
    VaultEventType.ACCESS_DENIED: {"principal_id": "p-1", "resource_id": "r-1", "action": "read"},
    VaultEventType.POLICY_VIOLATION: {"policy_id": "pol-1", "resource_id": "r-1"},
    VaultEventType.RETENTION_EXPIRED: {"dataset_id": "ds-1", "policy_id": "pol-1"},
    VaultEventType.COMPLIANCE_ALERT: {"framework": "gdpr", "severity": "high", "message": "late"},
    VaultEventType.HEALTH_DEGRADED: {"component": "storage"},
    VaultEventType.HEALTH_RESTORED: {"component": "storage"},
}
EACH_FIELD = [(type_, name) for type_, data in REQUIRED.items() for name in data]

# The column "optional in data".
DATASET = (
    "version version_id tenant_id workspace_id created_by description schema schema_hash tags metadata visibility "
    "classification record_count size_bytes retention_policy_id"
)
ACCESS = "principal_type resource_type dataset_id role granted_by expires_at policy_id context"
OPTIONAL = {
    VaultEventType.DATASET_CREATED: DATASET,
    VaultEventType.DATASET_UPDATED: f"{DATASET} name changed_fields previous",
    VaultEventType.DATASET_DELETED: "deleted_by reason hard_delete",
    VaultEventType.DATASET_ARCHIVED: "archived_by reason archive_location",
    VaultEventType.VERSION_CREATED: "version_number commit_hash parents branch message author record_count",
    VaultEventType.VERSION_TAGGED: "tagger message",
    VaultEventType.BRANCH_CREATED: "from commit_hash created_by",
    VaultEventType.BRANCH_MERGED: "commit_hash merge_type conflicts merged_by",
    VaultEventType.RECORDS_INGESTED: "batch_id version_id size_bytes checksum source",
    VaultEventType.RECORDS_DELETED: "reason requested_by request_id",
    VaultEventType.RECORDS_EXPORTED: "export_id format destination size_bytes purpose requested_by anonymized",
    VaultEventType.ANONYMIZATION_STARTED: "policy_id strategy requested_by record_count",
    VaultEventType.ANONYMIZATION_COMPLETED: (
        "policy_id strategy records_processed detections duration_ms status version_id"
    ),
    VaultEventType.PII_DETECTED: "record_id counts detector max_confidence risk_level",
    VaultEventType.ACCESS_GRANTED: ACCESS,
    VaultEventType.ACCESS_REVOKED: f"{ACCESS} reason",
    VaultEventType.ACCESS_DENIED: f"{ACCESS} reason",
    VaultEventType.POLICY_VIOLATION: (
        "policy_name rule_id principal_id action resource_type tenant_id severity message evidence compliance_framework"
    ),
    VaultEventType.RETENTION_EXPIRED: "retention_days expired_at action record_count",
    VaultEventType.COMPLIANCE_ALERT: "dataset_id rule_id control evidence due_at",
    VaultEventType.HEALTH_DEGRADED: "status message latency_ms since details",
    VaultEventType.HEALTH_RESTORED: "duration_s message details",
}


def decode(type_: str, data: Any) -> Any:
    return decode_payload(new_event(id="e-1", source="/vault", type=type_, data=data))


@pytest.mark.parametrize("type_", VaultEventType)
def test_the_required_fields_are_enough(type_: VaultEventType) -> None:
    payload = decode(type_, REQUIRED[type_])
    assert type(payload) is PAYLOADS[type_]
    for name, value in REQUIRED[type_].items():
        assert list(value) == list(getattr(payload, name)) if name == "pii_types" else getattr(payload, name) == value


@pytest.mark.parametrize(("type_", "name"), EACH_FIELD)
def test_a_missing_required_field_is_invalid_data_and_named(type_: VaultEventType, name: str) -> None:
    data = {key: value for key, value in REQUIRED[type_].items() if key != name}
    with pytest.raises(InvalidEvent) as caught:
        decode(type_, data)
    assert caught.value.reason == "invalid_data"
    assert name in caught.value.detail


@pytest.mark.parametrize(("type_", "name"), EACH_FIELD)
@pytest.mark.parametrize("value", [None, "", {"nested": "secret"}])
def test_a_required_field_without_a_proper_value_is_invalid_data(type_: VaultEventType, name: str, value: Any) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode(type_, {**REQUIRED[type_], name: value})
    assert caught.value.reason == "invalid_data"
    assert name in caught.value.detail
    assert "secret" not in caught.value.detail


@pytest.mark.parametrize("type_", VaultEventType)
def test_the_optional_fields_are_those_of_the_table(type_: VaultEventType) -> None:
    payload = PAYLOADS[type_]
    assert set(payload.__struct_encode_fields__) == set(REQUIRED[type_]) | set(OPTIONAL[type_].split())


@pytest.mark.parametrize("type_", VaultEventType)
def test_an_optional_field_may_be_null_and_a_field_that_nobody_lists_may_be_there(type_: VaultEventType) -> None:
    nulls = dict.fromkeys(OPTIONAL[type_].split())
    assert decode(type_, {**nulls, **REQUIRED[type_], "x-of-tomorrow": [1]}) == decode(type_, REQUIRED[type_])


@pytest.mark.parametrize("data", [None, [], "text", 5])
def test_data_that_is_no_object_is_invalid_data(data: Any) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode(VaultEventType.DATASET_DELETED, data)
    assert caught.value.reason == "invalid_data"


def test_data_that_is_not_json_is_invalid_data() -> None:
    event = new_event(
        id="1", source="/s", type=VaultEventType.DATASET_DELETED, data=b"\x00", datacontenttype="application/x-binary"
    )
    with pytest.raises(InvalidEvent) as caught:
        decode_payload(event)
    assert caught.value.reason == "invalid_data"


def test_tags_come_as_keys_as_key_and_value_or_as_name_and_value() -> None:
    tags = ["pii", {"key": "region", "value": "eu"}, {"name": "team", "value": "claims"}]
    payload = decode(VaultEventType.DATASET_CREATED, {"dataset_id": "ds-1", "name": "n", "tags": tags})
    assert isinstance(payload, DatasetCreated)
    assert payload.tags == (Tag(key="pii"), Tag(key="region", value="eu"), Tag(key="team", value="claims"))


@pytest.mark.parametrize("tags", ["pii", [5], [{"value": "eu"}], {"key": "region"}])
def test_tags_of_another_shape_are_invalid_data(tags: Any) -> None:
    with pytest.raises(InvalidEvent, match="tags"):
        decode(VaultEventType.DATASET_CREATED, {"dataset_id": "ds-1", "name": "n", "tags": tags})


def test_subject_id_is_another_name_of_principal_id() -> None:
    granted = decode(VaultEventType.ACCESS_GRANTED, {"subject_id": "p-1", "resource_id": "r-1", "action": "read"})
    assert isinstance(granted, AccessGranted)
    assert granted.principal_id == "p-1"
    violated = decode(VaultEventType.POLICY_VIOLATION, {"policy_id": "x", "resource_id": "r-1", "subject_id": "p-1"})
    assert isinstance(violated, PolicyViolation)
    assert violated.principal_id == "p-1"


def test_principal_id_wins_over_its_alias() -> None:
    data = {"subject_id": "alias", "principal_id": "p-1", "resource_id": "r-1", "action": "read"}
    assert decode(VaultEventType.ACCESS_REVOKED, data).principal_id == "p-1"


def test_a_payload_is_decoded_by_its_type_even_where_another_would_fit() -> None:
    payload = decode(VaultEventType.PII_DETECTED, {"dataset_id": "ds-1", "pii_types": ["email"], "name": "claims"})
    assert isinstance(payload, PIIDetected)


def test_a_gap_says_from_where_to_where() -> None:
    data = {"topic": "vault.events", "partition": 3, "from": 10, "to": 20}
    payload = decode("llm.data-vault.stream.gap", data)
    assert payload == StreamGap(topic="vault.events", partition=3, from_=10, to=20)
