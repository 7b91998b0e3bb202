"""Which webhooks an event goes to (contracts 2; 9.5, Filter).

The index looks up the few patterns that an event can match, and the values that it has in the fields that filters look
at, so that the webhooks that do not get it cost nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

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
_SCALARS: Final = frozenset({str, bool, int, float, type(None)})
_ABSENT: Final = object()
# From the filter down: ``data`` and keys, or one of the two that are looked for in more than one place.
_Path = tuple[str, ...]
_TENANT: Final[_Path] = ("tenant_id",)
_DATASET: Final[_Path] = ("dataset_id",)
_Condition = tuple[_Path, Collection[_Typed]]
_FEW: Final = 3


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


class _Fields(NamedTuple):
    """What filters look at in one event."""

    data: Mapping[str, Any]
    extensions: Mapping[str, str | bool | int]

    @classmethod
    def of(cls, event: MatchableEvent) -> _Fields:
        data = event.data
        # A dict is what nearly all data is; asking the abstract class takes ten times as long.
        return cls(data if data.__class__ is dict or isinstance(data, Mapping) else _NO_DATA, event.extensions)

    def at(self, path: _Path) -> _Typed:
        """The value that a filter's path means."""
        data = self.data
        if path is _TENANT:
            tenant = self.extensions.get("tenantid")
            return _typed(data.get("tenant_id") if tenant is None else tenant)
        if path is _DATASET:
            dataset = data.get("dataset_id")
            return _typed(data.get("resource_id") if dataset is None else dataset)
        return _typed(_field(data, path))


def _conditions(filter_: WebhookFilter | None) -> tuple[_Condition, ...]:
    """A filter made ready for many events: what must hold, in the order in which a mismatch is named."""
    if filter_ is None:
        return ()
    asked: list[tuple[_Path, Iterable[_Scalar]]] = [(_TENANT, filter_.tenant_id), (_DATASET, filter_.dataset_id)]
    asked += [(("data", *path.split(".")), values) for path, values in filter_.data.items()]
    return tuple((path, _collected(values)) for path, values in asked if values)


def _collected(values: Iterable[_Scalar]) -> Collection[_Typed]:
    """The values, each once: most filters have one or two, and there may be ten thousand filters."""
    found = tuple(dict.fromkeys(map(_typed, values)))
    return found if len(found) <= _FEW else frozenset(found)


class _Asking:
    """The webhooks that ask for one pattern.

    Those with a filter lie under one condition of it each, by the values that it takes: an event looks up its own value
    and meets the few whose condition holds, not all of them. The condition with the fewest others under its values is
    chosen, so that a tenant that all of them share does not bring them together again.
    """

    __slots__ = ("by_path", "unfiltered")

    def __init__(self) -> None:
        self.unfiltered: set[str] = set()
        # By path and value: the webhooks, and what else they ask.
        self.by_path: dict[_Path, dict[_Typed, dict[str, tuple[_Condition, ...]]]] = {}

    def add(self, webhook_id: str, conditions: tuple[_Condition, ...]) -> _Condition | None:
        """Add one; the condition that it lies under, for `remove`."""
        if not conditions:
            self.unfiltered.add(webhook_id)
            return None
        chosen = min(conditions, key=self._cost)
        path, values = chosen
        others = tuple(one for one in conditions if one is not chosen)
        by_value = self.by_path.setdefault(path, {})
        for value in values:
            by_value.setdefault(value, {})[webhook_id] = others
        return chosen

    def remove(self, webhook_id: str, chosen: _Condition | None) -> bool:
        """Remove one; whether none is left."""
        if chosen is None:
            self.unfiltered.discard(webhook_id)
        else:
            path, values = chosen
            by_value = self.by_path[path]
            for value in values:
                del by_value[value][webhook_id]
                if not by_value[value]:
                    del by_value[value]
            if not by_value:
                del self.by_path[path]
        return not self.unfiltered and not self.by_path

    def match(self, fields: _Fields, into: set[str]) -> None:
        """Add those whose filter lets the event through."""
        for path, by_value in self.by_path.items():
            found = by_value.get(fields.at(path))
            if found is not None:
                into.update(id_ for id_, others in found.items() if not others or _mismatch(others, fields) is None)

    def _cost(self, condition: _Condition) -> tuple[int, bool, int]:
        path, values = condition
        by_value = self.by_path.get(path)
        # A field that no other filter looks at is one more to read of every event.
        others = 1 if by_value is None else sum(len(by_value[value]) for value in values if value in by_value)
        return others, path is _TENANT, len(values)


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


_NO_DATA: Final[Mapping[str, Any]] = {}


class _Indexed(NamedTuple):
    """A webhook: its patterns, each with the condition that it lies under there, and all of its conditions."""

    places: tuple[tuple[str, _Condition | None], ...]
    conditions: tuple[_Condition, ...]


class _Asked(NamedTuple):
    """Who asks for events of one type: those without a filter, in the order of the ids, and where the others are."""

    unfiltered: Sequence[str]
    filtered: tuple[_Asking, ...]


_NOBODY: Final = _Asked([], ())


