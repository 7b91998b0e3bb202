"""What flows through this worker, as sections of `/v1/stats`: read from its metrics, which count it anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.observability import metrics

if TYPE_CHECKING:
    from prometheus_client.metrics import MetricWrapperBase

__all__ = ["flow", "webhooks"]


def flow() -> dict[str, Any]:
    """What was counted since the start of the process, and what waits now, by reason, and is in flight."""
    depths = _by(metrics.QUEUE_DEPTH, "queue_name")
    return {
        "events": _sum(metrics.EVENTS_CONSUMED),
        "attempts": _sum(metrics.ATTEMPTS),
        "outputs": _sum(metrics.OUTPUTS),
        "quarantined": _sum(metrics.QUARANTINED),
        "deliveries": _by(metrics.DELIVERIES, "status"),
        "waiting": _by(metrics.DELIVERIES_WAITING, "reason"),
        "in_flight": depths.get("webhooks_in_flight", 0),
    }


def webhooks() -> dict[str, int]:
    """How many webhooks are owned here, by health."""
    return _by(metrics.WEBHOOKS, "health")


def _sum(metric: MetricWrapperBase) -> int:
    return sum(_values(metric).values())


def _by(metric: MetricWrapperBase, label: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for labels, value in _values(metric).items():
        name = dict(labels)[label]
        found[name] = found.get(name, 0) + value
    return found


def _values(metric: MetricWrapperBase) -> dict[tuple[tuple[str, str], ...], int]:
    samples = (sample for family in metric.collect() for sample in family.samples)
    return {
        tuple(sample.labels.items()): int(sample.value) for sample in samples if not sample.name.endswith("_created")
    }
