"""The three systems beside the vault: governance dashboard, policy engine, dataset registry.

Plain Python over events and metrics: what is said to them and what their answers mean. Agents bring clock, randomness
and transport; `upstream` is the only module with a network in it.
"""

from app.integrations.audit import AUDIT_RECORD_TYPE, UnreadableAudit, audit_event, read_audit_record
from app.integrations.chain import Batch, ChainHead, Entry, make_entry
from app.integrations.governance import Flush, Line
from app.integrations.policy import idempotency_key, violation_report
from app.integrations.redaction import redact
from app.integrations.registry import DatasetRow, fold, schema_hash
from app.integrations.upstream import (
    Answer,
    HttpUpstream,
    Malformed,
    Rejected,
    Unavailable,
    Upstream,
    UpstreamConfig,
    UpstreamError,
)
from app.integrations.verification import Finding, TopicCheck, Verdict, verify

__all__ = [
    "AUDIT_RECORD_TYPE",
    "Answer",
    "Batch",
    "ChainHead",
    "DatasetRow",
    "Entry",
    "Finding",
    "Flush",
    "HttpUpstream",
    "Line",
    "Malformed",
    "Rejected",
    "TopicCheck",
    "Unavailable",
    "UnreadableAudit",
    "Upstream",
    "UpstreamConfig",
    "UpstreamError",
    "Verdict",
    "audit_event",
    "fold",
    "idempotency_key",
    "make_entry",
    "read_audit_record",
    "redact",
    "schema_hash",
    "verify",
    "violation_report",
]
