"""From when on what was decided before counts no longer (architecture 7).

An invalidation is a time, not a delete: each record of `policy.invalidations` names a principal (`p:`), a resource
(`r:`) or everything (`*`), and the broker stamps it. A decision counts only if its request began later than that, by
more than two clocks may differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from app.integrations.policy.decisions import Decision
    from app.integrations.policy.questions import Question

__all__ = ["EVERYTHING", "FRESH_S", "Invalidations", "scope_of"]

EVERYTHING: Final = "*"
FRESH_S: Final = 1.0
"""For how long it is known that nothing was missed, from the moment in which the end of the log was asked for."""
NEVER_MS: Final = -(1 << 62)
_FORGET_ABOVE: Final = 1024
_SLACK_MS: Final = 60_000


def scope_of(key: bytes | None) -> str:
    """The scope that the key of a record names; one that cannot be read is everything."""
    try:
        scope = (key or b"").decode()
    except UnicodeDecodeError:
        return EVERYTHING
    return scope if scope.startswith(("p:", "r:")) else EVERYTHING


class Invalidations:
    """What one process knows of them.

    Args:
        skew_s: By how much two clocks may differ.
        longest_s: For how long a decision may be kept at most.
    """

    def __init__(self, skew_s: float, longest_s: float) -> None:
        self.skew_ms = round(skew_s * 1000)
        self._keep_ms = round(2 * longest_s * 1000) + 2 * self.skew_ms + _SLACK_MS
        self._scopes: dict[str, tuple[int, float]] = {}
        self._fresh_at_s = float("-inf")
        self._forget_above = _FORGET_ABOVE

    def add(self, scope: str, at_ms: int, seen_s: float) -> None:
        """One more.

        Args:
            at_ms: The broker's time.
            seen_s: When this process read it, by its monotonic clock.
        """
        known_ms, known_s = self._scopes.get(scope, (NEVER_MS, float("-inf")))
        self._scopes[scope] = (max(at_ms, known_ms), max(seen_s, known_s))

    def confirmed(self, asked_s: float) -> None:
        """Everything was read that was in the log when its end was asked for, by the monotonic clock."""
        self._fresh_at_s = max(self._fresh_at_s, asked_s)

    def fresh(self, now_s: float) -> bool:
        """Whether that was within the last second."""
        return now_s - self._fresh_at_s <= FRESH_S

    def counts(self, decision: Decision) -> bool:
        """Whether nothing that is known here takes a decision's validity."""
        return decision.began_ms > self._latest_ms(decision.principal_id, decision.resource_id) + self.skew_ms

    def settling(self, question: Question, now_ms: int) -> bool:
        """Whether a decision that begins now could not be kept: an invalidation is too recent."""
        return now_ms <= self._latest_ms(question.principal_id, question.resource_id) + self.skew_ms

    def seen_since(self, question: Question, began_s: float) -> bool:
        """Whether one that concerns a question was read at this monotonic time or later."""
        return any(
            self._scopes[scope][1] >= began_s
            for scope in _scopes(question.principal_id, question.resource_id)
            if scope in self._scopes
        )

    def forget(self, now_ms: int) -> None:
        """Let go of those that no decision can be older than and still be kept, once there are many."""
        if len(self._scopes) > self._forget_above:
            before_ms = now_ms - self._keep_ms
            self._scopes = {scope: known for scope, known in self._scopes.items() if known[0] >= before_ms}
            self._forget_above = max(_FORGET_ABOVE, 2 * len(self._scopes))

    def _latest_ms(self, principal_id: str, resource_id: str) -> int:
        scopes = self._scopes
        if not scopes:
            return NEVER_MS
        return max(scopes[scope][0] if scope in scopes else NEVER_MS for scope in _scopes(principal_id, resource_id))


def _scopes(principal_id: str, resource_id: str) -> tuple[str, str, str]:
    return f"p:{principal_id}", f"r:{resource_id}", EVERYTHING
