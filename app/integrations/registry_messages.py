"""What is said on `registry.datasets` beside the vault's own events: internal, and free to change.

| type (below `llm.vault-stream.registry.`) | key | says |
|---|---|---|
| `pulled` | dataset id | what the registry holds of a dataset |
| `link-asked` | dataset id | somebody wants a link |
| `sync-asked` | one of number 0 | somebody wants a synchronisation |
| `sync-begun`, `sync-pulled` | one of each number | it begins; its pull is over, all of it is before this in the log |
| `pass-wanted` | one of number 0 | a number wants to know what the registry holds before it pushes |
| `pass-over` | one of that number | a pass that began after that is over, all of it is before this in the log |
"""

from __future__ import annotations

import hashlib
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from app.events import InvalidEvent, canonical_json, derived_event, format_time, partition_for
from app.integrations.registry_links import RELATIONSHIPS
from app.integrations.registry_pull import pulled_data, pulled_of
from app.integrations.registry_sync import SyncMode

if TYPE_CHECKING:
    from app.events import CloudEvent
    from app.integrations.registry_pull import Pulled

__all__ = [
    "LINK_ASKED",
    "PASS_OVER",
    "PASS_WANTED",
    "PULLED",
    "SYNC_ASKED",
    "SYNC_BEGUN",
    "SYNC_PULLED",
    "check_message",
    "is_message",
    "key_of_number",
    "link_message",
    "pass_message",
    "pulled_message",
    "sync_message",
]

_NAMESPACE: Final = "llm.vault-stream.registry."
PULLED: Final = _NAMESPACE + "pulled"
LINK_ASKED: Final = _NAMESPACE + "link-asked"
PASS_WANTED: Final = _NAMESPACE + "pass-wanted"
PASS_OVER: Final = _NAMESPACE + "pass-over"
SYNC_ASKED: Final = _NAMESPACE + "sync-asked"
SYNC_BEGUN: Final = _NAMESPACE + "sync-begun"
SYNC_PULLED: Final = _NAMESPACE + "sync-pulled"
_ALL: Final = frozenset({PULLED, LINK_ASKED, PASS_WANTED, PASS_OVER, SYNC_ASKED, SYNC_BEGUN, SYNC_PULLED})
_DERIVED: Final = "llm.vault-stream."


def key_of_number(number: int, numbers: int) -> bytes:
    """A record key whose records go to this number.

    Raises:
        ValueError: There is no such number: no key would ever be found.
    """
    if not 0 <= number < numbers:
        raise ValueError(f"there is no number {number} of {numbers}")
    return next(key for key in (b"sync-%d" % n for n in count()) if partition_for(key, numbers) == number)


def is_message(event: CloudEvent) -> bool:
    """Whether it is one of these, and no event of the vault."""
    return event.type.startswith(_NAMESPACE)


def check_message(event: CloudEvent, numbers: int) -> None:
    """Refuse what is none of these.

    Args:
        numbers: How many there are.

    Raises:
        InvalidEvent: `unknown_type` or `invalid_data`.
    """
    data = event.data
    if event.type not in _ALL:
        raise InvalidEvent("unknown_type", "type is none of the registry's messages")
    try:
        if event.type == PULLED:
            pulled_of(data)
        elif event.type == LINK_ASKED:
            _check_link(data)
        elif event.type in {PASS_WANTED, PASS_OVER}:
            key_of_number(int(data["number"]), numbers)
            str(data["token"])
        else:
            SyncMode(data["mode"])
            str(data["sync_id"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise InvalidEvent("invalid_data", f"data: {error}") from error


def _check_link(data: Any) -> None:
    known = data["relationship"] in RELATIONSHIPS
    if not (known and isinstance(data["model_id"], str) and isinstance(data["dataset_id"], str)):
        raise ValueError("no link")


def pulled_message(pulled: Pulled, source: str) -> bytes:
    """A dataset as the registry holds it, for its owner."""
    at = format_time(pulled.at_ms)
    # An id of the registry may have characters that an event's must not have.
    name = hashlib.blake2b(pulled.id.encode(), digest_size=16).hexdigest()
    return _message(PULLED, f"{name}-{at}", source, pulled.id, at, pulled_data(pulled))


def link_message(*, id_: str, source: str, at_ms: int, dataset_id: str, model_id: str, relationship: str) -> bytes:
    """A link that somebody wants."""
    data = {"dataset_id": dataset_id, "model_id": model_id, "relationship": relationship}
    return _message(LINK_ASKED, id_, source, dataset_id, format_time(at_ms), data)


def sync_message(type_: str, sync_id: str, mode: SyncMode, source: str, at_ms: int, error: str | None = None) -> bytes:
    """Of a synchronisation.

    Args:
        error: Why the pull ended before its end.
    """
    data = {"sync_id": sync_id, "mode": mode.value, **({} if error is None else {"error": error})}
    return _message(type_, f"{sync_id}-{type_.rpartition('.')[2]}", source, sync_id, format_time(at_ms), data)


def pass_message(type_: str, number: int, token: str, source: str, at_ms: int) -> bytes:
    """Of a pass that a number wants.

    Args:
        token: The number's name for its wish.
    """
    data = {"number": number, "token": token}
    return _message(type_, f"{token}-{type_.rpartition('.')[2]}", source, token, format_time(at_ms), data)


def _message(type_: str, id_: str, source: str, subject: str, time: str, data: dict[str, Any]) -> bytes:
    short = type_.removeprefix(_DERIVED)
    return derived_event(short, id_=id_, source=source, subject=subject, time=time, data=canonical_json(data))
