"""Links from datasets to the models that use them (contracts 5).

A link waits in the row of its dataset until the registry has the dataset, and then until it has the link. It ends with
the dataset: one that is made again has none.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from app.events import format_time
from app.integrations.registry import DELETED, DatasetRow, Link, is_clean, is_dirty, knows, status_of

if TYPE_CHECKING:
    from app.events import CloudEvent

__all__ = ["MAX_LINKS", "RELATIONSHIPS", "ask_link", "is_waiting", "link_body", "link_key", "linked", "waiting_links"]

RELATIONSHIPS: Final = ("training_data", "evaluation_data", "validation_data", "test_data")
MAX_LINKS: Final = 500
WAITING: Final = "waiting"
LINKED: Final = "linked"
REFUSED: Final = "refused"


def ask_link(row: DatasetRow | None, event: CloudEvent, asked_ms: int) -> DatasetRow | None:
    """The row after somebody asked for a link; the same if there is no dataset.

    One that is there stays as it is; one that the registry refused is tried again. Either way the wish makes a version
    of the dataset, by the log alone: a version that the registry's answers made could be another one in another life,
    and its idempotency key that of another state.
    """
    data: dict[str, Any] = event.data
    if row is None or status_of(row) == DELETED:
        return row
    digest = hashlib.blake2b(f"{event.source}\0{event.id}".encode(), digest_size=8).digest()
    if knows(row.known, digest):
        return row
    version = row.version + 1
    wanted = Link(model_id=data["model_id"], relationship=data["relationship"], asked_ms=asked_ms, version=version)
    others = tuple(link for link in row.links if _place(link) != _place(wanted))
    there = next((link for link in row.links if _place(link) == _place(wanted)), None)
    stays = len(others) >= MAX_LINKS or (there is not None and there.status != REFUSED)
    return msgspec.structs.replace(
        row,
        links=row.links if stays else (*others, wanted),
        known=(row.known + digest)[-2048:],
        version=version,
        pushed=version if is_clean(row) else row.pushed,
        refused=version if row.refused == row.version else row.refused,
    )


def waiting_links(row: DatasetRow) -> tuple[Link, ...]:
    """The links that the registry is to be told of now: the dataset itself comes first."""
    if status_of(row) == DELETED or row.registration_id is None or not is_clean(row):
        return ()
    return tuple(link for link in row.links if link.status == WAITING)


def is_waiting(row: DatasetRow) -> bool:
    """Whether the registry must be told of the dataset or of one of its links."""
    return is_dirty(row) or bool(waiting_links(row))


def linked(row: DatasetRow, link: Link, *, refused: bool) -> DatasetRow:
    """The registry has said what it makes of a link."""
    after = msgspec.structs.replace(link, status=REFUSED if refused else LINKED)
    return msgspec.structs.replace(row, links=tuple(after if one == link else one for one in row.links))


def link_body(row: DatasetRow, link: Link) -> dict[str, Any]:
    """What the registry is told of a link."""
    return {
        "dataset_id": row.id,
        "model_id": link.model_id,
        "relationship": link.relationship,
        "linked_at": format_time(link.asked_ms),
    }


def link_key(row: DatasetRow, link: Link) -> str:
    """The idempotency key of a link, not yet fit for a header: the same at each attempt."""
    return f"{row.id}:{link.asked_ms}:{link.relationship}:{link.model_id}"


def _place(link: Link) -> tuple[str, str]:
    return link.model_id, link.relationship
