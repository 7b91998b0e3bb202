"""What is in the ``data`` of each type (contracts 1.2): required fields first, all others optional.

A payload is decoded by its type, never by trial. Fields that are not listed are kept where they came (``event.data``,
``event.posted``). Optional fields are typed only where services agree on a type.
"""

from typing import Annotated, Any, Final

import msgspec

from app.events.catalog import AUDIT_RECORDED, AdminEventType, OperatorEventType, VaultEventType

Name = Annotated[str, msgspec.Meta(min_length=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class Payload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The ``data`` of an event."""


class Tag(Payload, frozen=True, kw_only=True):
    """A tag of a dataset: a key, and maybe a value."""

    key: Name
    value: Any = None


class DatasetFields(Payload, frozen=True, kw_only=True):
    """What may be known of a dataset."""

    dataset_id: Name
    version: Any = None
    version_id: str | None = None
    tenant_id: str | None = None
    workspace_id: str | None = None
    created_by: Any = None
    description: str | None = None
    schema: Any = None
    schema_hash: str | None = None
    tags: tuple[Tag, ...] | None = None
    metadata: Any = None
    visibility: str | None = None
    classification: Any = None
    record_count: Count | None = None
    size_bytes: Count | None = None
    retention_policy_id: str | None = None


class DatasetCreated(DatasetFields, frozen=True, kw_only=True):
    """A dataset exists."""

    name: Name


class DatasetUpdated(DatasetFields, frozen=True, kw_only=True):
    """Something about a dataset is otherwise now."""

    name: str | None = None
    changed_fields: Any = None
    previous: Any = None


class DatasetDeleted(Payload, frozen=True, kw_only=True):
    """A dataset is gone."""

    dataset_id: Name
    deleted_by: Any = None
    reason: str | None = None
    hard_delete: bool | None = None


class DatasetArchived(Payload, frozen=True, kw_only=True):
    """A dataset has moved to the archive."""

    dataset_id: Name
    archived_by: Any = None
    reason: str | None = None
    archive_location: str | None = None


class VersionCreated(Payload, frozen=True, kw_only=True):
    """A dataset has a new version."""

    dataset_id: Name
    version_id: Name
    version_number: Any = None
    commit_hash: str | None = None
    parents: Any = None
    branch: str | None = None
    message: str | None = None
    author: Any = None
    record_count: Count | None = None


class VersionTagged(Payload, frozen=True, kw_only=True):
    """A version has a tag."""

    dataset_id: Name
    version_id: Name
    tag: Name
    tagger: Any = None
    message: str | None = None


class BranchCreated(Payload, frozen=True, kw_only=True):
    """A dataset has a new branch."""

    dataset_id: Name
    branch: Name
    from_: Any = msgspec.field(name="from", default=None)
    commit_hash: str | None = None
    created_by: Any = None


class BranchMerged(Payload, frozen=True, kw_only=True):
    """One branch of a dataset went into another."""

    dataset_id: Name
    source_branch: Name
    target_branch: Name
    commit_hash: str | None = None
    merge_type: str | None = None
    conflicts: Any = None
    merged_by: Any = None


class RecordsIngested(Payload, frozen=True, kw_only=True):
    """Records came into a dataset."""

    dataset_id: Name
    record_count: Count
    batch_id: str | None = None
    version_id: str | None = None
    size_bytes: Count | None = None
    checksum: str | None = None
    source: Any = None


class RecordsDeleted(Payload, frozen=True, kw_only=True):
    """Records went out of a dataset."""

    dataset_id: Name
    record_count: Count
    reason: str | None = None
    requested_by: Any = None
    request_id: str | None = None


class RecordsExported(Payload, frozen=True, kw_only=True):
    """Records were copied out of the vault."""

    dataset_id: Name
    record_count: Count
    export_id: str | None = None
    format: str | None = None
    destination: Any = None
    size_bytes: Count | None = None
    purpose: str | None = None
    requested_by: Any = None
    anonymized: bool | None = None


class AnonymizationStarted(Payload, frozen=True, kw_only=True):
    """A job began to anonymize a dataset."""

    dataset_id: Name
    job_id: Name
    policy_id: str | None = None
    strategy: str | None = None
    requested_by: Any = None
    record_count: Count | None = None


class AnonymizationCompleted(Payload, frozen=True, kw_only=True):
    """A job has anonymized a dataset."""

    dataset_id: Name
    job_id: Name
    policy_id: str | None = None
    strategy: str | None = None
    records_processed: Count | None = None
    detections: Any = None
    duration_ms: float | None = None
    status: str | None = None
    version_id: str | None = None


class PIIDetected(Payload, frozen=True, kw_only=True):
    """Personal data was found: types and counts, never values."""

    dataset_id: Name
    pii_types: tuple[Name, ...]
    record_id: str | None = None
    counts: Any = None
    detector: str | None = None
    max_confidence: float | None = None
    risk_level: str | None = None


class AccessFields(Payload, frozen=True, kw_only=True):
    """Who may do what with what."""

    principal_id: Name
    resource_id: Name
    action: Name
    principal_type: str | None = None
    resource_type: str | None = None
    dataset_id: str | None = None
    role: str | None = None
    granted_by: Any = None
    expires_at: Any = None
    policy_id: str | None = None
    context: Any = None


class AccessGranted(AccessFields, frozen=True, kw_only=True):
    """A principal may do something from now on."""


class AccessRevoked(AccessFields, frozen=True, kw_only=True):
    """A principal may no longer do something."""

    reason: str | None = None


class AccessDenied(AccessFields, frozen=True, kw_only=True):
    """A principal was refused."""

    reason: str | None = None


class PolicyViolation(Payload, frozen=True, kw_only=True):
    """A policy was violated."""

    policy_id: Name
    resource_id: Name
    policy_name: str | None = None
    rule_id: str | None = None
    principal_id: str | None = None
    action: str | None = None
    resource_type: str | None = None
    tenant_id: str | None = None
    severity: str | None = None
    message: str | None = None
    evidence: Any = None
    compliance_framework: Any = None


class RetentionExpired(Payload, frozen=True, kw_only=True):
    """The time that a policy keeps a dataset for is over."""

    dataset_id: Name
    policy_id: Name
    retention_days: Any = None
    expired_at: Any = None
    action: str | None = None
    record_count: Count | None = None


class ComplianceAlert(Payload, frozen=True, kw_only=True):
    """A rule of a compliance framework needs attention."""

    framework: Name
    severity: Name
    message: Name
    dataset_id: str | None = None
    rule_id: str | None = None
    control: Any = None
    evidence: Any = None
    due_at: Any = None


class HealthDegraded(Payload, frozen=True, kw_only=True):
    """A component does not work as it should."""

    component: Name
    status: str | None = None
    message: str | None = None
    latency_ms: float | None = None
    since: Any = None
    details: Any = None


class HealthRestored(Payload, frozen=True, kw_only=True):
    """A component works again."""

    component: Name
    duration_s: float | None = None
    message: str | None = None
    details: Any = None


class WebhookHealth(Payload, frozen=True, kw_only=True):
    """A webhook is failing, has recovered, or was disabled."""

    webhook_id: Name
    reason: str | None = None
    since: str | None = None
    last_code: int | None = None


class WebhookPing(Payload, frozen=True, kw_only=True):
    """A test event for one webhook."""

    webhook_id: Name


class StreamGap(Payload, frozen=True, kw_only=True):
    """Records that retention took before they were read: offsets ``from_`` up to, not including, ``to``."""

    topic: Name
    partition: Count
    from_: Count = msgspec.field(name="from")
    to: Count


class AdminAction(Payload, frozen=True, kw_only=True):
    """What an administrator did."""

    actor: Any = None
    webhook_id: str | None = None


class AuditRecorded(Payload, frozen=True, kw_only=True):
    """An AuditEvent's own fields (contracts 4), as a service hands them in; ``event.data`` has them all."""

    action: str | None = None
    tenant_id: str | None = None


PAYLOADS: Final[dict[str, type[Payload]]] = {
    VaultEventType.DATASET_CREATED: DatasetCreated,
    VaultEventType.DATASET_UPDATED: DatasetUpdated,
    VaultEventType.DATASET_DELETED: DatasetDeleted,
    VaultEventType.DATASET_ARCHIVED: DatasetArchived,
    VaultEventType.VERSION_CREATED: VersionCreated,
    VaultEventType.VERSION_TAGGED: VersionTagged,
    VaultEventType.BRANCH_CREATED: BranchCreated,
    VaultEventType.BRANCH_MERGED: BranchMerged,
    VaultEventType.RECORDS_INGESTED: RecordsIngested,
    VaultEventType.RECORDS_DELETED: RecordsDeleted,
    VaultEventType.RECORDS_EXPORTED: RecordsExported,
    VaultEventType.ANONYMIZATION_STARTED: AnonymizationStarted,
    VaultEventType.ANONYMIZATION_COMPLETED: AnonymizationCompleted,
    VaultEventType.PII_DETECTED: PIIDetected,
    VaultEventType.ACCESS_GRANTED: AccessGranted,
    VaultEventType.ACCESS_REVOKED: AccessRevoked,
    VaultEventType.ACCESS_DENIED: AccessDenied,
    VaultEventType.POLICY_VIOLATION: PolicyViolation,
    VaultEventType.RETENTION_EXPIRED: RetentionExpired,
    VaultEventType.COMPLIANCE_ALERT: ComplianceAlert,
    VaultEventType.HEALTH_DEGRADED: HealthDegraded,
    VaultEventType.HEALTH_RESTORED: HealthRestored,
    OperatorEventType.WEBHOOK_FAILING: WebhookHealth,
    OperatorEventType.WEBHOOK_RECOVERED: WebhookHealth,
    OperatorEventType.WEBHOOK_DISABLED: WebhookHealth,
    OperatorEventType.WEBHOOK_PING: WebhookPing,
    OperatorEventType.STREAM_GAP: StreamGap,
    **dict.fromkeys(AdminEventType, AdminAction),
    AUDIT_RECORDED: AuditRecorded,
}
