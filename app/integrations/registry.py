"""What the vault's events say of a dataset, folded, and what the registry is told of it (contracts 5).

The fold takes events in any order and comes to the same row, but for ties in the millisecond and for events beyond its
memory (256 ids, 64 counted changes a dataset): every field belongs to the event with the latest time that stated it, a
deletion hides what is older than itself, and a count is the last one stated plus what came and went after it.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from app.events import VaultEventType, canonical_json, format_time, parse_time_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.events import CloudEvent

__all__ = [
    "DatasetRow",
    "Link",
    "PullCursor",
    "acknowledged",
    "again",
    "apply",
    "change_kind",
    "counts",
    "digest_of",
    "document",
    "fold",
    "is_clean",
    "is_dirty",
    "knows",
    "refused",
    "schema_hash",
    "status_of",
]

ACTIVE: Final = "active"
ARCHIVED: Final = "archived"
DELETED: Final = "deleted"

NEVER: Final = -1

_KNOWN_EVENTS: Final = 256
_OWN_STATES: Final = 64
_DIGEST_BYTES: Final = 8
_CHANGES: Final = 64


class Link(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A model that a dataset is used for.

    Attributes:
        relationship: One of `registry_links.RELATIONSHIPS`.
        asked_ms: When somebody asked for it: what the registry is told as `linked_at`.
        status: `waiting`, `linked` or `refused`.
        version: That the wish made of the dataset.
    """

    model_id: str
    relationship: str
    asked_ms: int
    status: str = "waiting"
    version: int = 0


