"""The health checks of a worker (contracts 7): the required ones decide readiness, upstreams only degrade."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Final, Protocol

from app.brokers import REFUSALS
from app.observability import metrics
from app.observability.health import CheckOutcome, HealthStatus
from app.webhooks.census import webhooks_without_key
from app.webhooks.owned import KeySetting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from app.engine.engine import Engine
    from app.observability.health import HealthRegistry

__all__ = ["Watched", "add_checks"]

DISK_LOW_BYTES: Final = 1 << 30
NO_KEY: Final = "There is no key for the secrets of webhooks: none can be made, and what is for them waits."
ONE_WITHOUT_KEY: Final = "The key of 1 webhook is missing, and its deliveries wait."
MORE_WITHOUT_KEY: Final = "The keys of {:,} webhooks are missing, and their deliveries wait."
ADD_KEY: Final = (
    "Put the key back into VAULT_STREAM_WEBHOOKS__ENCRYPTION_KEYS, behind the active one if there is another, and"
    " restart the workers; then vault-stream webhooks rekey. If it is lost, vault-stream webhooks rotate-secret."
)
ADD_SIGNING_KEY: Final = (
    "To sign v1a, put a key into VAULT_STREAM_WEBHOOKS__SIGNING_KEYS, and restart the workers; or have v1 alone:"
    " vault-stream webhooks update WEBHOOK_ID --signature v1."
)


class Watched(Protocol):
    """An upstream that remembers how its last call went."""

    @property
    def last_problem(self) -> str | None:
        """Why its last call failed; None when it did not, or nothing was called yet."""

    @property
    def last_call_age_s(self) -> float:
        """How long ago that call ended."""


def add_checks(
    health: HealthRegistry,
    engine: Engine,
    data_dir: Path,
    upstreams: Mapping[str, Watched | None],
    *,
    has_key: bool = True,
) -> None:
    """Add `kafka`, `assignment`, `recovery`, `store`, `webhook_keys`, and one for each upstream (None: it is off).

    Args:
        has_key: Whether the worker has any key for the secrets of webhooks.
    """

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
    # Not required: the secrets of one webhook must not take a worker out of service.
    health.add("webhook_keys", _keys_check(has_key=has_key), required=False)
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


def _keys_check(*, has_key: bool) -> Callable[[], Awaitable[CheckOutcome]]:
    async def run() -> CheckOutcome:
        lacking = webhooks_without_key()
        without = lacking.total()
        details = {"webhooks_without_key": without}
        if has_key and not without:
            return CheckOutcome(HealthStatus.HEALTHY, None, details)
        told = [NO_KEY if not has_key else (ONE_WITHOUT_KEY if without == 1 else MORE_WITHOUT_KEY.format(without))]
        if not has_key or lacking[KeySetting.ENCRYPTION]:
            told.append(ADD_KEY)
        if lacking[KeySetting.SIGNING]:
            told.append(ADD_SIGNING_KEY)
        return CheckOutcome(HealthStatus.DEGRADED, " ".join(told), details)

    return run


def _upstream_check(upstream: Watched | None) -> Callable[[], Awaitable[CheckOutcome]]:
    async def run() -> CheckOutcome:
        if upstream is None:
            return CheckOutcome(HealthStatus.HEALTHY, "off: no endpoint")
        problem = upstream.last_problem
        if problem is None:
            return CheckOutcome(HealthStatus.HEALTHY)
        # Nothing is called only to know: where nobody asks, it may be well by now.
        told = f"the last call, {upstream.last_call_age_s:.0f} s ago: {problem}"
        return CheckOutcome(HealthStatus.DEGRADED, told)

    return run
