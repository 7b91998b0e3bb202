"""A decision on its way from the owner of its principal to the worker that was asked, and to whoever asked.

The answer says of itself all that is kept of it but one thing: when its request to the engine began, by which the
invalidations are judged. That is in a header, as the answer is the caller's, too.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec

from app.engine import Revoked
from app.events import JsonRefused, canonical_json, format_time, loads_strict, parse_time_ms
from app.integrations.policy import Decision, Obligation, OwnersAnswer, Place, PolicyUnavailable, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.engine import Ownership
    from app.integrations.policy import Answered, Question
    from app.web.forward import Forwarder, OwnersReply
    from tables.decisions import DecisionReaders

__all__ = ["BEGAN_HEADER", "UNAVAILABLE", "OwnedDecisions", "read_answer", "show_authzen", "show_decision"]

BEGAN_HEADER: Final = "Vault-Began-At"
"""Milliseconds since 1970, by the clock of the worker that asked the engine."""
UNAVAILABLE: Final = "policy_unavailable"
ROW_S: Final = 1.0
"""A number whose outputs Kafka does not take runs no jobs meanwhile; the engine is quicker than waiting for it."""
MAX_ANSWER_BYTES: Final = 2 * 1024 * 1024
_LATEST_MS: Final = 253_402_300_799_999


def show_decision(answered: Answered) -> dict[str, Any]:
    """The answer in the vault dialect (contracts 9.5)."""
    decision = answered.decision
    verdict = decision.verdict
    # What must not be kept is over at once.
    expires_ms = decision.decided_ms if decision.expires_ms is None else decision.expires_ms
    return {
        "decision_id": answered.decision_id,
        "allowed": verdict.allowed,
        "reason": verdict.reason,
        "matched_policies": verdict.matched_policies,
        "obligations": [msgspec.structs.asdict(obligation) for obligation in verdict.obligations],
        "source": answered.source,
        "decided_at": format_time(decision.decided_ms),
        "expires_at": format_time(expires_ms),
    }


def show_authzen(answered: Answered) -> dict[str, Any]:
    """The same in AuthZEN; what else the engine said of itself is beside it."""
    shown = show_decision(answered)
    allowed = shown.pop("allowed")
    return {"decision": allowed, "context": {**answered.decision.verdict.extra, **shown}}


class _Shown(msgspec.Struct, kw_only=True):
    decision_id: str
    allowed: bool
    reason: str
    matched_policies: tuple[str, ...]
    obligations: tuple[Obligation, ...]
    source: str
    decided_at: str
    expires_at: str


_KNOWN: Final = frozenset(_Shown.__struct_fields__)


def read_answer(question: Question, reply: OwnersReply) -> OwnersAnswer:
    """What an owner answered.

    Raises:
        ValueError: It is no answer to the question.
    """
    if reply.status != HTTPStatus.OK or len(reply.body) > MAX_ANSWER_BYTES:
        raise ValueError("no answer")
    tree, extra = loads_strict(reply.body), {}
    if question.authzen:
        if not isinstance(tree, dict) or not isinstance(context := tree.get("context"), dict):
            raise ValueError("no answer")
        extra = {name: value for name, value in context.items() if name not in _KNOWN}
        tree = {**context, "allowed": tree.get("decision")}
    try:
        shown = msgspec.convert(tree, _Shown, strict=True)
    except msgspec.ValidationError as error:
        raise ValueError("no answer") from error
    if shown.source not in ("cache", "engine"):
        raise ValueError("an unknown source")
    decided_ms, expires_ms = parse_time_ms(shown.decided_at), parse_time_ms(shown.expires_at)
    decision = Decision(
        principal_id=question.principal_id,
        action=question.action,
        resource_id=question.resource_id,
        context_hash=question.context_hash,
        key=question.key,
        verdict=Verdict(
            allowed=shown.allowed,
            reason=shown.reason,
            matched_policies=shown.matched_policies,
            obligations=shown.obligations,
            extra=extra,
        ),
        began_ms=_began_ms(reply.headers),
        decided_ms=decided_ms,
        expires_ms=expires_ms if expires_ms > decided_ms else None,
    )
    return OwnersAnswer(decision, shown.decision_id, shown.source)


def _began_ms(headers: Mapping[str, str]) -> int:
    text = headers.get(BEGAN_HEADER, "")
    if not (text.isascii() and text.isdigit() and int(text) <= _LATEST_MS):
        raise ValueError(f"no {BEGAN_HEADER}")
    return int(text)


class OwnedDecisions:
    """The decisions that workers keep for each other: `Shared` of the evaluator.

    Args:
        name: Of this worker.
    """

    def __init__(self, name: str, ownership: Ownership, readers: DecisionReaders, forwarder: Forwarder) -> None:
        self._name = name
        self._ownership = ownership
        self._readers = readers
        self._forwarder = forwarder

    def place(self, question: Question) -> Place:
        """See `Shared.place`."""
        number = self._number(question)
        if self._ownership.is_mine(number):
            return Place.HERE
        owner = self._ownership.owner(number)
        return Place.NOWHERE if owner is None or owner.name == self._name else Place.ELSEWHERE

    async def row(self, question: Question) -> Decision | None:
        """See `Shared.row`."""
        reader = self._readers.get(self._number(question))
        if reader is None:
            return None
        try:
            async with asyncio.timeout(ROW_S):
                return await reader.read(question.principal_id, question.key)
        except (Revoked, TimeoutError):
            return None

    async def ask_owner(self, question: Question, caller: Mapping[str, str]) -> OwnersAnswer | None:
        """See `Shared.ask_owner`."""
        owner = self._ownership.owner(self._number(question))
        if owner is None:
            return None
        path = "/access/v1/evaluation" if question.authzen else "/v1/policy/evaluate"
        body = canonical_json(dict(question.asked))
        reply = await self._forwarder.post(owner, path, body, caller, (BEGAN_HEADER,))
        if reply is None:
            return None
        if reply.status == HTTPStatus.SERVICE_UNAVAILABLE and _code_of(reply) == UNAVAILABLE:
            raise PolicyUnavailable("the worker that owns the principal got no answer from it", recorded=True)
        try:
            return read_answer(question, reply)
        except ValueError:
            return None

    def _number(self, question: Question) -> int:
        return self._ownership.number_of(question.principal_id.encode())


def _code_of(reply: OwnersReply) -> Any:
    try:
        document = loads_strict(reply.body)
    except JsonRefused:
        return None
    return document.get("code") if isinstance(document, dict) else None