class PullCursor(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How far the registry's changes were read.

    Attributes:
        since_ms: The pass under way asks for what changed since then; None: for everything.
        cursor: Of its next page; None: a new pass begins.
        newest_ms: The latest change that it has seen.
        floor_ms: The latest change that was seen before it began. What changes while it is under way is later, and may
            be on a page that it has left behind: so the next pass begins there.
    """

    since_ms: int | None = None
    cursor: str | None = None
    newest_ms: int | None = None
    floor_ms: int | None = None


class DatasetRow(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The state of one dataset.

    Attributes:
        id: The dataset id.
        fields: `name`, `version`, `schema_hash`, `tags`, `created_at` as far as an event stated them.
        stated_ms: By field, and for `status` and `record_count`: the time of the event that it is from.
        status: `active`, `archived` or `deleted`, as last stated; `status_of` is what the dataset is.
        deleted_ms: The tombstone: time of the latest deletion; what is older does not count any more.
        record_count: As last stated; None if no event did.
        changed_since: Records that came (and, negative, went) after that.
        changes: The last changes of the count, (time, number), for a statement that comes late.
        known: 8 bytes for each of the last 256 events.
        version: Counts changes of what the registry is told.
        pushed: The version that the registry has acknowledged.
        refused: A version that the registry will not take.
        registration_id: The registry's name for it; None while it is not registered.
        origin: Who stated the state last: the vault, or the registry.
        vault_ms: The latest time at which the vault stated something.
        own: Digests of the vault's states that may be on their way to the registry, or come back from it.
        acked_ms: Our wall clock when the registry last acknowledged a state.
        confirmed: Whether a pull has shown what the registry holds since then.
        seen: Digest of what the last pull showed.
        seen_ms: The registry's time of it; what is older comes late.
        adopted_ms: The registry's time of its state that was last taken over.
        insisted: Digest of a state of the registry that was overruled; in that form it may keep ours.
        links: The models that it is used for.
        traceparent: Of the last event that changed what the registry is still to be told, if its trace is kept.
        cursor: Only in the one row that keeps the place of the pull, and has nothing else.
    """

    id: str
    fields: dict[str, Any] = {}
    stated_ms: dict[str, int] = {}
    status: str = ACTIVE
    deleted_ms: int = NEVER
    record_count: int | None = None
    changed_since: int = 0
    changes: tuple[tuple[int, int], ...] = ()
    known: bytes = b""
    version: int = 0
    pushed: int = 0
    refused: int = 0
    registration_id: str | None = None
    origin: str = "vault"
    vault_ms: int = NEVER
    own: bytes = b""
    acked_ms: int = NEVER
    confirmed: bool = False
    seen: bytes = b""
    seen_ms: int = NEVER
    adopted_ms: int = NEVER
    insisted: bytes = b""
    links: tuple[Link, ...] = ()
    traceparent: str | None = None
    cursor: PullCursor | None = None


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
    if knows(before.known, digest):
        return before
    known = (before.known + digest)[-_KNOWN_EVENTS * _DIGEST_BYTES :]
    after = msgspec.structs.replace(apply(_still_there(before, event, time_ms), event, time_ms), known=known)
    if event.type == VaultEventType.DATASET_DELETED and status_of(after) == DELETED:
        after = msgspec.structs.replace(after, origin="vault")
    changed = document(after) != document(before) or status_of(after) != status_of(before)
    if changed or after.stated_ms != before.stated_ms:
        after = msgspec.structs.replace(after, vault_ms=max(before.vault_ms, time_ms))
    if changed:
        after = again(msgspec.structs.replace(after, origin="vault", insisted=b""))
        after = msgspec.structs.replace(after, own=(after.own + digest_of(after))[-_OWN_STATES * _DIGEST_BYTES :])
    if after.links and status_of(after) == DELETED:
        after = msgspec.structs.replace(after, links=())
    return after


def status_of(row: DatasetRow) -> str:
    """What a dataset is: one that was deleted and not made again stays so, whatever else is said of it later."""
    return row.status if counts(row, "created_at") else DELETED


def document(row: DatasetRow) -> dict[str, Any] | None:
    """What the registry is to hold of a dataset; None if it should not, or cannot be told yet for want of a name.

    What no event stated is absent.
    """
    if status_of(row) == DELETED:
        return None
    stated = {name: value for name, value in row.fields.items() if counts(row, name)}
    if "name" not in stated:
        return None
    told = {"id": row.id, "tags": [], **stated}
    if row.record_count is not None and counts(row, "record_count"):
        told["record_count"] = max(0, row.record_count + row.changed_since)
    if row.status == ARCHIVED:
        told["status"] = ARCHIVED
    return told


def is_dirty(row: DatasetRow) -> bool:
    """Whether the registry must be told something that it has neither acknowledged nor refused."""
    unsaid = row.version > max(row.pushed, row.refused)
    return unsaid and (status_of(row) == DELETED or document(row) is not None)


def is_clean(row: DatasetRow) -> bool:
    """Whether the registry has acknowledged all that it should hold."""
    return row.pushed >= row.version


def again(row: DatasetRow) -> DatasetRow:
    """The row with its state to be told once more, under a version of its own."""
    return msgspec.structs.replace(row, version=row.version + 1)


def digest_of(row: DatasetRow) -> bytes:
    """What tells states apart, however they are written; empty for a row that cannot be told yet."""
    told: dict[str, Any] | None = {"status": DELETED} if status_of(row) == DELETED else document(row)
    if told is None:
        return b""
    told = {"status": ACTIVE, **told, "id": row.id}
    with contextlib.suppress(KeyError, ValueError, TypeError):
        told["created_at"] = parse_time_ms(told["created_at"])
    return hashlib.blake2b(canonical_json(told), digest_size=_DIGEST_BYTES).digest()


def change_kind(row: DatasetRow, pushed: DatasetRow) -> str:
    """What an acknowledged push of `pushed` means for a dataset whose row is `row`."""
    if status_of(pushed) == DELETED:
        return "deleted"
    return "registered" if row.registration_id is None else "updated"


def acknowledged(row: DatasetRow, pushed: DatasetRow, registration_id: str | None, at_ms: int) -> DatasetRow:
    """The registry has the state `pushed`; the row may have gone on since.

    Where a pull has shown a later state meanwhile, the one that was pushed has just replaced it: then that one is to be
    told again.

    Args:
        at_ms: Our wall clock.
    """
    later = row.pushed > pushed.version and digest_of(row) != digest_of(pushed)
    after = msgspec.structs.replace(
        row,
        pushed=max(row.pushed, pushed.version),
        registration_id=registration_id,
        acked_ms=at_ms,
        confirmed=False,
        traceparent=row.traceparent if row.version > pushed.version else None,
    )
    return again(after) if later else after


def refused(row: DatasetRow, pushed: DatasetRow) -> DatasetRow:
    """The registry will not take the state `pushed`; the next change is tried again."""
    return msgspec.structs.replace(row, refused=max(row.refused, pushed.version))


def schema_hash(schema: Any) -> str:
    """`sha256:` and the hex digest of the canonical JSON of a schema."""
    return "sha256:" + hashlib.sha256(canonical_json(schema)).hexdigest()


def _still_there(row: DatasetRow, event: CloudEvent, time_ms: int) -> DatasetRow:
    """The row that an event of the vault finds: it undoes an older deletion that is only the registry's."""
    ends = {VaultEventType.DATASET_CREATED, VaultEventType.DATASET_DELETED}
    only_there = status_of(row) == DELETED and row.origin == "registry"
    if not only_there or event.type in ends or time_ms < row.adopted_ms:
        return row
    stated_ms = {name: max(at_ms, row.deleted_ms) for name, at_ms in row.stated_ms.items()}
    return msgspec.structs.replace(
        row, status=ACTIVE, stated_ms={**stated_ms, "created_at": row.deleted_ms, "status": row.deleted_ms}
    )


def knows(known: bytes, digest: bytes) -> bool:
    """Whether a digest is among others."""
    at = known.find(digest)
    while at != -1 and at % _DIGEST_BYTES:
        at = known.find(digest, at + 1)
    return at != -1


def counts(row: DatasetRow, name: str) -> bool:
    """Whether what was stated last is no older than a deletion."""
    return row.stated_ms.get(name, NEVER) >= row.deleted_ms


def apply(row: DatasetRow, event: CloudEvent, time_ms: int) -> DatasetRow:
    """What an event states, on a row; nothing is counted or remembered."""
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
    newer = {name: value for name, value in stated.items() if time_ms >= row.stated_ms.get(name, NEVER)}
    return msgspec.structs.replace(
        row, fields={**row.fields, **newer}, stated_ms={**row.stated_ms, **dict.fromkeys(newer, time_ms)}
    )


def _status(row: DatasetRow, status: str, time_ms: int) -> DatasetRow:
    if time_ms < row.stated_ms.get("status", NEVER):
        return row
    return msgspec.structs.replace(row, status=status, stated_ms={**row.stated_ms, "status": time_ms})


def _count(row: DatasetRow, data: Mapping[str, Any], time_ms: int) -> DatasetRow:
    count = data.get("record_count")
    if not isinstance(count, int) or time_ms < row.stated_ms.get("record_count", NEVER):
        return row
    return msgspec.structs.replace(
        row,
        record_count=count,
        changed_since=sum(number for at_ms, number in row.changes if at_ms > time_ms),
        stated_ms={**row.stated_ms, "record_count": time_ms},
    )


def _change(row: DatasetRow, number: int, time_ms: int) -> DatasetRow:
    counted = time_ms >= row.stated_ms.get("record_count", NEVER)
    return msgspec.structs.replace(
        row,
        changes=(*row.changes, (time_ms, number))[-_CHANGES:],
        changed_since=row.changed_since + (number if counted else 0),
    )
