"""What the policy engine answers, in both dialects: read so strictly that nothing else can pass for an allow."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from app.events import JsonRefused, loads_strict
from app.integrations.policy.errors import PolicyUnavailable

__all__ = ["MAX_VERDICT_BYTES", "Obligation", "Verdict", "authzen_verdict", "policies", "vault_verdict"]

MAX_VERDICT_BYTES: Final = 256 * 1024
"""What it carries must fit into a record and a row."""

_KNOWN: Final = frozenset({"reason", "matched_policies", "obligations", "ttl_s"})


class Obligation(msgspec.Struct, frozen=True, kw_only=True):
    """What must be done where the access is used."""

    action: str
    parameters: dict[str, Any]


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the engine said.

    Attributes:
        ttl_s: How long it may be kept at most, as the engine said; None: it said nothing.
        extra: Of an AuthZEN answer's context, what has no place in the others.
    """

    allowed: bool
    reason: str = ""
    matched_policies: tuple[str, ...] = ()
    obligations: tuple[Obligation, ...] = ()
    ttl_s: float | None = None
    extra: dict[str, Any] = {}  # msgspec copies it


_Ttl = Annotated[float, msgspec.Meta(ge=0)] | None


class _VaultAnswer(msgspec.Struct, kw_only=True):
    allowed: bool
    reason: str
    matched_policies: tuple[str, ...]
    obligations: tuple[Obligation, ...]
    ttl_s: _Ttl = None


class _AuthzenAnswer(msgspec.Struct, kw_only=True):
    decision: bool
    context: dict[str, Any] | None = None


class _AuthzenContext(msgspec.Struct, kw_only=True):
    reason: str | None = None
    matched_policies: tuple[str, ...] | None = None
    obligations: tuple[Obligation, ...] | None = None
    ttl_s: _Ttl = None


def vault_verdict(body: bytes) -> Verdict:
    """Read `{allowed, reason, matched_policies[], obligations[{action, parameters}], ttl_s?}`.

    Raises:
        PolicyUnavailable: It is anything else.
    """
    found = _converted(_tree(body), _VaultAnswer)
    return Verdict(
        allowed=found.allowed,
        reason=found.reason,
        matched_policies=found.matched_policies,
        obligations=found.obligations,
        ttl_s=found.ttl_s,
    )


def authzen_verdict(body: bytes) -> Verdict:
    """Read `{decision, context?}`.

    A context with an `error` in it says that there was no decision, whatever stands beside it.

    Raises:
        PolicyUnavailable: It is anything else.
    """
    found = _converted(_tree(body), _AuthzenAnswer)
    context = found.context or {}
    if context.get("error") is not None:
        raise PolicyUnavailable("the policy engine could not decide")
    told = _converted(context, _AuthzenContext)
    return Verdict(
        allowed=found.decision,
        reason=told.reason if told.reason is not None else _reason(context),
        matched_policies=told.matched_policies or (),
        obligations=told.obligations or (),
        ttl_s=told.ttl_s,
        extra={name: value for name, value in context.items() if name not in _KNOWN},
    )


def policies(body: bytes) -> list[dict[str, Any]]:
    """Read the list of policies that apply to a resource.

    Raises:
        PolicyUnavailable: It is anything else.
    """
    found: list[dict[str, Any]] = _converted(_tree(body), list[dict[str, Any]])
    return found


def _reason(context: dict[str, Any]) -> str:
    """AuthZEN's own examples give a reason for users or for admins, by language."""
    for name in ("reason_user", "reason_admin"):
        given = context.get(name)
        for text in given.values() if isinstance(given, dict) else (given,):
            if isinstance(text, str):
                return text
    return ""


def _tree(body: bytes) -> Any:
    if len(body) > MAX_VERDICT_BYTES:
        raise PolicyUnavailable("the policy engine's answer is too large")
    try:
        return loads_strict(body)
    except JsonRefused:
        raise PolicyUnavailable("the policy engine's answer is not JSON") from None


def _converted(tree: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(tree, kind, strict=True)
    except msgspec.ValidationError as error:
        # It names types and places, never values.
        raise PolicyUnavailable(f"the policy engine's answer is malformed: {error}") from None
