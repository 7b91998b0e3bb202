"""What vault-stream writes for others to read (contracts 9.1 and 9.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["DERIVED", "DerivedTopic"]

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_OBJECT: Final[Schema] = {"type": "object"}
_DELIVERY: Final[Schema] = {"type": "string", "pattern": "^dlv_[a-z2-7]{26}$"}
_WEBHOOK: Final[Schema] = {"type": "string", "pattern": "^wh_"}
_DELIVERY_ID: Final = "dlv_lc3wkdbbhqe2hiqwn6l6nfq3pe"
_WEBHOOK_ID: Final = "wh_aaaaaaaaaaaaaaaaaaaaaaaaaa"
_AT: Final = "2026-01-31T23:59:59.123Z"


def _enum(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


@dataclass(frozen=True, slots=True)
class DerivedTopic:
    """One topic of structured CloudEvents.

    Attributes:
        name: Below the prefix.
        key: What the record key is.
        events: By what follows `llm.vault-stream.`: required fields, optional ones, and an example of `data`.
        whose: The event has source and id of the event that caused it.
    """

    name: str
    key: str
    summary: str
    events: dict[str, tuple[dict[str, Schema], dict[str, Schema], dict[str, Any]]] = field(default_factory=dict)
    whose: bool = False


_ATTEMPT: Final = (
    {
        "delivery_id": _DELIVERY,
        "webhook_id": _WEBHOOK,
        "event_id": _TEXT,
        "event_source": _TEXT,
        "event_type": _TEXT,
        "attempt": {"type": "integer", "minimum": 1},
        "started_at": _TIME,
        "duration_ms": _COUNT,
        "outcome": _enum("delivered", "retry", "failed"),
        "worker": _TEXT,
    },
    {"status_code": _COUNT, "error": _TEXT, "next_at": _TIME},
    {
        "delivery_id": _DELIVERY_ID,
        "webhook_id": _WEBHOOK_ID,
        "event_id": "e-1",
        "event_source": "/vault/datasets",
        "event_type": "llm.data-vault.dataset.created",
        "attempt": 2,
        "started_at": _AT,
        "duration_ms": 41,
        "outcome": "retry",
        "status_code": 503,
        "error": "status_503",
        "next_at": _AT,
        "worker": "worker-1",
    },
)
_GIVEN_UP: Final = (
    {
        "delivery_id": _DELIVERY,
        "webhook_id": _WEBHOOK,
        "reason": _enum("exhausted", "rejected", "gone", "expired"),
        "attempts": _COUNT,
        "first_at": _TIME,
        "last_at": _TIME,
        "event": {**_OBJECT, "description": "The event as it was posted, byte for byte."},
        "origin": {"type": ["string", "null"], "description": "`topic/partition/offset` of the event."},
    },
    {"last_code": _COUNT, "last_error": _TEXT},
    {
        "delivery_id": _DELIVERY_ID,
        "webhook_id": _WEBHOOK_ID,
        "reason": "exhausted",
        "attempts": 10,
        "last_code": 500,
        "last_error": "status_500",
        "first_at": _AT,
        "last_at": _AT,
        "event": {"specversion": "1.0", "id": "e-1", "source": "/vault/datasets", "type": "llm.data-vault.x"},
        "origin": "vault.llm-data-vault-dataset-created/3/1207",
    },
)
_AUDIT: Final = (
    {
        "event_type": _TEXT,
        "category": _TEXT,
        "actor": _OBJECT,
        "resource": _OBJECT,
        "action": _TEXT,
        "outcome": _enum("success", "failure", "denied"),
        "severity": _TEXT,
    },
    {
        "id": _TEXT,
        "source": _TEXT,
        "occurred_at": _TIME,
        "tenant_id": _TEXT,
        "details": _OBJECT,
        "correlation_id": _TEXT,
        "trace_id": _TEXT,
    },
    {
        "id": "e-1",
        "source": "/vault/datasets",
        "event_type": "llm.data-vault.dataset.deleted",
        "category": "data",
        "occurred_at": _AT,
        "actor": {"id": "u-12", "type": "user"},
        "resource": {"type": "dataset", "id": "ds-7"},
        "action": "delete",
        "outcome": "success",
        "severity": "info",
        "details": {"reason": "expired"},
    },
)
_RAISED: Final = (
    {
        "violation_id": _TEXT,
        "policy_id": _TEXT,
        "resource_id": _TEXT,
        "severity": _enum("low", "medium", "high", "critical"),
        "occurred_at": _TIME,
    },
    {
        "policy_name": _TEXT,
        "rule_id": _TEXT,
        "principal_id": _TEXT,
        "action": _TEXT,
        "resource_type": _TEXT,
        "tenant_id": _TEXT,
        "message": _TEXT,
        "evidence": {},
        "compliance_framework": _TEXT,
        "correlation_id": _TEXT,
    },
    {
        "violation_id": "e-1",
        "policy_id": "p-2",
        "principal_id": "u-13",
        "resource_id": "ds-7",
        "severity": "high",
        "occurred_at": _AT,
    },
)
_REPORTED: Final[tuple[dict[str, Schema], dict[str, Schema], dict[str, Any]]] = (
    {
        "violation_id": _TEXT,
        "outcome": _enum("accepted", "duplicate", "rejected"),
        "status_code": _COUNT,
        "attempts": {"type": "integer", "minimum": 1},
    },
    {},
    {"violation_id": "e-1", "outcome": "accepted", "status_code": 201, "attempts": 1},
)
_DECISION: Final = (
    {
        "principal_id": _TEXT,
        "action": _TEXT,
        "resource_id": _TEXT,
        "context_hash": _TEXT,
        "cache_key": _TEXT,
        "reason": _TEXT,
        "source": _enum("cache", "engine", "error"),
        "began_at": _TIME,
    },
    {
        "allowed": {"type": "boolean"},
        "matched_policies": _list(_TEXT),
        "obligations": _list(_OBJECT),
        "expires_at": _TIME,
    },
    {
        "principal_id": "u-12",
        "action": "read",
        "resource_id": "ds-7",
        "context_hash": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        "cache_key": "9b1c3a4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f809",
        "allowed": True,
        "reason": "member of team a",
        "matched_policies": ["p-2"],
        "obligations": [],
        "source": "engine",
        "began_at": _AT,
        "expires_at": _AT,
    },
)


def _change(kind: str) -> tuple[dict[str, Schema], dict[str, Schema], dict[str, Any]]:
    conflict = {
        "type": "object",
        "required": ["vault", "registry", "winner"],
        "properties": {"vault": {}, "registry": {}, "winner": _enum("vault", "registry")},
    }
    optional: dict[str, Schema] = {
        "registration_id": _TEXT,
        "version": {},
        "model_id": _TEXT,
        "relationship": _enum("training_data", "evaluation_data", "validation_data", "test_data"),
        "conflict": conflict,
    }
    shown: dict[str, Any] = {"dataset_id": "ds-7", "registration_id": "reg-1"}
    if kind == "linked":
        shown |= {"model_id": "m-1", "relationship": "training_data"}
    if kind == "conflict":
        shown |= {"conflict": {"vault": {"name": "a"}, "registry": {"name": "b"}, "winner": "vault"}}
    return {"dataset_id": _TEXT}, optional, shown


DERIVED: Final = (
    DerivedTopic("webhook.attempts", "the webhook's id", "Every attempt to deliver", {"webhook.attempted": _ATTEMPT}),
    DerivedTopic(
        "webhook.dead-letters", "the webhook's id", "Deliveries that were given up", {"webhook.given-up": _GIVEN_UP}
    ),
    DerivedTopic(
        "governance.audit",
        "the resource's id",
        "One audit event for each event",
        {"audit.recorded": _AUDIT},
        whose=True,
    ),
    DerivedTopic(
        "policy.violations",
        "the resource's id",
        "Violations to report, and what became of the reports",
        {"violation.raised": _RAISED, "violation.reported": _REPORTED},
        whose=True,
    ),
    DerivedTopic(
        "policy.decisions",
        "the principal's id",
        "Every access request that was evaluated",
        {"decision.made": _DECISION},
    ),
    DerivedTopic(
        "registry.changes",
        "the dataset's id",
        "What the registry was told, and conflicts with it",
        {f"registry.{kind}": _change(kind) for kind in ("registered", "updated", "linked", "deleted", "conflict")},
    ),
)
