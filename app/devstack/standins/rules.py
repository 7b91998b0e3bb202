"""The rules of the policy engine's stand-in."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class Rule:
    """What is answered to some questions; the first rule that fits is the one.

    Attributes:
        allowed: The decision.
        principal_id: With `*` for any text; action and resource_id likewise.
        context: Fields that the question's context must have, with just these values.
        ttl_s: How long the answer may be kept, if it says so.
    """

    allowed: bool
    principal_id: str = "*"
    action: str = "*"
    resource_id: str = "*"
    context: dict[str, Any] | None = None
    reason: str = "a rule says so"
    matched_policies: tuple[str, ...] = ()
    obligations: tuple[dict[str, Any], ...] = ()
    ttl_s: float | None = None

    def fits(self, principal_id: str, action: str, resource_id: str, context: Mapping[str, Any]) -> bool:
        """Whether it answers this question."""
        pairs = ((principal_id, self.principal_id), (action, self.action), (resource_id, self.resource_id))
        wanted = self.context or {}
        return all(fnmatchcase(value, pattern) for value, pattern in pairs) and all(
            name in context and context[name] == value for name, value in wanted.items()
        )

    def answer(self) -> dict[str, Any]:
        """In the vault's dialect."""
        answer: dict[str, Any] = {
            "allowed": self.allowed,
            "reason": self.reason,
            "matched_policies": list(self.matched_policies),
            "obligations": list(self.obligations),
        }
        return answer if self.ttl_s is None else answer | {"ttl_s": self.ttl_s}


DEFAULT = (
    Rule(True, action="read", reason="reading is open", matched_policies=("pol-open-reading",)),
    Rule(True, principal_id="admin*", reason="an admin may", matched_policies=("pol-admins",)),
    Rule(False, reason="only an admin may do this"),
)
"""Everybody may read; only principals that begin with `admin` may do anything else."""


def rules_in(body: bytes) -> list[Rule]:
    """The rules in a JSON list.

    Raises:
        ValueError: It is none, or has a field that no rule has.
    """
    given = json.loads(body)
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise ValueError("expected a JSON list of rules")
    if unknown := {name for one in given for name in one} - set(Rule.__slots__):
        raise ValueError(f"no rule has {', '.join(sorted(unknown))}; it has some of: {', '.join(Rule.__slots__)}")
    try:
        return msgspec.convert(given, list[Rule])
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def decide(rules: Iterable[Rule], *question: Any) -> Rule:
    """The first rule that fits; no rule, no access."""
    return next((rule for rule in rules if rule.fits(*question)), Rule(False, reason="no rule fits"))
