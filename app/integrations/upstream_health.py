"""Whether an upstream is well, as others are told: late, so that one that flaps does not flood them.

Every call of the upstream ends well or badly. It is told to be degraded once most calls have failed for a while, and
several of them, and to be restored once no call has failed for a while. Between two times that it is told to be
degraded there is a gap. What was decided is due until it was told: a broker that is away costs time and nothing else.
Pure; the clocks are passed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.events import VaultEventType, format_time, new_event

if TYPE_CHECKING:
    from app.events import CloudEvent

__all__ = ["Change", "HealthRules", "UpstreamHealth", "change_event"]


@dataclass(frozen=True, slots=True)
class HealthRules:
    """When an upstream is told to be degraded, or restored.

    Attributes:
        degraded_after_s: So long more failures than successes.
        degraded_after_calls: At least so many: one failure, and silence after it, says nothing of now.
        restored_after_s: So long no failure, since a first success.
        gap_s: At least so long between two times that it is told to be degraded.
    """

    degraded_after_s: float = 30.0
    degraded_after_calls: int = 3
    restored_after_s: float = 30.0
    gap_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be told.

    Attributes:
        degraded: Or restored.
        since_ms: When the trouble began: the first call that failed.
        calls: How many have failed since.
        problem: How the last of them did.
        lasted_s: From the first failure to the first success; 0 while it lasts.
    """

    degraded: bool
    since_ms: int
    calls: int
    problem: str
    lasted_s: float = 0.0


@dataclass(slots=True)
class _Failures:
    """Calls that failed, and fewer between them that did not."""

    since_s: float
    since_ms: int
    calls: int
    problem: str
    worked: int = 0


class UpstreamHealth:
    """One upstream, as one process sees it. It is well, or nobody knows, until it was told to be degraded."""

    def __init__(self, rules: HealthRules) -> None:
        self._rules = rules
        self._failures: _Failures | None = None
        self._well_since: tuple[float, int] | None = None
        self._told: Change | None = None
        self._told_at_s = float("-inf")
        self._again = False
        self._due: Change | None = None

    @property
    def degraded(self) -> bool:
        """Whether that is what was told last."""
        return self._told is not None

    def heard(self, problem: str | None, monotonic_s: float, wall_ms: int) -> None:
        """A call ended.

        Args:
            problem: Why it failed; None if it did not.
        """
        if problem is None:
            self._well_since = self._well_since or (monotonic_s, wall_ms)
            if self._failures is not None:
                self._failures.worked += 1
                if self._failures.worked >= self._failures.calls:
                    self._failures = None
            return
        if self._well_since is not None and monotonic_s - self._well_since[0] >= self._rules.restored_after_s:
            self._failures = None
        self._well_since = None
        if self._failures is None:
            self._failures = _Failures(monotonic_s, wall_ms, 0, problem)
        self._failures.calls += 1
        self._failures.problem = problem

    def due(self, monotonic_s: float) -> Change | None:
        """What is to be told now; the same until `told`, for who was told of it in vain may have heard all the same."""
        if self._due is None:
            self._due = self._degraded(monotonic_s) or self._restored(monotonic_s)
        return self._due

    def told(self, monotonic_s: float) -> None:
        """What was due has been told."""
        if self._due is not None and self._due.degraded:
            self._told, self._told_at_s = self._due, monotonic_s
        else:
            self._told = None
        self._due, self._again = None, False

    def took_over(self) -> None:
        """Another process was to tell until now, and may have ended before it did: trouble that lasts is told again."""
        self._again = self._told is not None

    def _degraded(self, monotonic_s: float) -> Change | None:
        failures, rules = self._failures, self._rules
        if failures is None or failures.calls < rules.degraded_after_calls or (self._told and not self._again):
            return None
        if self._well_since is not None:
            # It may just have become well.
            return None
        if monotonic_s - failures.since_s < rules.degraded_after_s or monotonic_s - self._told_at_s < rules.gap_s:
            return None
        since_ms = self._told.since_ms if self._told else failures.since_ms
        return Change(True, since_ms, failures.calls, failures.problem)

    def _restored(self, monotonic_s: float) -> Change | None:
        told, well = self._told, self._well_since
        if told is None or well is None or monotonic_s - well[0] < self._rules.restored_after_s:
            return None
        return Change(False, told.since_ms, told.calls, told.problem, max(0.0, (well[1] - told.since_ms) / 1000))


def change_event(change: Change, component: str, source: str, worker: str, now_ms: int) -> CloudEvent:
    """The event that tells of a change (contracts 1.2).

    Its id is a function of upstream, worker and trouble, so that one that is sent again is known for the same.

    Args:
        component: The name of the upstream.
        source: `/vault-stream/{app id}`.
        worker: The name of the worker that saw it.
    """
    details = {"worker": worker, "failed_calls": change.calls}
    data: dict[str, Any] = {"component": component}
    if change.degraded:
        kind, word = VaultEventType.HEALTH_DEGRADED, "degraded"
        since = format_time(change.since_ms)
        data |= {"status": word, "message": change.problem, "since": since, "details": details}
    else:
        kind, word = VaultEventType.HEALTH_RESTORED, "restored"
        data |= {"duration_s": round(change.lasted_s, 3), "message": f"was: {change.problem}", "details": details}
    return new_event(
        id=f"{component}-{word}-{worker}-{change.since_ms}",
        source=source,
        type=str(kind),
        subject=component,
        time=format_time(now_ms),
        data=data,
    )
