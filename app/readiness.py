"""The health checks of a worker (contracts 7): the required ones decide readiness, upstreams only degrade."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Final, Protocol

from app.brokers import REFUSALS
from app.observability import metrics
from app.observability.health import CheckOutcome, HealthStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from app.engine.engine import Engine
    from app.observability.health import HealthRegistry

__all__ = ["Watched", "add_checks"]

DISK_LOW_BYTES: Final = 1 << 30


class Watched(Protocol):
    """An upstream that remembers how its last call went."""

    @property
    def last_problem(self) -> str | None:
        """Why its last call failed; None when it did not, or nothing was called yet."""


def add_checks(health: HealthRegistry, engine: Engine, data_dir: Path, upstreams: Mapping[str, Watched | None]) -> None:
    """Add `kafka`, `assignment`, `recovery`, `store`, and one check for each upstream (None: it is off)."""

    async def kafka() -> CheckOutcome:
        return _kafka(engine)

    async def assignment() -> CheckOutcome:
        problem = engine.problem or engine.coordinator_problem
        if not engine.assignment_seen:
            return CheckOutcome(HealthStatus.UNHEALTHY, problem or "no assignment yet")
        status = HealthStatus.UNHEALTHY if problem else HealthStatus.HEALTHY
        return CheckOutcome(status, problem or None, {"numbers": len(engine.numbers)})

    async def store() -> CheckOutcome:
        free = shutil.disk_usage(data_dir).free
        metrics.DISK_FREE_BYTES.set(free)
        if free < DISK_LOW_BYTES:
            return CheckOutcome(HealthStatus.DEGRADED, "less than 1 GiB of disk is free", {"free_bytes": free})
        return CheckOutcome(HealthStatus.HEALTHY, None, {"free_bytes": free})

    for name, check in (
        ("kafka", kafka),
        ("assignment", assignment),
        ("recovery", _recovery_check(engine)),
        ("store", store),
    ):
        health.add(name, check)
    for name, upstream in upstreams.items():
        health.add(name, _upstream_check(upstream), required=False)


def _recovery_check(engine: Engine) -> Callable[[], Awaitable[CheckOutcome]]:
    async def run() -> CheckOutcome:
        reasons = engine.status.not_ready()
        status = HealthStatus.UNHEALTHY if reasons else HealthStatus.HEALTHY
        details: dict[str, Any] = {"oldest_unfinished_s": engine.status.oldest_unfinished_s()}
        if (progress := engine.recovery.progress()) is not None:
            reasons.insert(0, str(progress))
            details["progress"] = progress.to_json()
        return CheckOutcome(status, "; ".join(reasons) or None, details)

    return run


def _kafka(engine: Engine) -> CheckOutcome:
    refused = "; ".join(REFUSALS.current()) or None
    if engine.lease_valid():
        return CheckOutcome(HealthStatus.DEGRADED if refused else HealthStatus.HEALTHY, refused)
    silent = "no heartbeat was answered within the session timeout" if engine.assignment_seen else "not connected yet"
    return CheckOutcome(HealthStatus.UNHEALTHY, refused or silent)


def _upstream_check(upstream: Watched | None) -> Callable[[], Awaitable[CheckOutcome]]:
    async def run() -> CheckOutcome:
        if upstream is None:
            return CheckOutcome(HealthStatus.HEALTHY, "off: no endpoint")
        problem = upstream.last_problem
        return CheckOutcome(HealthStatus.DEGRADED if problem else HealthStatus.HEALTHY, problem)

    return run
