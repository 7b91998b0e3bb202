"""May this principal do this: the question, in both dialects that it is asked in (contracts 3).

Both are read strictly, and what is read is the whole question: the key under which its answer is kept is a hash of all
of it, so that no two questions share an answer.

Source of the second dialect: https://openid.net/specs/authorization-api-1_0.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from app.events import canonical_json

__all__ = ["AUTHZEN_CONTEXT", "MAX_NAME_CHARS", "BadQuestion", "Question", "authzen_question", "vault_question"]

MAX_NAME_CHARS: Final = 1024
AUTHZEN_CONTEXT: Final = "authzen"
"""Where the vault dialect carries what only AuthZEN can say."""

_VAULT_FIELDS: Final = ("principal_id", "action", "resource_id", "context")


class BadQuestion(ValueError):
    """What was asked is no question.

    Attributes:
        field: A JSON pointer to what is wrong.
        told: What it must be.
        code: `missing`, `invalid`, `too_long`, `unknown` or `reserved`.
    """

    def __init__(self, field_: str, told: str, code: str = "invalid") -> None:
        super().__init__(f"{field_ or 'the question'}: {told}")
        self.field = field_
        self.told = told
        self.code = code


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One access request.

    Attributes:
        principal_id: Who; decides which worker owns the answer.
        action: Wants to do what.
        resource_id: With what.
        context: What else is known, as it was asked.
        asked: All of it, as it was asked: what is passed on, and what the key is a hash of.
        authzen: Whether it was asked in AuthZEN.
        key: Under which the answer is kept: 64 hex digits.
    """

    principal_id: str
    action: str
    resource_id: str
    context: Mapping[str, Any] = field(repr=False)
    asked: Mapping[str, Any] = field(repr=False)
    authzen: bool
    key: str

    @property
    def context_hash(self) -> str:
        """What the log says of the context in its place: 64 hex digits."""
        return sha256(canonical_json(dict(self.context))).hexdigest()


def vault_question(asked: Any) -> Question:
    """Read `{principal_id, action, resource_id, context?}`.

    Raises:
        BadQuestion: It is anything else.
    """
    if not isinstance(asked, dict):
        raise BadQuestion("", "an object")
    for name in asked:
        if name not in _VAULT_FIELDS:
            raise BadQuestion(f"/{_escaped(name)}", f"one of {', '.join(_VAULT_FIELDS)}", "unknown")
    principal_id, action, resource_id = (_name(asked, name, f"/{name}") for name in _VAULT_FIELDS[:3])
    context = _object(asked, "context", "/context") or {}
    if AUTHZEN_CONTEXT in context:
        raise BadQuestion(
            f"/context/{AUTHZEN_CONTEXT}", "absent: what a caller of AuthZEN said stands there", "reserved"
        )
    _object(context, "subject_properties", "/context/subject_properties")
    whole = {"principal_id": principal_id, "action": action, "resource_id": resource_id, "context": context}
    return Question(principal_id, action, resource_id, context, whole, authzen=False, key=_key(whole))


def authzen_question(asked: Any, where: str = "") -> Question:
    """Read an access evaluation request of AuthZEN 1.0; members that it does not name are passed over.

    Args:
        where: JSON pointer to it in a larger body.

    Raises:
        BadQuestion: It is none.
    """
    if not isinstance(asked, dict):
        raise BadQuestion(where, "an object")
    principal_id = _entity(asked, "subject", where)
    resource_id = _entity(asked, "resource", where)
    action = _object(asked, "action", f"{where}/action", required=True)
    name = _name(action or {}, "name", f"{where}/action/name")
    _object(action or {}, "properties", f"{where}/action/properties")
    context = _object(asked, "context", f"{where}/context") or {}
    if AUTHZEN_CONTEXT in context:
        # The vault dialect says there what the subject is: who could say it here, too, could be another.
        raise BadQuestion(f"{where}/context/{AUTHZEN_CONTEXT}", "absent: this name is taken", "reserved")
    return Question(principal_id, name, resource_id, context, asked, authzen=True, key=_key(asked))


def _entity(asked: Mapping[str, Any], name: str, where: str) -> str:
    found = _object(asked, name, f"{where}/{name}", required=True) or {}
    _name(found, "type", f"{where}/{name}/type")
    _object(found, "properties", f"{where}/{name}/properties")
    return _name(found, "id", f"{where}/{name}/id")


def _name(found: Mapping[str, Any], name: str, where: str) -> str:
    value = found.get(name)
    if value is None:
        raise BadQuestion(where, "is missing: a string", "missing")
    if not isinstance(value, str) or not value:
        raise BadQuestion(where, "a string that is not empty")
    if len(value) > MAX_NAME_CHARS:
        raise BadQuestion(where, f"at most {MAX_NAME_CHARS} characters", "too_long")
    return value


def _object(found: Mapping[str, Any], name: str, where: str, *, required: bool = False) -> dict[str, Any] | None:
    if name not in found:
        if required:
            raise BadQuestion(where, "is missing: an object", "missing")
        return None
    value = found[name]
    if not isinstance(value, dict):
        raise BadQuestion(where, "an object")
    return value


def _key(whole: Mapping[str, Any]) -> str:
    try:
        return sha256(canonical_json(dict(whole))).hexdigest()
    except (TypeError, ValueError) as error:
        raise BadQuestion("", f"JSON: {error}") from None


def _escaped(name: str) -> str:
    """A reference token of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
