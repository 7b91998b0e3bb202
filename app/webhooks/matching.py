"""Which webhooks an event goes to (contracts 2; 9.5, Filter).

The index looks up the few patterns that an event can match, so that webhooks for other types cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from app.events import OperatorEventType
from app.webhooks.errors import InvalidFilter, NotFound, pointer
from app.webhooks.model import WebhookFilter
from app.webhooks.patterns import patterns_matching

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_FILTER_PATHS: Final = 20
MAX_FILTER_VALUES: Final = 100
MAX_PATH_CHARS: Final = 256
# An extension attribute of our events about the health of a webhook: this one goes to no other webhook.
ECHO: Final = "echo"
_PING: Final = str(OperatorEventType.WEBHOOK_PING)
_OPERATOR_TYPES: Final = frozenset(map(str, OperatorEventType))


class MatchableEvent(Protocol):
    """What matching reads of an event."""

    @property
    def type(self) -> str:
        """The full type string."""

    @property
    def data(self) -> Any:
        """The decoded JSON value; anything else has no fields."""

    @property
    def extensions(self) -> Mapping[str, str | bool | int]:
        """Extension attributes by name."""


# A value beside its type, because Python holds 1, 1.0 and True for equal.
_Scalar = str | bool | int | float | None
_Typed = tuple[type, _Scalar]
_SCALARS: Final = (str, bool, int, float, type(None))
_ABSENT: Final = object()


def parse_filter(raw: Mapping[str, Any]) -> WebhookFilter:
    """Read the JSON form, as in ``{"tenant_id": ["t1"], "data": {"schema.name": ["x"]}}``.

    Raises:
        InvalidFilter: an unknown key, something that is not a list of scalars, more than 20 paths, no value or more
            than 100 of a path; ``field`` names the place.
    """
    for key in raw:
        if key not in {"tenant_id", "dataset_id", "data"}:
            raise InvalidFilter("unknown: use tenant_id, dataset_id, data", field=pointer("filter", key))
    data = raw.get("data", {})
    if not isinstance(data, Mapping):
        raise InvalidFilter("must be an object of dotted paths", field=pointer("filter", "data"))
    if len(data) > MAX_FILTER_PATHS:
        raise InvalidFilter(f"must have at most {MAX_FILTER_PATHS} paths", field=pointer("filter", "data"))
    return WebhookFilter(
        tenant_id=_ids(raw, "tenant_id"),
        dataset_id=_ids(raw, "dataset_id"),
        data={_path(path): _values(values, pointer("filter", "data", path)) for path, values in data.items()},
    )


@dataclass(frozen=True, slots=True)
class _Condition:
    """A filter made ready for many events. Empty parts ask for nothing."""

    tenants: frozenset[_Typed]
    datasets: frozenset[_Typed]
    fields: tuple[tuple[tuple[str, ...], frozenset[_Typed]], ...]

    @classmethod
    def of(cls, filter_: WebhookFilter) -> _Condition:
        return cls(
            tenants=frozenset(map(_typed, filter_.tenant_id)),
            datasets=frozenset(map(_typed, filter_.dataset_id)),
            fields=tuple(
                (tuple(path.split(".")), frozenset(map(_typed, values))) for path, values in filter_.data.items()
            ),
        )

    def first_mismatch(self, event: MatchableEvent) -> str | None:
        """The first part that does not hold, as a path into the filter (``data.schema.name``); None if all hold."""
        data = event.data if isinstance(event.data, Mapping) else {}
        if self.tenants:
            tenant = event.extensions.get("tenantid")
            if _typed(data.get("tenant_id") if tenant is None else tenant) not in self.tenants:
                return "tenant_id"
        if self.datasets:
            dataset = data.get("dataset_id")
            if _typed(data.get("resource_id") if dataset is None else dataset) not in self.datasets:
                return "dataset_id"
        for keys, values in self.fields:
            if _typed(_field(data, keys)) not in values:
                return ".".join(("data", *keys))
        return None


@dataclass(frozen=True, slots=True)
class MatchResult:
    """Whether a webhook gets an event, and why.

    Attributes:
        matched: whether it does.
        pattern: the narrowest of its patterns that the event matches; None where none does or is asked.
        why_not: ``pattern``, or ``filter:`` and the path of the first condition that does not hold.
    """

    matched: bool
    pattern: str | None = None
    why_not: str | None = None


class MatchIndex:
    """All webhooks, by what they ask for.

    A webhook that is disabled belongs in here, too: its owner notes what it missed.
    """

    __slots__ = ("_by_pattern", "_patterns")

    def __init__(self) -> None:
        self._by_pattern: dict[str, dict[str, _Condition | None]] = {}
        self._patterns: dict[str, tuple[str, ...]] = {}

    def set(self, webhook_id: str, patterns: Iterable[str], filter_: WebhookFilter | None = None) -> None:
        """Add a webhook, or replace what it asks for.

        Args:
            webhook_id: the webhook.
            patterns: canonical ones (``patterns.canonical_patterns``).
            filter_: None for every event of these types.
        """
        self.remove(webhook_id)
        self._patterns[webhook_id] = tuple(patterns)
        condition = None if filter_ is None else _Condition.of(filter_)
        for pattern in self._patterns[webhook_id]:
            self._by_pattern.setdefault(pattern, {})[webhook_id] = condition

    def remove(self, webhook_id: str) -> None:
        """Forget a webhook; nothing happens if it is not there."""
        for pattern in self._patterns.pop(webhook_id, ()):
            webhooks = self._by_pattern[pattern]
            webhooks.pop(webhook_id, None)
            if not webhooks:
                del self._by_pattern[pattern]

    def match(self, event: MatchableEvent) -> list[str]:
        """The ids of the webhooks that get the event, each once, in the order of the ids.

        The cost grows with the webhooks that ask for this type, not with all of them.
        """
        spoken_of = _webhook_spoken_of(event)
        if event.type == _PING:
            return [spoken_of] if spoken_of in self._patterns else []
        if _is_echo(event):
            return []
        matched = {
            webhook_id
            for pattern in patterns_matching(event.type)
            for webhook_id, condition in self._by_pattern.get(pattern, {}).items()
            if webhook_id != spoken_of and (condition is None or condition.first_mismatch(event) is None)
        }
        return sorted(matched)

    def explain(self, webhook_id: str, event: MatchableEvent) -> MatchResult:
        """Whether this webhook gets the event, and by which pattern or why not.

        Raises:
            NotFound: the index does not have the webhook.
        """
        own = self._patterns.get(webhook_id)
        if own is None:
            raise NotFound(f"there is no webhook {webhook_id}")
        spoken_of = _webhook_spoken_of(event)
        if event.type == _PING:
            return (
                MatchResult(matched=True) if webhook_id == spoken_of else MatchResult(matched=False, why_not="pattern")
            )
        pattern = next((one for one in patterns_matching(event.type) if one in own), None)
        if pattern is None or webhook_id == spoken_of or _is_echo(event):
            return MatchResult(matched=False, why_not="pattern")
        condition = self._by_pattern[pattern][webhook_id]
        mismatch = None if condition is None else condition.first_mismatch(event)
        if mismatch is not None:
            return MatchResult(matched=False, pattern=pattern, why_not=f"filter:{mismatch}")
        return MatchResult(matched=True, pattern=pattern)

    def __contains__(self, webhook_id: object) -> bool:
        return webhook_id in self._patterns

    def __len__(self) -> int:
        return len(self._patterns)


def _webhook_spoken_of(event: MatchableEvent) -> str | None:
    """The webhook that one of our own events is about; nothing of the vault is about a webhook."""
    if event.type not in _OPERATOR_TYPES or not isinstance(event.data, Mapping):
        return None
    webhook_id = event.data.get("webhook_id")
    return webhook_id if isinstance(webhook_id, str) else None


def _is_echo(event: MatchableEvent) -> bool:
    return event.type in _OPERATOR_TYPES and event.extensions.get(ECHO) is True


def _typed(value: Any) -> _Typed:
    # What is no scalar (a list, an object, an absent field) equals no value of a filter.
    return (type(value), value if isinstance(value, _SCALARS) else None)


def _field(data: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    """The value that the keys lead to, ``_ABSENT`` where one of them is missing."""
    value: Any = data
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            return _ABSENT
        value = value[key]
    return value


def _ids(raw: Mapping[str, Any], key: str) -> tuple[str, ...]:
    if key not in raw:
        return ()
    place = pointer("filter", key)
    values = _values(raw[key], place)
    if not all(isinstance(value, str) for value in values):
        raise InvalidFilter("must be a list of strings", field=place)
    return tuple(map(str, values))


def _path(path: str) -> str:
    if len(path) > MAX_PATH_CHARS or not all(path.split(".")):
        detail = f"must be keys joined by dots, at most {MAX_PATH_CHARS} characters"
        raise InvalidFilter(detail, field=pointer("filter", "data", path))
    return path


def _values(values: Any, place: str) -> tuple[_Scalar, ...]:
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= MAX_FILTER_VALUES:
        raise InvalidFilter(f"must be a list of 1 to {MAX_FILTER_VALUES} values", field=place)
    if not all(isinstance(value, _SCALARS) for value in values):
        raise InvalidFilter("must hold strings, numbers, booleans or null only", field=place)
    return tuple(values)
