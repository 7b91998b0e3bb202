"""Health, metrics, figures, and this document."""

from __future__ import annotations

from typing import Any, Final

from app.web.openapi.building import (
    Area,
    Operation,
    Schema,
    answer,
    array,
    enum,
    example,
    header,
    nullable,
    obj,
    query,
    ref,
)
from app.web.openapi.shared import COUNT, NUMBERS, TEXT

__all__ = ["DOCUMENT", "OPERATIONS"]

_ANYTHING: Final[Schema] = {"type": "object"}
_BY_NUMBER: Final[Schema] = {"type": "object", "propertyNames": {"pattern": "^[0-9]+$"}, "additionalProperties": TEXT}
_STATUS: Final = enum("healthy", "degraded", "unhealthy")
_CHECKS: Final = array(
    obj(
        {"name": TEXT, "status": _STATUS, "latency_ms": COUNT, "message": TEXT, "details": _ANYTHING},
        ("name", "status", "latency_ms"),
    )
)
_HEALTH: Final = example(
    obj({"status": _STATUS, "checks": _CHECKS}),
    {"status": "healthy", "checks": [{"name": "kafka", "status": "healthy", "latency_ms": 2}]},
)
_VERBOSE: Final = query("verbose", TEXT, "With it, whatever its value: one line of text a check, for people.") | {
    "allowEmptyValue": True
}
_EXCLUDE: Final = query(
    "exclude",
    array(enum("kafka", "assignment", "recovery", "store", "webhook_keys", "governance", "policy", "registry")),
    "A check that does not count and is not shown; may be given several times.",
)
_READY: Final = obj({"status": enum("ready", "not_ready"), "checks": _CHECKS})
_LIVE: Final = obj({"status": enum("live", "stuck")})
_ROWS: Final = {"restored_rows": COUNT, "remaining_rows": COUNT}
_RECOVERY: Final = obj(
    {
        **_ROWS,
        "tables": {"type": "object", "additionalProperties": obj(_ROWS)},
        "left_s": nullable({"type": "number", "minimum": 0}),
    }
)
_COUNTS: Final[Schema] = {"type": "object", "additionalProperties": COUNT}
_FLOW: Final = obj(
    {
        "events": COUNT,
        "attempts": COUNT,
        "outputs": COUNT,
        "quarantined": COUNT,
        "deliveries": {**_COUNTS, "description": "By the status that they entered."},
        "waiting": {**_COUNTS, "description": "Now, by reason."},
        "in_flight": COUNT,
    }
)
# Sections come and go with the parts of a worker.
_STATS: Final = obj(
    {
        "version": TEXT,
        "worker": TEXT,
        "fenced": {"type": "boolean"},
        "numbers": _BY_NUMBER,
        "owners": _BY_NUMBER,
        "not_ready": array(TEXT),
        "recovery": nullable(_RECOVERY),
        "lag": _COUNTS,
        "oldest_unfinished_s": {"type": "object", "additionalProperties": {"type": "number"}},
        "flow": {**_FLOW, "description": "Since the start of the process, but for what waits and is in flight."},
        "webhooks": {**_COUNTS, "description": "Owned here, by health."},
        "off": array(TEXT),
    },
    open_=True,
)


def _told(description: str, schema: Schema) -> dict[str, Any]:
    """By `verbose` in lines."""
    made = answer(description, schema)
    return {**made, "content": {**made["content"], "text/plain": {"schema": TEXT}}}


_METRICS: Final = {**answer("The metrics."), "content": {"text/plain": {}, "application/openmetrics-text": {}}}

OPERATIONS: Final = Area(
    "operations",
    {
        "/metrics": {
            "get": Operation(
                "metrics",
                "Metrics of this worker: Prometheus text, or OpenMetrics on request",
                {200: _METRICS},
                role="public",
                any_query=True,
            )
        },
        "/health": {
            "get": Operation(
                "health",
                "Every check",
                {200: _told("Healthy or degraded.", ref("Health")), 503: _told("Unhealthy.", ref("Health"))},
                problems=(422,),
                parameters=(_VERBOSE, _EXCLUDE),
                role="public",
                any_query=True,
            )
        },
        "/health/live": {
            "get": Operation(
                "live",
                "Whether the event loop turns",
                {200: answer("It does.", _LIVE), 503: answer("It does not.", _LIVE)},
                role="public",
                any_query=True,
            )
        },
        "/health/ready": {
            "get": Operation(
                "ready",
                "Whether it works",
                {200: _told("It does.", _READY), 503: _told("Not yet, or not any more.", _READY)},
                problems=(422,),
                parameters=(_VERBOSE, _EXCLUDE),
                role="public",
                any_query=True,
            )
        },
        "/v1/stats": {"get": Operation("stats", "Figures of this worker", {200: answer("By section.", ref("Stats"))})},
        "/v1/workers": {
            "get": Operation(
                "workers",
                "Figures of all workers that own a partition, and of the one that is asked, which comes first",
                {
                    200: answer(
                        "Each as it answers to /v1/stats.", obj({"items": array(ref("Stats")), "missing": NUMBERS})
                    )
                },
            )
        },
    },
    {"Health": _HEALTH, "Stats": _STATS},
)

DOCUMENT: Final = Area(
    "operations",
    {
        "/openapi.json": {
            "get": Operation(
                "openapi",
                "This document",
                {
                    200: answer(
                        "OpenAPI 3.1.",
                        obj({"openapi": {"const": "3.1.0"}}, open_=True),
                        headers={"Cache-Control": header("How long it may be kept.", TEXT)},
                    )
                },
                role="public",
            )
        }
    },
)
