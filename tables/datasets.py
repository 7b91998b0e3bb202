"""Table `datasets`: what is known of each dataset, and how much of it the registry has.

Writer: registry. Key: `d/`, dataset id; `c/pull`, the place of the pull (number 0 alone). Index `dirty`: the keys of
rows that the registry must be told of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from app.engine import Table
from app.integrations.registry import DatasetRow
from app.integrations.registry_links import is_waiting
from tables.open_numbers import OpenNumbers

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CURSOR_KEY", "DATASETS", "DatasetReader", "DatasetReaders", "dataset_key"]

_PREFIX: Final = b"d/"
CURSOR_KEY: Final = b"c/pull"


def _dirty(key: bytes, row: DatasetRow) -> Iterable[bytes]:
    return (key,) if is_waiting(row) else ()


DATASETS: Final = Table("datasets", prefix=6, row=DatasetRow, index=_dirty)


def dataset_key(dataset_id: str) -> bytes:
    """The row key of a dataset."""
    return _PREFIX + dataset_id.encode()


class DatasetReader(Protocol):
    """One number's datasets, for the API."""

    async def dataset(self, dataset_id: str) -> DatasetRow | None:
        """The row as it is now.

        Raises:
            Revoked: The number is closed.
        """

    async def sync(self, sync_id: str) -> dict[str, Any] | None:
        """What was done here for a synchronisation; None if nobody asked for it here.

        Raises:
            Revoked: The number is closed.
        """

    async def syncs(self) -> tuple[list[str], int]:
        """The ids of the synchronisations that are remembered, and how many datasets the registry is to be told of.

        Raises:
            Revoked: The number is closed.
        """


class DatasetReaders(OpenNumbers[DatasetReader]):
    """The numbers whose datasets are open in this process."""
