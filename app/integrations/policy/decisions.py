"""A decision: what was asked, what the engine said, and how long that may be kept (contracts 3 and 9.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from app.events import derived_event, format_time, parse_time_ms
from app.integrations.policy.verdicts import Obligation, Verdict
from app.integrations.redaction import may_hold_secrets, redact, redact_text

if TYPE_CHECKING:
    from app.integrations.policy.questions import Question

__all__ = ["Decision", "Lifetimes", "UnreadableDecision", "decision_record", "error_record", "read_decision"]

_TYPE: Final = "decision.made"
_FULL_TYPE: Final = f"llm.vault-stream.{_TYPE}"


class UnreadableDecision(ValueError):
    """A record is no decision."""


class Decision(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One decision of the engine; also the row of the table.

    Attributes:
        key: Of its question.
        began_ms: When its request to the engine began, by the clock of the worker that asked.
        decided_ms: When the answer was there.
        expires_ms: It is kept before this time only; None: it must not be kept.
    """

    principal_id: str
    action: str
    resource_id: str
    context_hash: str
    key: str
    verdict: Verdict
    began_ms: int
    decided_ms: int
    expires_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long decisions are kept.

    Attributes:
        allow_s: An allow.
        deny_s: A deny.
    """

    allow_s: float = 300.0
    deny_s: float = 30.0

    @property
    def longest_s(self) -> float:
        """The longer of the two."""
        return max(self.allow_s, self.deny_s)

    def of(self, verdict: Verdict) -> float:
        """How long this one is kept, in seconds from the begin of its request: the engine may say less, never more."""
        ours_s = self.allow_s if verdict.allowed else self.deny_s
        return ours_s if verdict.ttl_s is None else min(ours_s, verdict.ttl_s)

    def decided(self, question: Question, verdict: Verdict, began_ms: int, decided_ms: int) -> Decision:
        """The decision that a verdict is."""
        ttl_ms = int(self.of(verdict) * 1000)
        return Decision(
            principal_id=question.principal_id,
            action=question.action,
            resource_id=question.resource_id,
            context_hash=question.context_hash,
            key=question.key,
            verdict=verdict,
            began_ms=began_ms,
            decided_ms=decided_ms,
            expires_ms=began_ms + ttl_ms if ttl_ms > 0 else None,
        )


def decision_record(decision: Decision, *, id_: str, source: str, from_: str, at_ms: int) -> bytes:
    """The record of `policy.decisions` that says that somebody was given this decision.

    What the engine told is redacted as the audit trail is. It says until when it is kept, and so makes a row, only if
    it has all that binds who is given it: what the vault dialect has no name for is left out, and so are secrets in
    obligations.

    Args:
        source: Of the event.
        from_: `engine` if it was asked for this, else `cache`.
        at_ms: When it was given.
    """
    verdict = decision.verdict
    reason, obligations = verdict.reason, [msgspec.structs.asdict(obligation) for obligation in verdict.obligations]
    is_whole = not verdict.extra
    if may_hold_secrets([reason, obligations]):
        reason, shown = redact_text(reason), redact(obligations)
        is_whole = is_whole and shown == obligations
        obligations = shown
    data: dict[str, Any] = {
        "principal_id": decision.principal_id,
        "action": decision.action,
        "resource_id": decision.resource_id,
        "context_hash": decision.context_hash,
        "cache_key": decision.key,
        "allowed": verdict.allowed,
        "reason": reason,
        "matched_policies": verdict.matched_policies,
        "obligations": obligations,
        "source": from_,
        "began_at": format_time(decision.began_ms),
    }
    if decision.expires_ms is not None and is_whole:
        data["expires_at"] = format_time(decision.expires_ms)
    return _event(id_, source, decision.principal_id, at_ms, data)


def error_record(question: Question, *, id_: str, source: str, why: str, began_ms: int, at_ms: int) -> bytes:
    """The record of a question that got no decision."""
    data = {
        "principal_id": question.principal_id,
        "action": question.action,
        "resource_id": question.resource_id,
        "context_hash": question.context_hash,
        "cache_key": question.key,
        "allowed": False,
        "reason": why,
        "matched_policies": [],
        "obligations": [],
        "source": "error",
        "began_at": format_time(began_ms),
    }
    return _event(id_, source, question.principal_id, at_ms, data)


def _event(id_: str, source: str, principal_id: str, at_ms: int, data: dict[str, Any]) -> bytes:
    return derived_event(_TYPE, id_=id_, source=source, subject=principal_id, time=format_time(at_ms), data=data)


class _Data(msgspec.Struct, kw_only=True):
    principal_id: str
    action: str
    resource_id: str
    context_hash: str
    cache_key: str
    allowed: bool
    reason: str
    matched_policies: tuple[str, ...]
    obligations: tuple[Obligation, ...]
    source: str
    began_at: str
    expires_at: str | None = None


class _Record(msgspec.Struct, kw_only=True):
    type: str
    time: str
    data: _Data


_decode: Final = msgspec.json.Decoder(_Record, strict=True).decode


def read_decision(value: bytes | None) -> Decision | None:
    """The decision in a record that may be kept; None: that record makes no row.

    Raises:
        UnreadableDecision: The value is no record of a decision.
    """
    try:
        record = _decode(value or b"")
        if record.type != _FULL_TYPE:
            raise UnreadableDecision(f"type is not {_FULL_TYPE}")
        data = record.data
        if data.source != "engine" or data.expires_at is None:
            return None
        return Decision(
            principal_id=data.principal_id,
            action=data.action,
            resource_id=data.resource_id,
            context_hash=data.context_hash,
            key=data.cache_key,
            verdict=Verdict(
                allowed=data.allowed,
                reason=data.reason,
                matched_policies=data.matched_policies,
                obligations=data.obligations,
            ),
            began_ms=parse_time_ms(data.began_at),
            decided_ms=parse_time_ms(record.time),
            expires_ms=parse_time_ms(data.expires_at),
        )
    except msgspec.ValidationError as error:
        raise UnreadableDecision(str(error)) from None
    except msgspec.DecodeError:
        raise UnreadableDecision("not JSON") from None
    except ValueError as error:
        raise UnreadableDecision(str(error)) from None
