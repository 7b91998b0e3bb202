"""Health, metrics, figures, and this document."""

from __future__ import annotations

from typing import Final

from app.web.openapi.building import Area, Operation, Schema, answer, array, obj
from app.web.openapi.shared import TEXT

__all__ = ["DOCUMENT", "OPERATIONS"]

_ANYTHING: Final[Schema] = {"type": "object"}
_METRICS: Final = ("text/plain", "application/openmetrics-text")
_CHECK: Final = obj(
    {
        "name": TEXT,
        "status": {"enum": ["healthy", "degraded", "unhealthy"]},
        "latency_ms": {"type": "number"},
        "required": {"type": "boolean"},
        "message": TEXT,
        "details": _ANYTHING,
    },
    ("name", "status"),
    open_=True,
)
_HEALTH: Final = obj({"status": TEXT, "checks": array(_CHECK)}, ("status",), open_=True)

OPERATIONS: Final = Area(
    "operations",
    {
        "/metrics": {
            "get": Operation(
                "metrics",
                "Metrics of this worker: Prometheus text, or OpenMetrics on request",
                {
                    200: {
                        "description": "The metrics.",
                        "content": {"text/plain": {}, "application/openmetrics-text": {}},
                    }
                },
                role="public",
            )
        },
        "/health": {
            "get": Operation(
                "health",
                "Every check",
                {200: answer("Healthy or degraded.", _HEALTH), 503: answer("Unhealthy.", _HEALTH)},
                role="public",
            )
        },
        "/health/live": {
            "get": Operation(
                "live",
                "Whether the event loop turns",
                {200: answer("It does.", _ANYTHING), 503: answer("It does not.", _ANYTHING)},
                role="public",
            )
        },
        "/health/ready": {
            "get": Operation(
                "ready",
                "Whether it works",
                {200: answer("It does.", _ANYTHING), 503: answer("Not yet, or not any more.", _ANYTHING)},
                role="public",
            )
        },
        "/v1/stats": {"get": Operation("stats", "Figures of this worker", {200: answer("Sections.", _ANYTHING)})},
    },
)

DOCUMENT: Final = Area(
    "operations",
    {
        "/openapi.json": {
            "get": Operation("openapi", "This document", {200: answer("OpenAPI 3.1.", _ANYTHING)}, role="public")
        }
    },
)