class MatchIndex:
    """All webhooks, by what they ask for.

    A webhook that is disabled belongs in here, too: its owner notes what it missed.
    """

    __slots__ = ("_asked", "_by_pattern", "_webhooks")

    def __init__(self) -> None:
        self._by_pattern: dict[str, _Asking] = {}
        # Made of `_by_pattern` when an event of the type comes: there are many events to a change.
        self._asked: dict[str, _Asked] = {}
        self._webhooks: dict[str, _Indexed] = {}

    def set(self, webhook_id: str, patterns: Iterable[str], filter_: WebhookFilter | None = None) -> None:
        """Add a webhook, or replace what it asks for.

        Args:
            webhook_id: the webhook.
            patterns: canonical ones (``patterns.canonical_patterns``).
            filter_: None for every event of these types.
        """
        self.remove(webhook_id)
        conditions = _conditions(filter_)
        places = tuple(
            (pattern, self._by_pattern.setdefault(pattern, _Asking()).add(webhook_id, conditions))
            for pattern in dict.fromkeys(patterns)
        )
        self._webhooks[webhook_id] = _Indexed(places, conditions)

    def remove(self, webhook_id: str) -> None:
        """Forget a webhook; nothing happens if it is not there."""
        self._asked.clear()
        found = self._webhooks.pop(webhook_id, None)
        for pattern, chosen in () if found is None else found.places:
            if self._by_pattern[pattern].remove(webhook_id, chosen):
                del self._by_pattern[pattern]

    def match(self, event: MatchableEvent) -> Sequence[str]:
        """The ids of the webhooks that get the event, each once, in the order of the ids.

        The cost grows with the webhooks that get it, and with the different fields that filters look at; neither those
        for other types nor those whose filter wants another value cost anything.
        """
        if event.type not in _OPERATOR_TYPES:
            return self._match(event)
        spoken_of = _webhook_spoken_of(event)
        if event.type == _PING:
            return [spoken_of] if spoken_of in self._webhooks else []
        if _is_echo(event):
            return []
        return [webhook_id for webhook_id in self._match(event) if webhook_id != spoken_of]

    def _match(self, event: MatchableEvent) -> Sequence[str]:
        """Those whose patterns and filter the event matches."""
        asked = self._asked.get(event.type)
        if asked is None:
            asked = self._who_asks_for(event.type)
        if not asked.filtered:
            return asked.unfiltered
        fields, matched = _Fields.of(event), set(asked.unfiltered)
        for asking in asked.filtered:
            asking.match(fields, matched)
        return sorted(matched)

    def _who_asks_for(self, type_: str) -> _Asked:
        patterns = patterns_matching(type_)
        if not patterns:
            # Not remembered: there is no end of types that nobody can ask for.
            return _NOBODY
        found = [self._by_pattern[pattern] for pattern in patterns if pattern in self._by_pattern]
        unfiltered = sorted(set().union(*[asking.unfiltered for asking in found]))
        asked = _Asked(unfiltered, tuple(asking for asking in found if asking.by_path))
        self._asked[type_] = asked
        return asked

    def explain(self, webhook_id: str, event: MatchableEvent) -> MatchResult:
        """Whether this webhook gets the event, and by which pattern or why not.

        Raises:
            NotFound: the index does not have the webhook.
        """
        found = self._webhooks.get(webhook_id)
        if found is None:
            raise NotFound(f"there is no webhook {webhook_id}")
        spoken_of = _webhook_spoken_of(event)
        if event.type == _PING:
            return (
                MatchResult(matched=True) if webhook_id == spoken_of else MatchResult(matched=False, why_not="pattern")
            )
        own = {pattern for pattern, _ in found.places}
        pattern = next((one for one in patterns_matching(event.type) if one in own), None)
        if pattern is None or webhook_id == spoken_of or _is_echo(event):
            return MatchResult(matched=False, why_not="pattern")
        mismatch = _mismatch(found.conditions, _Fields.of(event))
        if mismatch is not None:
            return MatchResult(matched=False, pattern=pattern, why_not=f"filter:{mismatch}")
        return MatchResult(matched=True, pattern=pattern)

    def __contains__(self, webhook_id: object) -> bool:
        return webhook_id in self._webhooks

    def __len__(self) -> int:
        return len(self._webhooks)


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
    kind = value.__class__
    return (kind, value if kind in _SCALARS else None)


def _mismatch(conditions: tuple[_Condition, ...], fields: _Fields) -> str | None:
    """The first that does not hold, as a path into the filter (``data.schema.name``); None if all hold."""
    for path, values in conditions:
        if fields.at(path) not in values:
            return ".".join(path)
    return None


def _field(data: Mapping[str, Any], path: _Path) -> Any:
    """The value that the keys behind ``data`` lead to, ``_ABSENT`` where one of them is missing."""
    value: Any = data
    for key in path[1:]:
        if (value.__class__ is not dict and not isinstance(value, Mapping)) or key not in value:
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
    if not all(value.__class__ in _SCALARS for value in values):
        raise InvalidFilter("must hold strings, numbers, booleans or null only", field=place)
    return tuple(values)
