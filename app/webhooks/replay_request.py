"""What a replay is asked for with: reading the request, refusing what it cannot mean (contracts 9.5, Replay)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec

from app.events import MOMENT_FORM, format_time, parse_moment_ms
from app.webhooks.errors import InvalidField, pointer
from app.webhooks.patterns import canonical_patterns

__all__ = [
    "DEFAULT_RATE_PER_S",
    "MAX_RATE_PER_S",
    "Only",
    "ReplayLimits",
    "ReplayRequest",
    "read_replay",
    "show_request",
]

DEFAULT_RATE_PER_S: Final = 1000.0
"""Replayed events queue before the live ones of the same number, so that not asking for a rate is not asking for all
that the broker takes."""
MIN_RATE_PER_S: Final = 0.001
MAX_RATE_PER_S: Final = 100_000.0
MAX_REQUEST_ID_CHARS: Final = 255
MAX_PARTITIONS: Final = 10_000

# One way to write a number, so that two names are two partitions.
_PARTITION: Final = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)
_STARTS: Final = ("since", "from_offset", "since_disabled")

TP = tuple[str, int]


class Only(StrEnum):
    """Which of the matching events, by what their rows say of them."""

    MISSED = "missed"
    FAILED = "failed"
    ALL = "all"


class ReplayRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A checked request; exactly one of the first three says where it begins.

    Attributes:
        from_offset: By `topic/partition`; no other partition is read.
        until_ms: Records of this time and later are left out.
        event_types: Canonical patterns; empty: all that the webhook asks for.
        only: None: what the beginning implies, `missed` for `since_disabled` and `all` for the others.
    """

    since_ms: int | None = None
    from_offset: dict[str, int] | None = None
    since_disabled: bool = False
    until_ms: int | None = None
    event_types: tuple[str, ...] = ()
    only: Only | None = None
    rate_per_s: float = DEFAULT_RATE_PER_S
    request_id: str

    @property
    def offsets(self) -> dict[TP, int]:
        """`from_offset` by topic and partition."""
        found = {}
        for place, offset in (self.from_offset or {}).items():
            topic, _, partition = place.rpartition("/")
            found[topic, int(partition)] = offset
        return found


@dataclass(frozen=True, slots=True)
class ReplayLimits:
    """What this deployment allows.

    Attributes:
        topics: What the router reads.
        history_ms: How long ended deliveries are remembered.
    """

    topics: Collection[str]
    history_ms: int


def read_replay(body: Any, limits: ReplayLimits, now_ms: int, new_request_id: Callable[[], str]) -> ReplayRequest:
    """Read the body of a request.

    Raises:
        InvalidField: `field` is a JSON pointer, and no value is shown.
    """
    if not isinstance(body, Mapping):
        raise InvalidField("must be an object", field="")
    unknown = sorted(set(body) - {*_STARTS, *_READERS})
    if unknown:
        raise InvalidField(f"unknown; one of {', '.join((*_STARTS, *_READERS))}", field=pointer(unknown[0]))
    # `"since_disabled": false` asks for nothing.
    starts = [name for name in _STARTS if name in body and body[name] is not False]
    if len(starts) != 1:
        field = pointer(starts[1]) if starts else ""
        raise InvalidField("give exactly one of since, from_offset and since_disabled: true", field=field)
    values = {_NAMES.get(name, name): read(body[name]) for name, read in _READERS.items() if name in body}
    values.setdefault("request_id", None)
    values["request_id"] = values["request_id"] or new_request_id()
    if starts == ["since"]:
        values["since_ms"] = _since(body["since"], values, limits, now_ms)
    elif starts == ["from_offset"]:
        values["from_offset"] = _from_offset(body["from_offset"], limits.topics)
    else:
        values["since_disabled"] = _true(body["since_disabled"])
    return ReplayRequest(**values)


def show_request(request: ReplayRequest) -> dict[str, Any]:
    """The request as the API shows it."""
    optional = {
        "since": _shown_time(request.since_ms),
        "from_offset": request.from_offset,
        "since_disabled": request.since_disabled or None,
        "until": _shown_time(request.until_ms),
        "event_types": list(request.event_types) or None,
        "only": None if request.only is None else request.only.value,
    }
    shown = {name: value for name, value in optional.items() if value is not None}
    return {**shown, "rate_per_s": request.rate_per_s, "request_id": request.request_id}


def _since(value: Any, values: Mapping[str, Any], limits: ReplayLimits, now_ms: int) -> int:
    since_ms = _time(value, "/since")
    until_ms = values.get("until_ms")
    if since_ms > now_ms:
        raise InvalidField("must be a time that has passed", field="/since")
    if until_ms is not None and until_ms <= since_ms:
        raise InvalidField("must be later than since", field="/until")
    if values.get("only") in {Only.MISSED, Only.FAILED} and since_ms < now_ms - limits.history_ms:
        raise InvalidField(
            f"asks for what is remembered for {limits.history_ms // 1000} s; take a later since, or leave only out",
            field="/only",
        )
    return since_ms


def _from_offset(value: Any, topics: Collection[str]) -> dict[str, int]:
    if not isinstance(value, Mapping) or not 1 <= len(value) <= MAX_PARTITIONS:
        raise InvalidField('must be an object such as {"vault.events/0": 42}', field="/from_offset")
    for place, offset in value.items():
        topic, _, partition = place.rpartition("/")
        if topic not in topics:
            raise InvalidField("must name a topic of vault events and a partition", field=pointer("from_offset", place))
        if _PARTITION.fullmatch(partition) is None:
            raise InvalidField("must end in /partition, such as /0", field=pointer("from_offset", place))
        if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset < 2**63:
            raise InvalidField("must be an offset, 0 or more", field=pointer("from_offset", place))
    return dict(value)


def _true(value: Any) -> bool:
    if value is not True:
        raise InvalidField("must be true", field="/since_disabled")
    return True


def _time(value: Any, field: str) -> int:
    try:
        return parse_moment_ms(value)
    except (TypeError, ValueError):
        raise InvalidField(f"must be {MOMENT_FORM}", field=field) from None


def _types(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidField("must be a list of types and patterns, such as dataset.*", field="/event_types")
    try:
        return canonical_patterns(value)
    except InvalidField as error:
        place = error.field.removeprefix("/events")
        raise InvalidField(error.detail, field=f"/event_types{place}") from None


def _only(value: Any) -> Only:
    if value not in tuple(Only):
        raise InvalidField(f"must be one of {', '.join(Only)}", field="/only")
    return Only(value)


def _rate(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not MIN_RATE_PER_S <= value <= MAX_RATE_PER_S:
        raise InvalidField(f"must be a number from {MIN_RATE_PER_S:g} to {MAX_RATE_PER_S:g}", field="/rate_per_s")
    return float(value)


def _request_id(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_REQUEST_ID_CHARS or not value.isascii():
        raise InvalidField(f"must be a text of 1 to {MAX_REQUEST_ID_CHARS} ASCII characters", field="/request_id")
    if not value.isprintable():
        raise InvalidField("must have no control characters", field="/request_id")
    return value


def _shown_time(at_ms: int | None) -> str | None:
    return None if at_ms is None else format_time(at_ms)


_NAMES: Final = {"until": "until_ms"}
_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "until": lambda value: _time(value, "/until"),
    "event_types": _types,
    "only": _only,
    "rate_per_s": _rate,
    "request_id": _request_id,
}
