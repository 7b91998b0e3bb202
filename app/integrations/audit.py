"""One vault event as one `AuditEvent` (contracts 4): who did what to which resource, and how it ended.

What the router writes to the audit topic has no `partition`, `sequence`, `recorded_at`, `previous_hash` and `hash`:
those follow from the record's place in the topic, and `chain` adds them.

Where a field comes from:

- `category`: `data_access`, `security`, `policy` or `administration`, by the type.
- `actor`: the payload's field for whoever acted (`created_by`, `requested_by`, …), else the CloudEvents auth context
  (`authid`), else `{"id": "system", "type": "system"}`.
- `resource`: the dataset, or what an access event, an alert or a health event speaks of. Its id is the record key.
- `details`: the payload, redacted. Of `pii.detected` only the fields that the catalogue knows, and of `counts` and
  `detections` only numbers: whatever else stands there may be the very value that was found.

Ids of actors and resources are kept as they come: an audit trail that hides who acted is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from app.events import AUDIT_RECORDED, format_time, loads_strict
from app.integrations.redaction import REDACTED, may_hold_secrets, redact, redact_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.events import CloudEvent

__all__ = ["AUDIT_RECORD_TYPE", "Mapped", "UnreadableAudit", "audit_event", "audit_mapping", "read_audit_record"]

AUDIT_RECORD_TYPE: Final = "llm.vault-stream.audit.recorded"

_PREFIX: Final = "llm.data-vault."
_OUTCOMES: Final = frozenset({"success", "failure", "denied"})
_ENDED_BADLY: Final = frozenset({"failed", "failure", "error", "cancelled", "aborted"})
_SYSTEM: Final = {"id": "system", "type": "system"}
_PII_FIELDS: Final = frozenset(
    {"dataset_id", "tenant_id", "record_id", "pii_types", "detector", "max_confidence", "risk_level"}
)
_COUNTS: Final = ("counts", "detections")
_TRACE_ID: Final = slice(3, 35)
_TRACEPARENT_CHARS: Final = 55


# Two levels more than an event may have: `details` lies deeper than the `data` that it was.
_DEPTH: Final = 66
_TEXTS: Final = ("id", "source", "event_type", "occurred_at", "action", "outcome")
_IDENTITIES: Final = ("actor", "resource")


class UnreadableAudit(ValueError):
    """A record of the audit topic that is no AuditEvent; the message names the field and no value."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """How events of one type are read."""

    category: str
    action: str
    actor: tuple[str, ...] = ()
    resource: tuple[str, str] = ("dataset", "dataset_id")
    outcome: str = "success"


def _access(action: str, actor: str, outcome: str = "success") -> _Rule:
    return _Rule("security", action, (actor,), ("resource", "resource_id"), outcome)


_RULES: Final = {
    "dataset.created": _Rule("data_access", "create", ("created_by",)),
    "dataset.updated": _Rule("data_access", "update", ("updated_by",)),
    "dataset.deleted": _Rule("data_access", "delete", ("deleted_by",)),
    "dataset.archived": _Rule("data_access", "archive", ("archived_by",)),
    "version.created": _Rule("data_access", "create_version", ("author",)),
    "version.tagged": _Rule("data_access", "tag_version", ("tagger",)),
    "branch.created": _Rule("data_access", "create_branch", ("created_by",)),
    "branch.merged": _Rule("data_access", "merge_branch", ("merged_by",)),
    "records.ingested": _Rule("data_access", "ingest_records"),
    "records.deleted": _Rule("data_access", "delete_records", ("requested_by",)),
    "records.exported": _Rule("data_access", "export_records", ("requested_by",)),
    "anonymization.started": _Rule("security", "start_anonymization", ("requested_by",)),
    "anonymization.completed": _Rule("security", "complete_anonymization"),
    "pii.detected": _Rule("security", "detect_pii"),
    "access.granted": _access("grant", "granted_by"),
    "access.revoked": _access("revoke", "granted_by"),
    "access.denied": _access("access", "principal_id", "denied"),
    "policy.violation": _Rule(
        "policy", "violate_policy", ("principal_id",), ("resource", "resource_id"), outcome="failure"
    ),
    "retention.expired": _Rule("policy", "expire"),
    "compliance.alert": _Rule("policy", "alert", resource=("framework", "framework"), outcome="failure"),
    "health.degraded": _Rule("administration", "degrade", resource=("component", "component"), outcome="failure"),
    "health.restored": _Rule("administration", "restore", resource=("component", "component")),
}
_DENIED: Final = "access.denied"
_COMPLETED: Final = "anonymization.completed"
_BY_DATA: Final = frozenset({"access", "detect_pii", "complete_anonymization"})
"""Actions of which the event itself says more."""
_BAD_NEWS: Final = frozenset({"failing", "disabled"})


@dataclass(frozen=True, slots=True)
class Mapped:
    """How an event type becomes an AuditEvent, for a person.

    Attributes:
        type: Without `llm.data-vault.`.
        actor: The field of the payload that names whoever acted; empty: none does.
        resource: Its type, and the field that has its id.
    """

    type: str
    category: str
    actor: str
    resource: tuple[str, str]
    action: str
    outcome: str


def audit_mapping() -> tuple[Mapped, ...]:
    """The 22 types of the vault, as `docs/governance.md` shows them."""
    return tuple(
        Mapped(
            name,
            rule.category,
            " ".join(rule.actor),
            rule.resource,
            "the event's `action`" if name == _DENIED else rule.action,
            "success, failure by its `status`" if name == _COMPLETED else rule.outcome,
        )
        for name, rule in _RULES.items()
    )


@lru_cache(maxsize=256)
def _rule(type_: str) -> _Rule:
    name = type_.removeprefix(_PREFIX)
    known = _RULES.get(name)
    if known is not None:
        return known
    family, _, verb = name.partition(".")
    if family == "webhook":
        outcome = "failure" if verb in _BAD_NEWS else "success"
        return _Rule("administration", verb, ("actor",), ("webhook", "webhook_id"), outcome)
    if family == "stream":
        return _Rule("administration", verb, resource=("topic", "topic"), outcome="failure")
    return _Rule("administration", verb, ("actor",), (family, "id"))


def audit_event(event: CloudEvent, timestamp_ms: int) -> dict[str, Any]:
    """The event as an AuditEvent without its place in the chain.

    Args:
        event: An event of the catalogue, or one of our own types.
        timestamp_ms: The record's timestamp, which stands in for an absent `time`.

    Returns:
        A JSON object; `["resource"]["id"]` is the key of its record. Fields without a value are absent. It may share
        values with `event.data`, which must not be changed afterwards.
    """
    data, extensions = event.data, event.extensions
    fields: dict[str, Any] = data if isinstance(data, dict) else {}
    occurred_at, severity = event.time or format_time(timestamp_ms), fields.get("severity")
    if not isinstance(severity, str) or not severity:
        severity = "info"
    if event.type == AUDIT_RECORDED:
        audit = _stated(event, fields)
        audit.update(id=event.id, source=event.source, occurred_at=occurred_at, severity=severity)
    else:
        rule = _rule(event.type)
        suspect = not isinstance(data, bytes) and may_hold_secrets(data)
        # Of one piece: to add to it later is to have it copied.
        audit = {
            "event_type": event.type,
            "category": rule.category,
            "actor": _actor(rule, fields, extensions),
            "resource": _resource(rule, event, fields, suspect),
            "action": rule.action,
            "outcome": rule.outcome,
            "details": data if fields is data and not suspect else _details(event, suspect),
            "id": event.id,
            "source": event.source,
            "occurred_at": occurred_at,
            "severity": severity,
        }
        if rule.action in _BY_DATA and fields is data:
            _judge_by_data(audit, fields)
    if extensions or "tenant_id" in fields:
        _context(audit, fields, extensions)
    return audit


def _context(audit: dict[str, Any], data: dict[str, Any], extensions: Mapping[str, Any]) -> None:
    tenant = data.get("tenant_id") or extensions.get("tenantid")
    if tenant:
        audit["tenant_id"] = tenant
    correlation = extensions.get("correlationid")
    if correlation:
        audit["correlation_id"] = correlation
    trace = extensions.get("traceparent")
    if isinstance(trace, str) and len(trace) >= _TRACEPARENT_CHARS:
        audit["trace_id"] = trace[_TRACE_ID]


def _actor(rule: _Rule, data: dict[str, Any], extensions: Mapping[str, Any]) -> dict[str, Any]:
    for name in rule.actor:
        value = data.get(name) or (data.get("subject_id") if name == "principal_id" else None)
        if value:
            kind = data.get("principal_type") if name == "principal_id" else None
            actor = _identity(value, str(kind or "user"))
            break
    else:
        authid = extensions.get("authid")
        actor = _identity(authid, str(extensions.get("authtype", "user"))) if authid else dict(_SYSTEM)
    if "ip_address" in data or "context" in data:
        context = data.get("context")
        address = data.get("ip_address") or (context.get("ip_address") if isinstance(context, dict) else None)
        if isinstance(address, str):
            actor["ip_address"] = address
    return actor


def _identity(value: Any, kind: str) -> dict[str, Any]:
    """An actor from a name, or from an object that describes one (`author` of a version is such)."""
    if not isinstance(value, dict):
        return {"id": str(value), "type": kind}
    found = next((value[name] for name in ("id", "user_id", "name") if value.get(name)), None)
    if found is None:
        return dict(_SYSTEM)
    actor = {"id": str(found), "type": str(value.get("type") or kind)}
    if isinstance(value.get("ip_address"), str):
        actor["ip_address"] = value["ip_address"]
    return actor


def _resource(rule: _Rule, event: CloudEvent, data: dict[str, Any], suspect: bool) -> dict[str, Any]:
    kind, field = rule.resource
    dataset = data.get("dataset_id")
    found = data.get(field)
    if kind == "resource":
        kind = str(data.get("resource_type") or kind)
    elif kind == "framework" and dataset:
        kind, found = "dataset", dataset
    resource = {"type": kind, "id": str(found or event.subject or event.id)}
    if dataset:
        resource["dataset_id"] = str(dataset)
        name = data.get("name")
        if isinstance(name, str):
            resource["name"] = redact_text(name) if suspect else name
    return resource


def _details(event: CloudEvent, suspect: bool) -> dict[str, Any]:
    data = event.data
    if isinstance(data, bytes):
        return {"size_bytes": len(data), "content_type": event.datacontenttype or ""}
    if data is None:
        return {}
    details = redact(data) if suspect else data
    return details if isinstance(details, dict) else {"value": details}


def _judge_by_data(audit: dict[str, Any], data: dict[str, Any]) -> None:
    """What an access was for, whether a job ended badly, and of findings no more than types and numbers."""
    action, details = audit["action"], audit["details"]
    if action == "access":
        if data.get("action"):
            audit["action"] = str(data["action"])
        return
    if action == "detect_pii":
        details = {name: value if name in _PII_FIELDS else REDACTED for name, value in details.items()}
    elif str(data.get("status", "")).lower() in _ENDED_BADLY:
        audit["outcome"] = "failure"
    for name in _COUNTS:
        if name in data:
            details = {**details, name: _numbers(data[name])}
    audit["details"] = details


def _numbers(value: Any) -> Any:
    """Counts by type of finding; what is not a number is no count."""
    if isinstance(value, dict):
        return {redact_text(name): _numbers(item) for name, item in value.items()}
    return value if isinstance(value, int | float) else REDACTED


def _stated(event: CloudEvent, data: dict[str, Any]) -> dict[str, Any]:
    """An AuditEvent that a service composed itself: its fields are kept where they have the right shape."""
    resource = data.get("resource")
    resource = resource if isinstance(resource, dict) else {}
    named: dict[str, Any] = {
        "type": str(resource.get("type") or "resource"),
        "id": str(resource.get("id") or event.subject or event.id),
    }
    for name in ("name", "dataset_id"):
        if isinstance(resource.get(name), str):
            named[name] = redact_text(resource[name])
    details = data.get("details")
    outcome = data.get("outcome")
    return {
        "event_type": str(data.get("event_type") or event.type),
        "category": str(data.get("category") or "administration"),
        "actor": _identity(data.get("actor") or _SYSTEM, "user"),
        "resource": named,
        "action": redact_text(str(data.get("action") or "record")),
        "outcome": outcome if isinstance(outcome, str) and outcome in _OUTCOMES else "success",
        "details": redact(details) if isinstance(details, dict) else {},
    }


def read_audit_record(value: bytes | None, timestamp_ms: int) -> dict[str, Any]:
    """The AuditEvent in a record of the audit topic (contracts 9.1: a structured CloudEvent, `audit.recorded`).

    The size limit of vault events does not hold here: an AuditEvent may be a little larger than the event it is of.

    Args:
        value: Of the record.
        timestamp_ms: Of the record; it becomes `recorded_at`, so it must be a date.

    Raises:
        UnreadableAudit: It has no entry in the chain.
    """
    try:
        format_time(timestamp_ms)
    except ValueError:
        raise UnreadableAudit("the record's timestamp, in milliseconds, is outside the years 1 to 9999") from None
    try:
        envelope = loads_strict(value or b"", depth=_DEPTH)
    except ValueError:
        raise UnreadableAudit("the record is not JSON that every parser reads alike") from None
    if not isinstance(envelope, dict) or envelope.get("specversion") != "1.0":
        raise UnreadableAudit("the record is not a CloudEvent 1.0 in structured JSON")
    if envelope.get("type") != AUDIT_RECORD_TYPE:
        raise UnreadableAudit(f"type is not {AUDIT_RECORD_TYPE}")
    audit = envelope.get("data")
    if not isinstance(audit, dict):
        raise UnreadableAudit("data is not an object")
    for name in _TEXTS:
        if not isinstance(audit.get(name), str) or not audit[name]:
            raise UnreadableAudit(f"data.{name} is not a text")
    for name in _IDENTITIES:
        identity = audit.get(name)
        if not isinstance(identity, dict) or not isinstance(identity.get("id"), str):
            raise UnreadableAudit(f"data.{name} has no id")
    return audit
