"""The policy engine, asked in the dialect that it speaks (contracts 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

from app.events import canonical_json
from app.integrations.policy.errors import PolicyUnavailable
from app.integrations.policy.questions import AUTHZEN_CONTEXT, MAX_NAME_CHARS, BadQuestion
from app.integrations.policy.verdicts import authzen_verdict, policies, vault_verdict
from app.integrations.upstream import UpstreamError

if TYPE_CHECKING:
    from app.integrations.policy.questions import Question
    from app.integrations.policy.verdicts import Verdict
    from app.integrations.upstream import Upstream

__all__ = ["CALLER_TRACE", "Dialect", "DialectName", "PolicyEngine"]

DialectName = Literal["vault", "authzen"]

MAX_CALLS: Final = 128
"""At once; a burst of questions that were never asked must not be as many connections."""
TURN_S: Final = 5.0

_ENTITY: Final = ("type", "id", "properties")
_ACTION: Final = ("name", "properties")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the engine is spoken to.

    Attributes:
        evaluate, evaluation: The path of each dialect.
        applicable: With `{resource}` in it.
        subject_type, resource_type: What AuthZEN calls a principal and a resource that were named in the vault dialect.
    """

    name: DialectName = "vault"
    evaluate: str = "/api/v1/evaluate/access"
    evaluation: str = "/access/v1/evaluation"
    applicable: str = "/api/v1/policies/applicable/{resource}"
    subject_type: str = "principal"
    resource_type: str = "resource"


CALLER_TRACE: Final[ContextVar[Mapping[str, str] | None]] = ContextVar("caller_trace", default=None)
"""The trace headers of whoever asks now. Where several wait for one call, it goes on with those of the first."""


class PolicyEngine:
    """Asks without a retry: whoever waits for a decision had better be told that there is none."""

    def __init__(self, upstream: Upstream, dialect: Dialect) -> None:
        self._upstream = upstream
        self._dialect = dialect
        self._turns = asyncio.Semaphore(MAX_CALLS)

    async def verdict(self, question: Question) -> Verdict:
        """What the engine says.

        Raises:
            PolicyUnavailable: Nothing that could be used.
        """
        dialect = self._dialect
        if dialect.name == "authzen":
            return authzen_verdict(await self._ask("POST", dialect.evaluation, self._in_authzen(question)))
        return vault_verdict(await self._ask("POST", dialect.evaluate, _in_vault(question)))

    async def applicable(self, resource_id: str) -> list[dict[str, Any]]:
        """The policies that apply to a resource, as the engine lists them.

        Raises:
            PolicyUnavailable: As above.
            BadQuestion: It is empty, too long, or would be another path.
        """
        if not 1 <= len(resource_id) <= MAX_NAME_CHARS or resource_id in {".", ".."}:
            raise BadQuestion("resource", f"the id of a resource, 1 to {MAX_NAME_CHARS} characters")
        path = self._dialect.applicable.replace("{resource}", quote(resource_id, safe=""))
        return policies(await self._ask("GET", path, None))

    async def _ask(self, method: str, path: str, document: Mapping[str, Any] | None) -> bytes:
        body = None if document is None else canonical_json(dict(document))
        try:
            async with asyncio.timeout(TURN_S):
                await self._turns.acquire()
        except TimeoutError:
            raise PolicyUnavailable("too many questions wait for the policy engine") from None
        try:
            answer = await self._upstream.send(method, path, body, headers=CALLER_TRACE.get())
            if answer.status != HTTPStatus.OK:
                raise PolicyUnavailable(f"the policy engine answered {answer.status}, which is no decision")
            return answer.json_bytes()
        except UpstreamError as error:
            raise PolicyUnavailable(f"the policy engine: {error}") from None
        finally:
            self._turns.release()

    def _in_authzen(self, question: Question) -> dict[str, Any]:
        if question.authzen:
            asked = question.asked
            told: dict[str, Any] = {
                "subject": _chosen(asked["subject"], _ENTITY),
                "action": _chosen(asked["action"], _ACTION),
                "resource": _chosen(asked["resource"], _ENTITY),
            }
        else:
            subject = {"type": self._dialect.subject_type, "id": question.principal_id}
            if (properties := question.context.get("subject_properties")) is not None:
                subject["properties"] = properties
            told = {
                "subject": subject,
                "action": {"name": question.action},
                "resource": {"type": self._dialect.resource_type, "id": question.resource_id},
            }
        if question.context:
            told["context"] = question.context
        return told


def _in_vault(question: Question) -> dict[str, Any]:
    context = dict(question.context)
    if question.authzen:
        asked = question.asked
        context[AUTHZEN_CONTEXT] = {
            "subject": _chosen(asked["subject"], ("type", "properties")),
            "action": _chosen(asked["action"], ("properties",)),
            "resource": _chosen(asked["resource"], ("type", "properties")),
        }
    return {
        "principal_id": question.principal_id,
        "action": question.action,
        "resource_id": question.resource_id,
        "context": context,
    }


def _chosen(found: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: found[name] for name in names if found.get(name) is not None}
