"""What the vault's events say of a dataset, folded, and what the registry is told of it (contracts 5).

The fold takes events in any order and comes to the same row, but for ties in the millisecond and for events beyond its
memory (256 ids, 64 counted changes a dataset): every field belongs to the event with the latest time that stated it, a
deletion hides what is older than itself, and a count is the last one stated plus what came and went after it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from app.events import VaultEventType, canonical_json, format_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.events import CloudEvent

__all__ = ["DatasetRow", "acknowledged", "change_kind", "document", "fold", "is_dirty", "refused", "schema_hash"]

ACTIVE: Final = "active"
ARCHIVED: Final = "archived"
DELETED: Final = "deleted"

_KNOWN_EVENTS: Final = 256
_DIGEST_BYTES: Final = 8
_CHANGES: Final = 64
_NEVER: Final = -1


class DatasetRow(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The state of one dataset.

    Attributes:
        id: The dataset id.
        fields: `name`, `version`, `schema_hash`, `tags`, `created_at` as far as an event stated them.
        stated_ms: By field, and for `status` and `record_count`: the time of the event that it is from.
        status: `active`, `archived` or `deleted`.
        deleted_ms: The tombstone: time of the latest deletion; what is older does not count any more.
        record_count: As last stated; None if no event did.
        changed_since: Records that came (and, negative, went) after that.
        changes: The last changes of the count, (time, number), for a statement that comes late.
        known: 8 bytes for each of the last 256 events.
        version: Counts changes of what the registry is told.
        pushed: The version that the registry has acknowledged.
        refused: A version that the registry will not take.
        registration_id: The registry's name for it; None while it is not registered.
        origin: Who stated the state: the vault, or the registry.
    """

    id: str
    fields: dict[str, Any] = {}
    stated_ms: dict[str, int] = {}
    status: str = ACTIVE
    deleted_ms: int = _NEVER
    record_count: int | None = None
    changed_since: int = 0
    changes: tuple[tuple[int, int], ...] = ()
    known: bytes = b""
    version: int = 0
    pushed: int = 0
    refused: int = 0
    registration_id: str | None = None
    origin: str = "vault"


def fold(row: DatasetRow | None, event: CloudEvent, time_ms: int) -> DatasetRow:
    """The row after an event; the same row if the event is known to it.

    Args:
        row: None for a dataset that was never heard of.
        event: With `dataset_id` in its data, its payload checked.
        time_ms: The event's own time, else its record's.
    """
    data: dict[str, Any] = event.data
    before = row or DatasetRow(id=data["dataset_id"])
    digest = hashlib.blake2b(f"{event.source}\0{event.id}".encode(), digest_size=_DIGEST_BYTES).digest()
    if _knows(before.known, digest):
        return before
    known = (before.known + digest)[-_KNOWN_EVENTS * _DIGEST_BYTES :]
    after = msgspec.structs.replace(_apply(before, event, time_ms), known=known)
    if document(after) != document(before) or after.status != before.status:
        after = msgspec.structs.replace(after, version=before.version + 1)
    return after


def document(row: DatasetRow) -> dict[str, Any] | None:
    """What the registry is to hold of a dataset; None if it should not, or cannot be told yet for want of a name.

    What no event stated is absent.
    """
    if row.status == DELETED:
        return None
    stated = {name: value for name, value in row.fields.items() if _counts(row, name)}
    if "name" not in stated:
        return None
    told = {"id": row.id, "tags": [], **stated}
    if row.record_count is not None and _counts(row, "record_count"):
        told["record_count"] = max(0, row.record_count + row.changed_since)
    if row.status == ARCHIVED:
        told["status"] = ARCHIVED
    return told


def is_dirty(row: DatasetRow) -> bool:
    """Whether the registry must be told something that it has neither acknowledged nor refused."""
    unsaid = row.version > max(row.pushed, row.refused)
    return unsaid and (row.status == DELETED or document(row) is not None)


def change_kind(row: DatasetRow, pushed: DatasetRow) -> str:
    """What an acknowledged push of `pushed` means for a dataset whose row is `row`."""
    if pushed.status == DELETED:
        return "deleted"
    return "registered" if row.registration_id is None else "updated"


def acknowledged(row: DatasetRow, pushed: DatasetRow, registration_id: str | None) -> DatasetRow:
    """The registry has the state `pushed`; the row may have gone on since."""
    return msgspec.structs.replace(row, pushed=max(row.pushed, pushed.version), registration_id=registration_id)


