from typing import Any

import orjson
import pytest

from app.events import CloudEvent, VaultEventType, canonical_json, decode_record
from app.integrations.audit import UnreadableAudit, audit_event, read_audit_record
from tests.support.audit_records import audit, audit_value

AT_MS = 1_750_000_000_000


def event(type_: str, data: Any, **attributes: Any) -> CloudEvent:
    fields = {"specversion": "1.0", "id": "e-1", "source": "/vault", "type": f"llm.data-vault.{type_}", "data": data}
    return decode_record(orjson.dumps({**fields, **attributes}), [])


def test_an_event_becomes_an_audit_event_with_every_required_field() -> None:
    created = event(
        "dataset.created",
        {"dataset_id": "ds-1", "name": "Claims", "created_by": "alice", "tenant_id": "t1"},
        time="2026-01-31T23:59:59Z",
        correlationid="c-1",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    assert audit_event(created, AT_MS) == {
        "id": "e-1",
        "source": "/vault",
        "event_type": "llm.data-vault.dataset.created",
        "category": "data_access",
        "occurred_at": "2026-01-31T23:59:59Z",
        "actor": {"id": "alice", "type": "user"},
        "resource": {"type": "dataset", "id": "ds-1", "name": "Claims", "dataset_id": "ds-1"},
        "action": "create",
        "outcome": "success",
        "tenant_id": "t1",
        "severity": "info",
        "details": {"dataset_id": "ds-1", "name": "Claims", "created_by": "alice", "tenant_id": "t1"},
        "correlation_id": "c-1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }


def test_without_a_time_the_record_s_timestamp_is_when_it_occurred() -> None:
    assert (
        audit_event(event("health.restored", {"component": "db"}), AT_MS)["occurred_at"] == "2025-06-15T15:06:40.000Z"
    )


def test_without_an_actor_it_is_the_system() -> None:
    assert audit_event(event("records.ingested", {"dataset_id": "d", "record_count": 1}), AT_MS)["actor"] == {
        "id": "system",
        "type": "system",
    }


def test_the_auth_context_names_the_actor_where_the_payload_does_not() -> None:
    ingested = event("records.ingested", {"dataset_id": "d", "record_count": 1}, authid="svc-7", authtype="service")
    assert audit_event(ingested, AT_MS)["actor"] == {"id": "svc-7", "type": "service"}


def test_an_author_that_is_an_object_is_an_actor() -> None:
    data = {"dataset_id": "d", "version_id": "v", "author": {"user_id": "u-1", "email": "u@example.com"}}
    audited = audit_event(event("version.created", data), AT_MS)
    assert audited["actor"] == {"id": "u-1", "type": "user"}
    assert audited["details"]["author"]["email"] == "[redacted:email]"


def test_a_denied_access_is_denied_and_names_principal_resource_action_and_address() -> None:
    denied = event(
        "access.denied",
        {
            "subject_id": "bob",
            "principal_type": "service",
            "resource_id": "r-1",
            "resource_type": "record",
            "dataset_id": "ds-9",
            "action": "read",
            "context": {"ip_address": "192.0.2.7"},
        },
    )
    audited = audit_event(denied, AT_MS)
    assert audited["outcome"] == "denied"
    assert audited["action"] == "read"
    assert audited["actor"] == {"id": "bob", "type": "service", "ip_address": "192.0.2.7"}
    assert audited["resource"] == {"type": "record", "id": "r-1", "dataset_id": "ds-9"}


@pytest.mark.parametrize(
    ("type_", "data", "outcome"),
    [
        ("policy.violation", {"policy_id": "p", "resource_id": "r"}, "failure"),
        ("health.degraded", {"component": "db"}, "failure"),
        ("anonymization.completed", {"dataset_id": "d", "job_id": "j", "status": "FAILED"}, "failure"),
        ("anonymization.completed", {"dataset_id": "d", "job_id": "j", "status": "done"}, "success"),
        ("webhook.disabled", {"webhook_id": "wh_1", "reason": "gone"}, "failure"),
        ("webhook.recovered", {"webhook_id": "wh_1"}, "success"),
    ],
)
def test_the_outcome_follows_from_what_happened(type_: str, data: dict[str, str], outcome: str) -> None:
    assert audit_event(event(type_, data), AT_MS)["outcome"] == outcome


def test_severity_is_what_the_event_says() -> None:
    alert = event("compliance.alert", {"framework": "gdpr", "severity": "critical", "message": "m"})
    audited = audit_event(alert, AT_MS)
    assert audited["severity"] == "critical"
    assert audited["resource"] == {"type": "framework", "id": "gdpr"}


@pytest.mark.parametrize("type_", list(VaultEventType))
def test_every_type_of_the_catalogue_is_audited_with_a_resource_and_an_action(type_: VaultEventType) -> None:
    data = {"dataset_id": "d", "resource_id": "r", "component": "c", "framework": "f", "record_count": 1}
    audited = audit_event(event(type_.removeprefix("llm.data-vault."), data), AT_MS)
    assert audited["category"] in {"data_access", "security", "policy", "administration"}
    assert audited["resource"]["id"] in {"d", "r", "c"}
    assert read_audit_record(
        orjson.dumps({"specversion": "1.0", "type": "llm.vault-stream.audit.recorded", "data": audited}), AT_MS
    )


def test_details_hold_the_payload_without_secrets() -> None:
    data = {"dataset_id": "d", "name": "n", "metadata": {"api_key": "k-123", "note": "ask a@example.com"}}
    audited = audit_event(event("dataset.created", data), AT_MS)
    assert audited["details"]["metadata"] == {"api_key": "[redacted]", "note": "ask [redacted:email]"}
    assert b"k-123" not in canonical_json(audited)


def test_the_event_itself_is_not_changed() -> None:
    data = {"dataset_id": "d", "name": "n", "metadata": {"password": "p"}}
    created = event("dataset.created", data)
    audit_event(created, AT_MS)
    assert created.data == data


def test_of_detected_personal_data_only_types_and_counts_are_told() -> None:
    data = {
        "dataset_id": "d",
        "pii_types": ["ssn", "name"],
        "counts": {"ssn": 3, "name": "Jane Doe"},
        "sample": "Jane Doe",
        "matches": [{"value": "Jane Doe"}],
    }
    details = audit_event(event("pii.detected", data), AT_MS)["details"]
    assert details == {
        "dataset_id": "d",
        "pii_types": ["ssn", "name"],
        "counts": {"ssn": 3, "name": "[redacted]"},
        "sample": "[redacted]",
        "matches": "[redacted]",
    }


def test_bytes_are_told_by_their_size() -> None:
    raw = event("health.degraded", None, data_base64="AAEC", datacontenttype="application/octet-stream")
    assert audit_event(raw, AT_MS)["details"] == {"size_bytes": 3, "content_type": "application/octet-stream"}


def test_an_admin_action_has_the_token_s_name_as_its_actor() -> None:
    audited = audit_event(event("webhook.deleted", {"webhook_id": "wh_1", "actor": "ops"}), AT_MS)
    assert audited["actor"] == {"id": "ops", "type": "user"}
    assert audited["resource"] == {"type": "webhook", "id": "wh_1"}
    assert (audited["category"], audited["action"]) == ("administration", "deleted")


def test_an_audit_event_of_a_service_keeps_its_own_fields_but_id_and_source() -> None:
    stated = {
        "id": "other",
        "event_type": "login.failed",
        "category": "authentication",
        "actor": {"id": "eve", "type": "user", "ip_address": "192.0.2.1"},
        "resource": {"type": "session", "id": "s-1"},
        "action": "login",
        "outcome": "denied",
        "severity": "warning",
        "details": {"password": "guess"},
    }
    audited = audit_event(event("audit.recorded", stated), AT_MS)
    assert audited == {
        **stated,
        "id": "e-1",
        "source": "/vault",
        "occurred_at": "2025-06-15T15:06:40.000Z",
        "details": {"password": "[redacted]"},
    }


def test_an_audit_event_of_a_service_that_says_nothing_still_has_every_field() -> None:
    audited = audit_event(event("audit.recorded", {}, subject="thing"), AT_MS)
    assert audited["resource"] == {"type": "resource", "id": "thing"}
    assert audited["outcome"] == "success"
    assert audited["actor"]["id"] == "system"


@pytest.mark.parametrize("outcome", ["odd", ["denied"], {"is": "denied"}, 7, True, None])
def test_an_audit_event_of_a_service_with_an_outcome_of_another_kind_is_audited_all_the_same(outcome: object) -> None:
    assert audit_event(event("audit.recorded", {"outcome": outcome}), AT_MS)["outcome"] == "success"


def test_an_audit_record_gives_back_the_audit_event() -> None:
    assert read_audit_record(audit_value(7), AT_MS) == audit(7)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (None, "JSON"),
        (b"{", "JSON"),
        (b"[]", "CloudEvent"),
        (b'{"specversion":"1.0","type":"other","data":{}}', "type"),
        (b'{"specversion":"1.0","type":"llm.vault-stream.audit.recorded"}', "data"),
        (audit_value(1, action=5), "data.action"),
        (audit_value(1, actor={"type": "user"}), "data.actor"),
        (b'{"specversion":"1.0","specversion":"1.0"}', "JSON"),
    ],
)
def test_a_record_that_is_no_audit_event_is_named_by_its_fault(value: bytes | None, named: str) -> None:
    with pytest.raises(UnreadableAudit, match=named):
        read_audit_record(value, AT_MS)


def test_a_record_without_a_date_is_no_audit_event() -> None:
    with pytest.raises(UnreadableAudit, match="timestamp"):
        read_audit_record(audit_value(7), AT_MS * 1000)
