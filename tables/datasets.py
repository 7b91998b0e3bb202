"""Table `datasets`: what is known of each dataset, and how much of it the registry has.

Writer: registry. Key: `d/`, dataset id. Index `dirty`: the keys of rows that the registry must be told of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.engine import Table
from app.integrations.registry import DatasetRow, is_dirty

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DATASETS", "dataset_key"]

_PREFIX: Final = b"d/"


def _dirty(key: bytes, row: DatasetRow) -> Iterable[bytes]:
    return (key,) if is_dirty(row) else ()


DATASETS: Final = Table("datasets", prefix=6, row=DatasetRow, index=_dirty)


def dataset_key(dataset_id: str) -> bytes:
    """The row key of a dataset."""
    return _PREFIX + dataset_id.encode()
