"""What the registry says of its datasets, and which of its words are taken over (contracts 5).

A pull shows what the registry holds of a dataset, and since when. That is one of four things: what was pushed to it,
the very same; an older state of the vault, read before the newer one got there; something that a user of the registry
wrote; or that, over a change of the vault that nobody had told it. Only the last one is a conflict: the newer wins, and
in a tie the vault. Nothing that came from the registry is pushed back to it, unless a push of ours has replaced it
there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from app.events import canonical_json, format_time, parse_time_ms
from app.integrations.registry import (
    ACTIVE,
    ARCHIVED,
    DELETED,
    NEVER,
    DatasetRow,
    again,
    apply,
    counts,
    digest_of,
    document,
    is_clean,
    knows,
    status_of,
)
from app.integrations.upstream import Malformed

if TYPE_CHECKING:
    from app.events import CloudEvent

__all__ = [
    "Page",
    "PullOutcome",
    "Pulled",
    "adopted_form",
    "conflict_of",
    "fold_pulled",
    "is_overruled",
    "pulled_data",
    "pulled_of",
    "read_page",
]

MAX_ITEM_BYTES: Final = 128 * 1024
MAX_ID_CHARS: Final = 512
MAX_CURSOR_CHARS: Final = 4096
_STATUSES: Final = frozenset({ACTIVE, ARCHIVED, DELETED})
_TEXTS: Final = ("name", "version", "schema_hash", "created_at")


@dataclass(frozen=True, slots=True)
class Pulled:
    """One dataset as the registry holds it.

    Attributes:
        fields: `name`, `version`, `schema_hash`, `tags`, `created_at`, as far as it has them.
        record_count: None if it does not say.
        status: `active`, `archived` or `deleted`.
        at_ms: Since when.
    """

    id: str
    fields: dict[str, Any]
    record_count: int | None
    status: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Page:
    """One answer.

    Attributes:
        refused: What is no dataset: its id where it has one, and why.
        cursor: Of the next page; None: this was the last one.
    """

    items: list[Pulled]
    refused: list[tuple[str, str]]
    cursor: str | None


class PullOutcome(StrEnum):
    """What became of a pulled state."""

    KNOWN = "known"
    ADOPTED = "adopted"
    VAULT_WON = "vault_won"
    REGISTRY_WON = "registry_won"


def read_page(answer: Any) -> Page:
    """A page of the registry's datasets; an item that is none takes nothing from the others.

    Raises:
        Malformed: It is no page.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("datasets"), list):
        raise Malformed("the answer has no list of datasets")
    cursor = answer.get("cursor")
    if cursor is not None and not (isinstance(cursor, str) and 0 < len(cursor) <= MAX_CURSOR_CHARS):
        raise Malformed("the answer's cursor is neither a string nor null")
    page = Page([], [], cursor)
    for item in answer["datasets"]:
        try:
            page.items.append(_read_item(item))
        except ValueError as error:
            found = item.get("id") if isinstance(item, dict) else None
            page.refused.append((found[:MAX_ID_CHARS] if isinstance(found, str) else "", str(error)))
    return page


def _read_item(item: Any) -> Pulled:
    if not isinstance(item, dict):
        raise ValueError("no object")  # noqa: TRY004  # what the caller lists
    id_ = item.get("id")
    if not (isinstance(id_, str) and 0 < len(id_) <= MAX_ID_CHARS):
        raise ValueError("id is no string of 1 to 512 characters")
    if "updated_at" not in item or not isinstance(item["updated_at"], str):
        raise ValueError("updated_at is missing")
    status = item.get("status") or ACTIVE
    if status not in _STATUSES:
        raise ValueError("status is none of active, archived, deleted")
    at_ms = parse_time_ms(item["updated_at"])
    if at_ms < 0:
        raise ValueError("updated_at is before 1970")
    pulled = Pulled(id_, _fields(item, status), _count(item), status, at_ms)
    if len(canonical_json(pulled_data(pulled))) > MAX_ITEM_BYTES:
        raise ValueError(f"more than {MAX_ITEM_BYTES} bytes")
    return pulled


def _fields(item: dict[str, Any], status: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name in _TEXTS:
        value = item.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name} is no string")
        if value is not None:
            fields[name] = value
    if "name" not in fields and status != DELETED:
        raise ValueError("name is missing")
    tags = item.get("tags") or []
    if not isinstance(tags, list) or not all(map(_is_tag, tags)):
        raise ValueError("tags is no list of keys, and of objects with key and value")
    return {**fields, "tags": tags}


def _is_tag(tag: Any) -> bool:
    if isinstance(tag, dict):
        return all(value is None or isinstance(value, str | int | float) for value in tag.values())
    return isinstance(tag, str)


def _count(item: dict[str, Any]) -> int | None:
    count = item.get("record_count")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 0):
        raise ValueError("record_count is no count")
    return count


def pulled_data(pulled: Pulled) -> dict[str, Any]:
    """As it travels to the owner of the dataset."""
    return {
        "dataset_id": pulled.id,
        "fields": pulled.fields,
        "record_count": pulled.record_count,
        "status": pulled.status,
        "updated_at": format_time(pulled.at_ms),
    }


