"""The policy engine for a vault service: an import, no worker beside it.

Example::

    async with InvalidationTail(["kafka:9092"]) as tail, PolicyEngineClient("https://policy", tail=tail) as policy:
        decision = await policy.evaluate_access("alice", "read", "ds-1")
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from app.integrations.policy.decisions import Lifetimes
from app.integrations.policy.engine import Dialect, PolicyEngine
from app.integrations.policy.evaluation import Evaluator
from app.integrations.policy.questions import vault_question
from app.integrations.upstream import HttpUpstream, UpstreamConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.integrations.policy.evaluation import Answered
    from app.integrations.policy.tail import InvalidationTail
    from app.integrations.upstream import Upstream

__all__ = ["PolicyEngineClient"]

TIMEOUT_S = 5.0


class _Clocks:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()


class PolicyEngineClient:
    """Asks the policy engine, and keeps nothing: each question is a call, but for those of the same second.

    With a tail it keeps decisions, and uses one only while the tail knows that nothing was missed for longer than a
    second, and no invalidation has ended it. Whatever goes wrong ends in `PolicyUnavailable`: then access is denied.

    Args:
        engine: The endpoint, or where and how in detail, or a transport of your own.
        tail: Started and stopped by the caller; it knows by how much clocks may differ.
        lifetimes: How long decisions are kept; not longer than the tail was told.
    """

    def __init__(
        self,
        engine: str | UpstreamConfig | Upstream,
        *,
        tail: InvalidationTail | None = None,
        dialect: Dialect | None = None,
        lifetimes: Lifetimes | None = None,
    ) -> None:
        if isinstance(engine, str):
            engine = UpstreamConfig(engine, TIMEOUT_S)
        self._http: HttpUpstream | None = None
        if isinstance(engine, UpstreamConfig):
            engine = self._http = HttpUpstream(engine)
        lifetimes = lifetimes or Lifetimes()
        if tail is not None and lifetimes.longest_s > tail.longest_s:
            raise ValueError(f"decisions are kept for {lifetimes.longest_s:g} s: give the tail that longest_s, or more")
        self._engine = PolicyEngine(engine, dialect or Dialect())
        self._evaluator = Evaluator(self._engine, lifetimes, _Clocks(), times=None if tail is None else tail.times)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End what is under way, and the connections."""
        await self._evaluator.close()
        if self._http is not None:
            await self._http.close()

    async def evaluate_access(
        self, principal_id: str, action: str, resource_id: str, context: Mapping[str, Any] | None = None
    ) -> Answered:
        """The decision; `decision.verdict.allowed` is true or false, and its obligations belong to it.

        Raises:
            PolicyUnavailable: There is none.
            BadQuestion: A name is empty or too long, or the context is no JSON.
        """
        question = vault_question(
            {
                "principal_id": principal_id,
                "action": action,
                "resource_id": resource_id,
                "context": dict(context or {}),
            }
        )
        return await self._evaluator.evaluate(question)

    async def applicable_policies(self, resource_id: str) -> list[dict[str, Any]]:
        """The policies that apply to a resource.

        Raises:
            PolicyUnavailable: The engine does not say.
        """
        return await self._engine.applicable(resource_id)
