"""Health: named checks that other code adds, and the heartbeat of the event loop.

    registry = HealthRegistry()
    registry.add("kafka", check_kafka)                       # unhealthy: /health is 503
    registry.add("policy", check_policy, required=False)     # unhealthy: only shown
    report = await registry.report()

Live and ready are two different questions (contracts section 7): live says that the event loop turns (`LoopWatch`) and
nothing else, so that no dead upstream gets a worker killed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from app.observability.addresses import unaddressed
from app.observability.metrics import LOOP_LAG_SECONDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

__all__ = ["CheckOutcome", "HealthCheckResult", "HealthRegistry", "HealthReport", "HealthStatus", "LoopWatch"]

log = logging.getLogger("app.health")

CACHE_S: Final = 1.0
"""How long an answer of all checks is given again."""
CHECK_TIMEOUT_S: Final = 2.0
"""What one check may take; below the time limit of the usual prober."""


class HealthStatus(StrEnum):
    """How a part is: `degraded` works with less."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """What a check answers.

    Attributes:
        status: How the part is.
        message: One sentence; addresses and secrets are taken out of it.
        details: JSON values, likewise.
    """

    status: HealthStatus
    message: str | None = None
    details: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class HealthCheckResult:
    """A `CheckOutcome` with the name of the check and its duration in milliseconds; `required` as it was added."""

    name: str
    status: HealthStatus
    latency_ms: int
    message: str | None = None
    details: Mapping[str, Any] | None = None
    required: bool = True

    def to_json(self) -> dict[str, Any]:
        """`{name, status, latency_ms, message?, details?}`."""
        shown: dict[str, Any] = {"name": self.name, "status": self.status.value, "latency_ms": self.latency_ms}
        if self.message is not None:
            shown["message"] = self.message
        if self.details is not None:
            shown["details"] = dict(self.details)
        return shown


@dataclass(frozen=True, slots=True)
class HealthReport:
    """All checks at one moment.

    Attributes:
        checks: In the order in which they were added.
    """

    checks: tuple[HealthCheckResult, ...]

    @property
    def status(self) -> HealthStatus:
        """`unhealthy` if a required check is; `degraded` if any check is not healthy; else `healthy`."""
        if any(check.required and check.status is HealthStatus.UNHEALTHY for check in self.checks):
            return HealthStatus.UNHEALTHY
        healthy = all(check.status is HealthStatus.HEALTHY for check in self.checks)
        return HealthStatus.HEALTHY if healthy else HealthStatus.DEGRADED

    def without(self, names: Collection[str]) -> HealthReport:
        """The same as if there were no checks of these names."""
        return HealthReport(tuple(check for check in self.checks if check.name not in names))

    def to_json(self) -> dict[str, Any]:
        """`{status, checks: […]}`."""
        return {"status": self.status.value, "checks": [check.to_json() for check in self.checks]}


@dataclass(frozen=True, slots=True)
class _Check:
    name: str
    run: Callable[[], Awaitable[CheckOutcome]]
    required: bool
    timeout_s: float


class HealthRegistry:
    """The checks of the process, run side by side.

    Args:
        expected: Names of required checks that some part adds once it exists; until then each counts as unhealthy, so
            that a process which has only begun to start is not called ready.
        clock: Monotonic seconds.
    """

    def __init__(self, expected: Iterable[str] = (), *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._draining = False
        self._checks: dict[str, _Check] = {}
        self._late: dict[str, asyncio.Future[CheckOutcome]] = {}
        self._running: asyncio.Task[HealthReport] | None = None
        self._report: HealthReport | None = None
        self._reported_at = float("-inf")
        self._expected = dict.fromkeys(expected)

    def add(
        self,
        name: str,
        check: Callable[[], Awaitable[CheckOutcome]],
        *,
        required: bool = True,
        timeout_s: float = CHECK_TIMEOUT_S,
    ) -> None:
        """Add a check.

        Args:
            name: Appears in `/health`.
            check: Answers how the part is. One that raises, or takes longer than its limit, counts as unhealthy.
            required: Whether unhealthy makes the whole unhealthy, rather than degraded.
            timeout_s: The limit.

        Raises:
            ValueError: There is a check of that name.
        """
        if name in self._checks:
            raise ValueError(f"a health check named {name!r} is there already; choose another name")
        self._checks[name] = _Check(name, check, required, timeout_s)
        self._expected.pop(name, None)
        self._report = None

    def drain(self) -> None:
        """From here on this process is not ready, whatever the checks say: it is shutting down."""
        self._draining = True

    @property
    def names(self) -> tuple[str, ...]:
        """Of all checks, those that are still expected last."""
        return (*self._checks, *self._expected)

    async def ready(self, excluded: Collection[str] = ()) -> bool:
        """Whether work may be sent here: no required check is unhealthy, and the process is not shutting down.

        Args:
            excluded: Checks that do not count.
        """
        report = (await self.report()).without(excluded)
        return not self._draining and report.status is not HealthStatus.UNHEALTHY

    async def report(self) -> HealthReport:
        """Run all checks, or give the answer again that is younger than a second.

        Callers that come while the checks run share their answer.
        """
        if self._report is not None and self._clock() - self._reported_at < CACHE_S:
            return self._report
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run_all(tuple(self._checks.values())))
        # Shielded: a prober that hangs up must not cancel the checks for the others.
        return await asyncio.shield(self._running)

    async def _run_all(self, checks: tuple[_Check, ...]) -> HealthReport:
        results = await asyncio.gather(*(self._run(check) for check in checks))
        awaited = (HealthCheckResult(name, HealthStatus.UNHEALTHY, 0, "starting") for name in self._expected)
        report = HealthReport((*results, *awaited))
        if len(checks) == len(self._checks):
            self._report, self._reported_at = report, self._clock()
        return report

    async def _run(self, check: _Check) -> HealthCheckResult:
        began = self._clock()
        result = HealthCheckResult(check.name, HealthStatus.UNHEALTHY, 0, required=check.required)
        running = self._begun(check)
        # Not `asyncio.timeout`, which waits for a check that does not heed its cancellation.
        await asyncio.wait({running}, timeout=check.timeout_s)
        if not running.done():
            running.cancel()
            result = replace(result, message=f"no answer within {check.timeout_s:g} s")
        else:
            result = _judged(result, self._late.pop(check.name))
        return replace(result, latency_ms=round((self._clock() - began) * 1000))

    def _begun(self, check: _Check) -> asyncio.Future[CheckOutcome]:
        """A run of the check, or the one that still goes on though its time was over: they must not pile up."""
        running = self._late.get(check.name)
        if running is None or running.done():
            running = self._late[check.name] = asyncio.ensure_future(check.run())
            # How a late one ends is nobody's concern any more.
            running.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return running


def _judged(result: HealthCheckResult, ended: asyncio.Future[CheckOutcome]) -> HealthCheckResult:
    if ended.cancelled() or (error := ended.exception()) is not None:
        # Its text may hold an address or worse: it goes to the log, which redacts, and not into the answer.
        log.warning("health check failed", exc_info=None if ended.cancelled() else error, extra={"check": result.name})
        return replace(result, message="the check itself failed; the log has the reason")
    outcome = ended.result()
    details = None if outcome.details is None else unaddressed(dict(outcome.details))
    return replace(result, status=outcome.status, message=unaddressed(outcome.message), details=details)


class LoopWatch:
    """A heartbeat on the event loop: how late its timers are, and whether it turns at all.

    The lag is the gauge `vault_stream_loop_lag_seconds`, the longest of the last 15 s, so that a scrape every 15 s
    misses no stall.

    Args:
        clock: Monotonic seconds.
    """

    INTERVAL_S: Final = 0.25
    LIVE_WITHIN_S: Final = 10.0
    _BEATS_KEPT: Final = 60

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beat_at = clock()
        self._lags_s: deque[float] = deque(maxlen=self._BEATS_KEPT)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to beat on the running loop."""
        self.stop()
        self._beat_at = self._clock()
        self._timer = asyncio.get_running_loop().call_later(self.INTERVAL_S, self._beat)

    def stop(self) -> None:
        """Beat no longer; may be called at any time, more than once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def live(self) -> bool:
        """Whether the loop turned within the last 10 s. May be asked from any thread."""
        return self._clock() - self._beat_at < self.LIVE_WITHIN_S

    def _beat(self) -> None:
        now = self._clock()
        self._lags_s.append(max(0.0, now - self._beat_at - self.INTERVAL_S))
        LOOP_LAG_SECONDS.set(max(self._lags_s))
        self._beat_at = now
        self._timer = asyncio.get_running_loop().call_later(self.INTERVAL_S, self._beat)
