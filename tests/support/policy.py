"""Questions, decisions and an engine that a test plays."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from app.integrations.policy import (
    Decision,
    Dialect,
    Evaluator,
    Invalidations,
    Lifetimes,
    NotRecorded,
    Obligation,
    PolicyEngine,
    PolicyUnavailable,
    Question,
    Shared,
    Verdict,
    authzen_question,
    vault_question,
)
from app.web.policy import PolicyApi
from tests.support.listening import Answer
from tests.support.memory_unit import START_MS, FakeClock
from tests.support.scripted_upstream import ScriptedUpstream

ALLOW = Verdict(allowed=True, reason="reading is open", matched_policies=("p-1",))
DENY = Verdict(allowed=False, reason="only an admin may")
ASKED = {"principal_id": "alice", "action": "read", "resource_id": "ds-1", "context": {"ip": "10.0.0.1"}}
RICH = Verdict(
    allowed=True,
    reason="owner",
    matched_policies=("p-1",),
    obligations=(Obligation(action="mask", parameters={"fields": ["ssn"]}),),
    extra={"step_up": "mfa"},
)


def question(principal: str = "alice", action: str = "read", resource: str = "ds-1", **context: Any) -> Question:
    return vault_question({"principal_id": principal, "action": action, "resource_id": resource, "context": context})


def authzen(subject: str = "alice", action: str = "read", resource: str = "ds-1", **more: Any) -> dict[str, Any]:
    """A request of AuthZEN as it is asked."""
    return {
        "subject": {"type": "user", "id": subject},
        "action": {"name": action},
        "resource": {"type": "dataset", "id": resource},
        **more,
    }


def in_authzen(**named: Any) -> Question:
    return authzen_question(authzen(**named))


def decision(
    asked: Question | None = None, verdict: Verdict = ALLOW, began_ms: int = START_MS, took_ms: int = 5
) -> Decision:
    return Lifetimes().decided(asked or question(), verdict, began_ms, began_ms + took_ms)


class Engine:
    """Says what it is told to, and remembers what it was asked.

    Attributes:
        gate: While it is not set, questions wait.
    """

    def __init__(self, judge: Callable[[Question], Verdict] = lambda _: ALLOW) -> None:
        self.judge = judge
        self.asked: list[Question] = []
        self.down = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def verdict(self, question: Question) -> Verdict:
        self.asked.append(question)
        await self.gate.wait()
        if self.down:
            raise PolicyUnavailable("no answer: connect")
        return self.judge(question)


class Log:
    """Takes records of decisions."""

    def __init__(self) -> None:
        self.made_: list[tuple[str, Decision]] = []
        self.failed_: list[str] = []
        self.full = False

    async def made(self, decision: Decision, source: str) -> str:
        if self.full:
            raise NotRecorded("the decision cannot be written down")
        self.made_.append((source, decision))
        return str(uuid.UUID(int=len(self.made_)))

    async def failed(self, question: Question, why: str, began_ms: int) -> None:
        if self.full:
            raise NotRecorded("the decision cannot be written down")
        self.failed_.append(why)


class Invalidated:
    """The topic of invalidations.

    Attributes:
        scopes: The keys of its records.
        failure: What a send raises.
    """

    topic = "policy.invalidations"

    def __init__(self) -> None:
        self.scopes: list[str] = []
        self.failure: Exception | None = None

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> tuple[int, int]:
        if self.failure is not None:
            raise self.failure
        assert topic == self.topic
        self.scopes.append((key or b"").decode())
        return 0, len(self.scopes)


def policy_api(
    invalidated: Invalidated,
    engine: Engine | None = None,
    *,
    log: Log | None = None,
    shared: Shared | None = None,
    times: Invalidations | None = None,
) -> PolicyApi:
    """What the routes work with; its engine allows everything."""
    evaluator = Evaluator(
        engine or Engine(), Lifetimes(), FakeClock(), times=times, shared=shared, records=log or Log()
    )
    lists = ScriptedUpstream(body=lambda _: b'[{"id":"p-1"}]')
    return PolicyApi(evaluator, PolicyEngine(lists, Dialect()), invalidated, Invalidated.topic, "http://worker-1")


def by_action(question: Question) -> Verdict:
    return RICH if question.action == "read" else DENY


def is_unavailable(answer: Answer) -> bool:
    assert answer.code == (503, "policy_unavailable")
    assert answer.headers["Retry-After"]
    return "allowed" not in answer.document and "decision" not in answer.document
