from typing import Any

import orjson
import pytest

from app.events import CloudEvent, decode_record
from app.integrations.policy import idempotency_key, violation_report


def violation(data: dict[str, Any], **attributes: Any) -> CloudEvent:
    fields = {"specversion": "1.0", "id": "v-1", "source": "/vault", "type": "llm.data-vault.policy.violation"}
    return decode_record(orjson.dumps({**fields, "data": data, **attributes}), [])


def test_a_report_holds_what_the_event_says_and_nothing_else() -> None:
    data = {
        "policy_id": "p",
        "policy_name": "P",
        "rule_id": "r",
        "principal_id": "bob",
        "action": "read",
        "resource_type": "dataset",
        "resource_id": "ds",
        "tenant_id": "t",
        "severity": "HIGH",
        "message": "m",
        "evidence": {"rows": [1]},
        "compliance_framework": "gdpr",
        "extra": 1,
    }
    report = violation_report(violation(data, time="2026-01-01T00:00:00Z", correlationid="c"), 0)
    expected = {name: value for name, value in data.items() if name != "extra"}
    assert report == {
        **expected,
        "violation_id": "v-1",
        "severity": "high",
        "occurred_at": "2026-01-01T00:00:00Z",
        "correlation_id": "c",
    }


def test_message_and_evidence_show_neither_personal_data_nor_secrets() -> None:
    data = {
        "policy_id": "p",
        "resource_id": "r",
        "message": "found jane@example.com",
        "evidence": {"row": {"ssn": 123456789, "phone": "+49 170 1234567"}, "api_key": "k", "rows": 2},
    }
    report = violation_report(violation(data), 0)
    assert report["message"] == "found [redacted:email]"
    assert report["evidence"] == {
        "row": {"ssn": "[redacted]", "phone": "[redacted:phone]"},
        "api_key": "[redacted]",
        "rows": 2,
    }


def test_what_is_absent_stays_absent_but_for_severity_and_time() -> None:
    report = violation_report(violation({"policy_id": "p", "resource_id": "r"}), 1_750_000_000_000)
    assert report == {
        "violation_id": "v-1",
        "policy_id": "p",
        "resource_id": "r",
        "severity": "medium",
        "occurred_at": "2025-06-15T15:06:40.000Z",
    }


def test_the_alias_of_principal_id_is_read() -> None:
    assert (
        violation_report(violation({"policy_id": "p", "resource_id": "r", "subject_id": "bob"}), 0)["principal_id"]
        == "bob"
    )


@pytest.mark.parametrize("severity", ["warning", 5, ""])
def test_a_severity_of_another_scale_is_medium(severity: object) -> None:
    report = violation_report(violation({"policy_id": "p", "resource_id": "r", "severity": severity}), 0)
    assert report["severity"] == "medium"


def test_the_idempotency_key_is_a_function_of_source_and_id() -> None:
    # base32 of blake2b("/vault" NUL "v-1", 16 bytes), by hand.
    assert idempotency_key("/vault", "v-1") == "26pgcuzi4iogkkxck57kubwjxy"
    assert idempotency_key("/vault", "v-2") != idempotency_key("/vault", "v-1")
    assert idempotency_key("/vaul", "tv-1") != idempotency_key("/vault", "v-1")