def refused(row: DatasetRow, pushed: DatasetRow) -> DatasetRow:
    """The registry will not take the state `pushed`; the next change is tried again."""
    return msgspec.structs.replace(row, refused=max(row.refused, pushed.version))


def schema_hash(schema: Any) -> str:
    """`sha256:` and the hex digest of the canonical JSON of a schema."""
    return "sha256:" + hashlib.sha256(canonical_json(schema)).hexdigest()


def _knows(known: bytes, digest: bytes) -> bool:
    at = known.find(digest)
    while at != -1 and at % _DIGEST_BYTES:
        at = known.find(digest, at + 1)
    return at != -1


def _counts(row: DatasetRow, name: str) -> bool:
    return row.stated_ms.get(name, _NEVER) >= row.deleted_ms


def _apply(row: DatasetRow, event: CloudEvent, time_ms: int) -> DatasetRow:
    data: dict[str, Any] = event.data
    match event.type:
        case VaultEventType.DATASET_CREATED:
            created_at = event.time or format_time(time_ms)
            row = _state(row, {**_attributes(data), "created_at": created_at}, time_ms)
            row = _status(_count(row, data, time_ms), ACTIVE, time_ms)
        case VaultEventType.DATASET_UPDATED:
            row = _count(_state(row, _attributes(data), time_ms), data, time_ms)
        case VaultEventType.VERSION_CREATED:
            row = _count(_state(row, {"version": str(data["version_id"])}, time_ms), data, time_ms)
        case VaultEventType.DATASET_ARCHIVED:
            row = _status(row, ARCHIVED, time_ms)
        case VaultEventType.DATASET_DELETED:
            row = msgspec.structs.replace(row, deleted_ms=max(row.deleted_ms, time_ms))
            row = _status(row, DELETED, time_ms)
        case VaultEventType.RECORDS_INGESTED:
            row = _change(row, data["record_count"], time_ms)
        case VaultEventType.RECORDS_DELETED:
            row = _change(row, -data["record_count"], time_ms)
    return row


def _attributes(data: Mapping[str, Any]) -> dict[str, Any]:
    """What an event states of a dataset, in the registry's words."""
    found: dict[str, Any] = {}
    if data.get("name") is not None:
        found["name"] = data["name"]
    version = data.get("version") if data.get("version") is not None else data.get("version_id")
    if version is not None:
        found["version"] = str(version)
    if data.get("schema_hash") is not None:
        found["schema_hash"] = data["schema_hash"]
    elif data.get("schema") is not None:
        found["schema_hash"] = schema_hash(data["schema"])
    if isinstance(data.get("tags"), list):
        found["tags"] = [_tag(tag) for tag in data["tags"]]
    return found


def _tag(tag: Any) -> Any:
    """A tag's key, or key and value where it has one; `name` is the third spelling of `key`."""
    if not isinstance(tag, dict):
        return str(tag)
    key = tag.get("key", tag.get("name"))
    value = tag.get("value")
    return key if value is None else {"key": key, "value": value}


def _state(row: DatasetRow, stated: Mapping[str, Any], time_ms: int) -> DatasetRow:
    newer = {name: value for name, value in stated.items() if time_ms >= row.stated_ms.get(name, _NEVER)}
    return msgspec.structs.replace(
        row, fields={**row.fields, **newer}, stated_ms={**row.stated_ms, **dict.fromkeys(newer, time_ms)}
    )


def _status(row: DatasetRow, status: str, time_ms: int) -> DatasetRow:
    if time_ms < row.stated_ms.get("status", _NEVER):
        return row
    return msgspec.structs.replace(row, status=status, stated_ms={**row.stated_ms, "status": time_ms})


def _count(row: DatasetRow, data: Mapping[str, Any], time_ms: int) -> DatasetRow:
    count = data.get("record_count")
    if not isinstance(count, int) or time_ms < row.stated_ms.get("record_count", _NEVER):
        return row
    return msgspec.structs.replace(
        row,
        record_count=count,
        changed_since=sum(number for at_ms, number in row.changes if at_ms > time_ms),
        stated_ms={**row.stated_ms, "record_count": time_ms},
    )


def _change(row: DatasetRow, number: int, time_ms: int) -> DatasetRow:
    counted = time_ms >= row.stated_ms.get("record_count", _NEVER)
    return msgspec.structs.replace(
        row,
        changes=(*row.changes, (time_ms, number))[-_CHANGES:],
        changed_since=row.changed_since + (number if counted else 0),
    )
