"""From what a caller asks for to checked configuration, and from a row to what a caller is shown (contracts 9.5).

Bodies are read strictly: an unknown field is refused, and every refusal names its field.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from app.events import canonical_json, format_time
from app.webhooks.commands import WebhookPatch
from app.webhooks.credentials import MASK, masked
from app.webhooks.errors import (
    InvalidField,
    InvalidFilter,
    InvalidHeader,
    InvalidPattern,
    InvalidSchedule,
    InvalidSecret,
    InvalidUrl,
    pointer,
)
from app.webhooks.matching import parse_filter
from app.webhooks.model import Health, Ordering, Standing
from app.webhooks.patterns import canonical_patterns
from app.webhooks.schedule import RetrySchedule
from app.webhooks.secrets import Secret
from app.webhooks.sender import validate_headers

if TYPE_CHECKING:
    from app.webhooks.model import WebhookRow

__all__ = [
    "Limits",
    "Registration",
    "new_webhook_id",
    "read_changes",
    "read_registration",
    "show_webhook",
    "webhook_id_of",
]

MAX_DESCRIPTION_CHARS: Final = 1024
MIN_TIMEOUT_S: Final = 0.1
MAX_TIMEOUT_S: Final = 60.0
MAX_RATE_PER_S: Final = 10_000.0
_SIGNATURES: Final = ("v1", "v1a")
_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Registration:
    """What a create asks for, checked but for its target.

    Attributes:
        patch: The configuration; its headers may hold credentials.
        secret: Given by the caller; None: one is to be made.
    """

    patch: WebhookPatch = field(repr=False)
    secret: Secret | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What this deployment allows.

    Attributes:
        max_in_flight: The cap of one webhook.
        signing_key: Whether there is a key for `v1a`.
    """

    max_in_flight: int
    signing_key: bool


def webhook_id_of(random: bytes) -> str:
    """`wh_` and 26 lower-case base32 characters of 16 bytes (contracts 9.3)."""
    return "wh_" + base64.b32encode(random).decode().rstrip("=").lower()


def new_webhook_id(idempotency_key: str | None, actor: str, random_bytes: Callable[[int], bytes]) -> str:
    """A new id; a function of the caller and its idempotency key where one is given, so that a repeat is known."""
    if idempotency_key is None:
        return webhook_id_of(random_bytes(_ID_BYTES))
    named = f"{actor}\x00{idempotency_key}".encode()
    return webhook_id_of(hashlib.blake2b(named, digest_size=_ID_BYTES).digest())


def read_registration(body: Any, limits: Limits) -> Registration:
    """Read the body of a create. Whether its target may be one is for `TargetGuard.check` to say.

    Raises:
        InvalidField: One of its subclasses; `field` is a JSON pointer, and no value is shown.
    """
    if not isinstance(body, Mapping):
        raise InvalidField("must be an object", field="")
    unknown = sorted(set(body) - set(_READERS) - {"secret"})
    if unknown:
        raise InvalidField(f"unknown; one of {', '.join((*_READERS, 'secret'))}", field=pointer(unknown[0]))
    if "url" not in body:
        raise InvalidUrl("is missing: an https URL")
    if "events" not in body:
        raise InvalidPattern("is missing: a list of types and patterns, such as dataset.*")
    values = {name: read(body[name], limits) for name, read in _READERS.items() if name in body}
    _refuse_mask(values.get("headers", {}))
    secret = _secret(body["secret"]) if "secret" in body else None
    return Registration(WebhookPatch(**values, fingerprint=_fingerprint(body)), secret)


def read_changes(body: Any, limits: Limits) -> WebhookPatch:
    """Read the body of a change. `null` puts what is optional back to its default.

    Raises:
        InvalidField: As in `read_registration`; also where nothing is changed.
    """
    if not isinstance(body, Mapping):
        raise InvalidField("must be an object", field="")
    if "secret" in body:
        raise InvalidSecret("is not changed here: POST /v1/webhooks/{id}/rotate-secret makes a new one")
    unknown = sorted(set(body) - set(_READERS))
    if unknown:
        raise InvalidField(f"unknown; one of {', '.join(_READERS)}", field=pointer(unknown[0]))
    if not body:
        raise InvalidField(f"must change something: one of {', '.join(_READERS)}", field="")
    values: dict[str, Any] = {
        name: None if body[name] is None and name in _OPTIONAL else read(body[name], limits)
        for name, read in _READERS.items()
        if name in body
    }
    _refuse_mask(values.get("headers", {}))
    return WebhookPatch(**values)


def show_webhook(row: WebhookRow, secret: str | None = None) -> dict[str, Any]:
    """The answer of the API; a secret only where it is shown once. Values of headers that look like one are masked."""
    optional = {
        "description": row.description,
        "filter": None if row.filter is None else msgspec.to_builtins(row.filter),
        "retry_schedule_s": row.retry_schedule_s,
        "timeout_s": row.timeout_s,
        "rate_limit_per_s": row.rate_limit_per_s,
        "max_in_flight": row.max_in_flight,
        "failing_since": _time(row.failing_since_ms or row.first_failure_ms),
        "first_success_at": _time(row.first_success_ms),
        # Of one that is enabled again the row still has it, for a replay of what it missed.
        "disabled_at": None if row.enabled else _time(row.disabled_at_ms),
        "disabled_reason": row.disabled_reason,
        "hold_until": _time(row.hold_until_ms),
        "secret": secret,
    }
    return {
        "id": row.webhook_id,
        "url": row.url,
        "events": list(row.events),
        "headers": masked(row.headers),
        "enabled": row.enabled,
        "ordering": row.ordering.value,
        "signatures": list(row.signatures),
        "handshake": row.handshake,
        "version": row.version,
        "health": row.health.value,
        "standing": _standing(row).value,
        "created_at": format_time(row.created_at_ms),
        "updated_at": format_time(row.updated_at_ms),
        **{name: value for name, value in optional.items() if value is not None},
    }


