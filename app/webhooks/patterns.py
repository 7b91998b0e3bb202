"""What a webhook may ask for, and what an event answers to (contracts 2, Webhook; 1.2, Our own types).

A pattern is stored in one canonical form: the full type string of one type, ``dataset.*`` for a family, ``*`` for all
types of the vault. What the system says about itself (``webhook.failing``, ``stream.gap``) is never part of ``*``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from app.events import KNOWN_TYPES, OperatorEventType, VaultEventType
from app.webhooks.errors import InvalidPattern, pointer

if TYPE_CHECKING:
    from collections.abc import Sequence

ALL_VAULT_TYPES: Final = "*"
MAX_PATTERNS: Final = 50
_NAMESPACE: Final = "llm.data-vault."
_VAULT_TYPES: Final = frozenset(map(str, VaultEventType))
# A ping has its addressee in it and asks no pattern.
_SUBSCRIBABLE: Final = frozenset(map(str, (*VaultEventType, *OperatorEventType))) - {
    str(OperatorEventType.WEBHOOK_PING)
}


def _family(type_: str) -> str:
    return type_.removeprefix(_NAMESPACE).partition(".")[0] + ".*"


_FAMILIES: Final = frozenset(map(_family, _SUBSCRIBABLE))


def canonical_pattern(pattern: str, *, field: str = InvalidPattern.default_field) -> str:
    """The stored form of a pattern.

    Args:
        pattern: a full type string, its short form (``dataset.created``), a family (``dataset.*``, also with the
            full prefix), or ``*``.
        field: JSON pointer for the error.

    Raises:
        InvalidPattern: no event that is delivered can match it.
    """
    if pattern == ALL_VAULT_TYPES:
        return pattern
    short = pattern.removeprefix(_NAMESPACE)
    if short in _FAMILIES:
        return short
    full = _NAMESPACE + short
    if full in _SUBSCRIBABLE:
        return full
    if full in KNOWN_TYPES:
        raise InvalidPattern("events of this type are not delivered to patterns", field=field)
    raise InvalidPattern(
        "unknown event type: write one such as dataset.created, a family such as dataset.*, or *", field=field
    )


def canonical_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    """The stored form of the ``events`` of a webhook: canonical, each once, in the order given.

    Raises:
        InvalidPattern: none, more than 50, or one that can never match; ``field`` names its place.
    """
    if not 1 <= len(patterns) <= MAX_PATTERNS:
        raise InvalidPattern(f"must have 1 to {MAX_PATTERNS} patterns; * stands for all types of the vault")
    places = enumerate(patterns)
    return tuple(dict.fromkeys(canonical_pattern(one, field=pointer("events", place)) for place, one in places))


@lru_cache(maxsize=128)
def patterns_matching(type_: str) -> tuple[str, ...]:
    """The canonical patterns that an event of this type matches, the narrowest first.

    Empty for what is delivered to no pattern: pings, actions of admins, handed-in audit events, unknown types.
    """
    if type_ not in _SUBSCRIBABLE:
        return ()
    own = (type_, _family(type_))
    return (*own, ALL_VAULT_TYPES) if type_ in _VAULT_TYPES else own
