"""Audit records as the router writes them."""

from __future__ import annotations

from typing import Any

import orjson

from app.events import derived_event


def audit(number: int, **fields: Any) -> dict[str, Any]:
    """An AuditEvent without its place in the chain."""
    return {
        "id": f"event-{number}",
        "source": "/vault",
        "event_type": "llm.data-vault.dataset.created",
        "category": "data_access",
        "occurred_at": "2026-01-31T23:59:59.123Z",
        "actor": {"id": "alice", "type": "user"},
        "resource": {"type": "dataset", "id": f"ds-{number}", "dataset_id": f"ds-{number}"},
        "action": "create",
        "outcome": "success",
        "severity": "info",
        "details": {"dataset_id": f"ds-{number}", "name": "n"},
        **fields,
    }


def audit_value(number: int, **fields: Any) -> bytes:
    """The value of an audit record."""
    data = audit(number, **fields)
    return derived_event(
        "audit.recorded",
        id_=data["id"],
        source=data["source"],
        subject=data["resource"]["id"],
        time="2026-01-31T23:59:59.200Z",
        data=orjson.dumps(data),
    )