def pulled_of(data: Any) -> Pulled:
    """The inverse of `pulled_data`.

    Raises:
        ValueError: It is none.
    """
    try:
        return Pulled(
            str(data["dataset_id"]),
            dict(data["fields"]),
            data["record_count"],
            str(data["status"]),
            parse_time_ms(data["updated_at"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError("not what a pull published") from error


def adopted_form(pulled: Pulled, row: DatasetRow) -> DatasetRow:
    """The row with the state of the registry in place of its own: every field is the registry's, or is gone."""
    # Newer than all that the row has, for whoever counts by time: it has won already.
    at_ms = max(pulled.at_ms, row.deleted_ms)
    if pulled.status == DELETED:
        # Hidden, as by a deletion of the vault; should it have more to say of the dataset, it is all there.
        stated_ms = {**row.stated_ms, "status": at_ms}
        return msgspec.structs.replace(
            row,
            fields={name: value for name, value in row.fields.items() if counts(row, name)},
            stated_ms=stated_ms,
            status=DELETED,
            deleted_ms=at_ms,
            record_count=row.record_count if counts(row, "record_count") else None,
            links=(),
        )
    names = (*_TEXTS, "tags", "status", "record_count")
    return msgspec.structs.replace(
        row,
        fields=dict(pulled.fields),
        stated_ms=dict.fromkeys(names, at_ms),
        status=pulled.status,
        record_count=pulled.record_count,
        changed_since=0,
    )


def fold_pulled(row: DatasetRow | None, pulled: Pulled) -> tuple[DatasetRow, PullOutcome]:
    """The row after what a pull showed.

    Args:
        row: None for a dataset that was never heard of.
    """
    before = row or DatasetRow(id=pulled.id)
    theirs = digest_of(adopted_form(pulled, before))
    if pulled.at_ms < before.seen_ms or (pulled.at_ms == before.seen_ms and theirs == before.seen):
        return before, PullOutcome.KNOWN
    row = msgspec.structs.replace(before, seen=theirs, seen_ms=pulled.at_ms)
    ours = digest_of(row)
    if theirs == ours:
        return _confirm(row), PullOutcome.KNOWN
    if not ours:
        return _adopt_unheard(row, pulled), PullOutcome.ADOPTED
    return _met_own(row, pulled) if knows(row.own, theirs) else _met_other(row, pulled, theirs)


def _met_other(row: DatasetRow, pulled: Pulled, theirs: bytes) -> tuple[DatasetRow, PullOutcome]:
    """A state that the vault never had: somebody wrote it at the registry, or the registry wrote ours its own way."""
    newer = pulled.at_ms > row.vault_ms
    if is_clean(row) and (newer or theirs == row.insisted):
        # A push of ours may have replaced it before it was seen: then both sides had changed.
        alone = row.confirmed or pulled.at_ms > row.acked_ms
        return _adopt(row, pulled), PullOutcome.ADOPTED if alone else PullOutcome.REGISTRY_WON
    if newer:
        return _adopt(row, pulled), PullOutcome.REGISTRY_WON
    return again(msgspec.structs.replace(row, insisted=theirs)), PullOutcome.VAULT_WON


def _met_own(row: DatasetRow, pulled: Pulled) -> tuple[DatasetRow, PullOutcome]:
    """An older state of the vault: late news, or a user of the registry went back to it."""
    if not is_clean(row):
        return row, PullOutcome.KNOWN  # The push that is to come replaces it.
    if row.confirmed:
        return _adopt(row, pulled), PullOutcome.ADOPTED
    return again(row), PullOutcome.KNOWN


def _confirm(row: DatasetRow) -> DatasetRow:
    """The registry holds what the row has; where the answer to the push was lost, this is the answer."""
    registration_id = None if status_of(row) == DELETED else row.registration_id or row.id
    return msgspec.structs.replace(
        row, pushed=max(row.pushed, row.version), confirmed=True, registration_id=registration_id
    )


def _adopt(row: DatasetRow, pulled: Pulled) -> DatasetRow:
    """The registry's state is taken over, and the registry has it already."""
    # A push that is under way, or came to the registry after what the pull showed, has replaced it there. Then what was
    # pushed shows up in a later pull, is known as our own, and the state that won is told again.
    settled = is_clean(row) and (row.confirmed or pulled.at_ms > row.acked_ms)
    after = again(adopted_form(pulled, row))
    return msgspec.structs.replace(
        after,
        pushed=after.version,
        registration_id=None if status_of(after) == DELETED else after.registration_id or after.id,
        origin="registry",
        adopted_ms=max(pulled.at_ms, row.deleted_ms),
        own=b"" if settled else after.own,
        confirmed=settled,
        insisted=b"",
    )


def _adopt_unheard(row: DatasetRow, pulled: Pulled) -> DatasetRow:
    """The state of a dataset that the vault has only counted records of; those that came since are told."""
    after = _adopt(row, pulled)
    since = sum(number for at_ms, number in row.changes if at_ms > pulled.at_ms)
    if not since or after.record_count is None or status_of(after) == DELETED:
        return after
    after = again(msgspec.structs.replace(after, changed_since=since))
    return msgspec.structs.replace(after, own=after.own + digest_of(after))


def is_overruled(row: DatasetRow, event: CloudEvent, time_ms: int) -> bool:
    """Whether a vault event that is folded now would change the dataset, but that the registry's newer state stands."""
    if not row.vault_ms < time_ms < row.adopted_ms:
        return False
    bare = msgspec.structs.replace(row, stated_ms=dict.fromkeys(row.stated_ms, NEVER), deleted_ms=NEVER)
    return digest_of(apply(bare, event, time_ms)) != digest_of(bare)


def conflict_of(before: DatasetRow, pulled: Pulled, outcome: PullOutcome) -> dict[str, Any]:
    """A conflict as it is reported: what either side had, and who won."""
    theirs = {**pulled.fields, "updated_at": format_time(pulled.at_ms), "status": pulled.status}
    if pulled.record_count is not None:
        theirs["record_count"] = pulled.record_count
    ours: dict[str, Any] = {"status": status_of(before), **(document(before) or {})}
    ours["updated_at"] = format_time(max(before.vault_ms, 0))
    winner = "vault" if outcome is PullOutcome.VAULT_WON else "registry"
    return {"vault": ours, "registry": theirs, "winner": winner}
