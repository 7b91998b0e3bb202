"""Violations, as the policy engine is told of them (contracts 3).

A report is a pure function of the event, so that every router makes the same one, and its idempotency key is a function
of source and id, so that a report sent twice counts once.
"""

from __future__ import annotations

from base64 import b32encode
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from app.events import format_time
from app.integrations.redaction import may_hold_secrets, redact

if TYPE_CHECKING:
    from app.events import CloudEvent

__all__ = ["SEVERITIES", "idempotency_key", "violation_report"]

SEVERITIES: Final = frozenset({"low", "medium", "high", "critical"})

_DEFAULT_SEVERITY: Final = "medium"
_KEY_BYTES: Final = 16
_COPIED: Final = (
    "policy_id",
    "policy_name",
    "rule_id",
    "principal_id",
    "action",
    "resource_type",
    "resource_id",
    "tenant_id",
    "message",
    "evidence",
    "compliance_framework",
)
_FREE: Final = ("message", "evidence")


def violation_report(event: CloudEvent, timestamp_ms: int) -> dict[str, Any]:
    """The `PolicyViolationReport` of a `policy.violation` event.

    Args:
        event: An event whose payload was checked: `policy_id` and `resource_id` are there.
        timestamp_ms: The record's timestamp, which stands in for an absent `time`.

    Returns:
        The report, absent fields left out. A severity that is none of the four is `medium`. Message and evidence are
        redacted as details of the audit trail are: a rule that found personal data likes to show it.
    """
    data = event.data
    report: dict[str, Any] = {"violation_id": event.id}
    for name in _COPIED:
        value = data.get(name)
        if value is not None:
            report[name] = value
    if "principal_id" not in report and data.get("subject_id") is not None:
        report["principal_id"] = data["subject_id"]
    if "tenant_id" not in report and event.extensions.get("tenantid"):
        report["tenant_id"] = event.extensions["tenantid"]
    told = {name: report[name] for name in _FREE if name in report}
    if may_hold_secrets(told):
        report.update(redact(told))
    severity = str(data.get("severity", _DEFAULT_SEVERITY)).lower()
    report["severity"] = severity if severity in SEVERITIES else _DEFAULT_SEVERITY
    report["occurred_at"] = event.time or format_time(timestamp_ms)
    correlation = event.extensions.get("correlationid")
    if correlation:
        report["correlation_id"] = correlation
    return report


def idempotency_key(source: str, event_id: str) -> str:
    """The `Idempotency-Key` of a report: 26 characters of lower-case base32, constant over attempts and restarts."""
    digest = blake2b(f"{source}\0{event_id}".encode(), digest_size=_KEY_BYTES).digest()
    return b32encode(digest).decode().rstrip("=").lower()