def _standing(row: WebhookRow) -> Standing:
    if row.health is not Health.OK:
        return Standing(row.health.value)
    if row.first_success_ms is not None:
        return Standing.OK
    failing_since_ms = row.failing_since_ms or row.first_failure_ms
    return Standing.UNKNOWN if failing_since_ms is None else Standing.FAILING_FROM_THE_START


def _refuse_mask(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if value == MASK:
            detail = f"{MASK} stands for a value that is not shown, and none is stored under this name: give the value"
            raise InvalidHeader(detail, field=pointer("headers", name))


def _fingerprint(body: Mapping[str, Any]) -> str:
    """Of a request, without its secrets: a hash of a weak one could be guessed from the row, which has it encrypted."""
    told = {**body, "secret": MASK} if "secret" in body else dict(body)
    if "headers" in body:
        told["headers"] = masked(body["headers"])
    return hashlib.sha256(canonical_json(told)).hexdigest()


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else format_time(at_ms)


def _text(value: Any, field: str, most: int) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= most:
        raise InvalidField(f"must be a text of 1 to {most} characters", field=field)
    return value


def _flag(value: Any, field: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidField("must be true or false", field=field)
    return value


def _number(value: Any, field: str, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidField(f"must be a number from {least:g} to {most:g}", field=field)
    return float(value)


def _secret(value: Any) -> Secret:
    if not isinstance(value, str):
        raise InvalidSecret("must be a text: whsec_ and base64 of 24 to 64 bytes; leave it out for one of ours")
    return Secret(value)


def _url(value: Any, _: Limits) -> str:
    if not isinstance(value, str):
        raise InvalidUrl("must be a text: an https URL")
    return value


def _events(value: Any, _: Limits) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InvalidPattern("must be a list of types and patterns, such as dataset.*")
    for place, item in enumerate(value):
        if not isinstance(item, str):
            raise InvalidPattern("must be a text, such as dataset.*", field=pointer("events", place))
    return canonical_patterns(value)


def _headers(value: Any, _: Limits) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise InvalidHeader("must be an object of texts")
    for name, item in value.items():
        if not isinstance(item, str):
            raise InvalidHeader("the value must be a text", field=pointer("headers", name))
    validate_headers(value)
    return dict(value)


def _filter(value: Any, _: Limits) -> Any:
    if not isinstance(value, Mapping):
        raise InvalidFilter("must be an object with tenant_id, dataset_id, data")
    return parse_filter(value)


def _schedule(value: Any, _: Limits) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise InvalidSchedule("must be a list of seconds, such as [0, 5, 300]")
    return tuple(map(float, RetrySchedule.of(value).steps_s))


def _max_in_flight(value: Any, limits: Limits) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limits.max_in_flight:
        raise InvalidField(f"must be an integer from 1 to {limits.max_in_flight}", field="/max_in_flight")
    return value


def _ordering(value: Any, _: Limits) -> Ordering:
    if value not in tuple(Ordering):
        raise InvalidField("must be best_effort or strict", field="/ordering")
    return Ordering(value)


def _signatures(value: Any, limits: Limits) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or any(item not in _SIGNATURES for item in value):
        raise InvalidField('must be a list of "v1" and "v1a"', field="/signatures")
    if "v1" not in value:
        raise InvalidField('must hold "v1"; "v1a" comes beside it', field="/signatures")
    if "v1a" in value and not limits.signing_key:
        raise InvalidField("v1a needs a key in WEBHOOKS__SIGNING_KEYS", field="/signatures")
    return tuple(dict.fromkeys(value))


_READERS: Final[Mapping[str, Callable[[Any, Limits], Any]]] = {
    "url": _url,
    "events": _events,
    "description": lambda value, _: _text(value, "/description", MAX_DESCRIPTION_CHARS),
    "headers": _headers,
    "enabled": lambda value, _: _flag(value, "/enabled"),
    "filter": _filter,
    "retry_schedule_s": _schedule,
    "timeout_s": lambda value, _: _number(value, "/timeout_s", MIN_TIMEOUT_S, MAX_TIMEOUT_S),
    "rate_limit_per_s": lambda value, _: _number(value, "/rate_limit_per_s", 0.001, MAX_RATE_PER_S),
    "max_in_flight": _max_in_flight,
    "ordering": _ordering,
    "signatures": _signatures,
    "handshake": lambda value, _: _flag(value, "/handshake"),
}
_OPTIONAL: Final = frozenset(
    {"description", "filter", "retry_schedule_s", "timeout_s", "rate_limit_per_s", "max_in_flight"}
)
