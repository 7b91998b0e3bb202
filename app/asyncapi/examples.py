"""One example of each vault event, as a vault service would publish it."""

from __future__ import annotations

from typing import Any, Final

from app.events import VaultEventType as T

__all__ = ["DATA", "example_event"]

DATA: Final[dict[str, dict[str, Any]]] = {
    T.DATASET_CREATED: {
        "dataset_id": "ds-7",
        "name": "support-chats",
        "tenant_id": "t-1",
        "created_by": "u-12",
        "tags": [{"key": "language", "value": "en"}],
        "record_count": 12000,
    },
    T.DATASET_UPDATED: {"dataset_id": "ds-7", "name": "support-chats-2026", "changed_fields": ["name"]},
    T.DATASET_DELETED: {"dataset_id": "ds-7", "deleted_by": "u-12", "reason": "expired", "hard_delete": True},
    T.DATASET_ARCHIVED: {"dataset_id": "ds-7", "archived_by": "u-12", "archive_location": "cold-1"},
    T.VERSION_CREATED: {"dataset_id": "ds-7", "version_id": "v-3", "commit_hash": "9f2c", "record_count": 12100},
    T.VERSION_TAGGED: {"dataset_id": "ds-7", "version_id": "v-3", "tag": "release", "tagger": "u-12"},
    T.BRANCH_CREATED: {"dataset_id": "ds-7", "branch": "cleanup", "from": "main", "created_by": "u-12"},
    T.BRANCH_MERGED: {"dataset_id": "ds-7", "source_branch": "cleanup", "target_branch": "main"},
    T.RECORDS_INGESTED: {"dataset_id": "ds-7", "record_count": 500, "batch_id": "b-44", "size_bytes": 88000},
    T.RECORDS_DELETED: {"dataset_id": "ds-7", "record_count": 3, "reason": "erasure request", "request_id": "r-9"},
    T.RECORDS_EXPORTED: {"dataset_id": "ds-7", "record_count": 500, "format": "parquet", "anonymized": True},
    T.ANONYMIZATION_STARTED: {"dataset_id": "ds-7", "job_id": "j-5", "strategy": "k-anonymity"},
    T.ANONYMIZATION_COMPLETED: {"dataset_id": "ds-7", "job_id": "j-5", "records_processed": 12100, "duration_ms": 8100},
    T.PII_DETECTED: {"dataset_id": "ds-7", "pii_types": ["email"], "detector": "presidio", "risk_level": "medium"},
    T.ACCESS_GRANTED: {"principal_id": "u-12", "resource_id": "ds-7", "action": "read", "granted_by": "u-1"},
    T.ACCESS_REVOKED: {"principal_id": "u-12", "resource_id": "ds-7", "action": "read", "reason": "left the team"},
    T.ACCESS_DENIED: {"principal_id": "u-13", "resource_id": "ds-7", "action": "export", "reason": "no grant"},
    T.POLICY_VIOLATION: {"policy_id": "p-2", "resource_id": "ds-7", "principal_id": "u-13", "severity": "high"},
    T.RETENTION_EXPIRED: {"dataset_id": "ds-7", "policy_id": "p-3", "retention_days": 90, "action": "delete"},
    T.COMPLIANCE_ALERT: {"framework": "gdpr", "severity": "high", "message": "no processing record for ds-7"},
    T.HEALTH_DEGRADED: {"component": "storage", "status": "degraded", "latency_ms": 1800},
    T.HEALTH_RESTORED: {"component": "storage", "duration_s": 340},
}


def example_event(type_: str) -> dict[str, Any]:
    """The whole event, structured."""
    data = DATA[type_]
    subject = next(data[name] for name in ("dataset_id", "resource_id", "component", "framework") if name in data)
    return {
        "specversion": "1.0",
        "id": "6f1d2a9e-0c55-4b7e-9f13-5d2f1f6f0a11",
        "source": "/vault/datasets",
        "type": type_,
        "subject": subject,
        "time": "2026-01-31T23:59:59.123Z",
        "datacontenttype": "application/json",
        "tenantid": "t-1",
        "data": data,
    }
