"""A table: how rows become bytes, and which index keys follow from a row.

A table belongs to one agent. Its changelog is the truth; RocksDB holds a copy under the table's prefix byte.
Row format (architecture 2): one version byte, then msgpack of the struct as a map, absent fields = defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import msgspec

from app.engine.errors import RowTooLarge

__all__ = ["ROW_LIMIT_BYTES", "ROW_VERSION", "Table"]

R = TypeVar("R")

ROW_VERSION = 1
ROW_LIMIT_BYTES = 512 * 1024
_VERSION = bytes([ROW_VERSION])
_MAX_PREFIX = 126


class Table(Generic[R]):
    """Names, codes and indexes one kind of row.

    Args:
        name: The name in the changelog topic, `{app id}-{name}-changelog`.
        prefix: The table byte in RocksDB, 1 to 126; unique within an agent.
        row: A `msgspec.Struct` class.
        index: Derived index keys of a row; local, never logged, rebuilt by restore. It must be a pure
            function of key and row, for old keys are removed by computing them again.
        index_version: Another one with each change of `index`, so that what an earlier release has on disk is built
            anew.
    """

    __slots__ = ("_decode", "_encode", "index", "index_byte", "index_version", "name", "prefix", "prefix_byte", "row")

    def __init__(
        self,
        name: str,
        prefix: int,
        row: type[R],
        index: Callable[[bytes, R], Iterable[bytes]] | None = None,
        index_version: int = 1,
    ) -> None:
        if not 1 <= prefix <= _MAX_PREFIX:
            raise ValueError(f"table {name}: prefix {prefix} is not in 1..{_MAX_PREFIX}")
        self.name = name
        self.prefix = prefix
        self.prefix_byte = bytes([prefix])
        self.index_byte = bytes([0x80 | prefix])
        self.row = row
        self.index = index
        self.index_version = index_version
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(row).decode

    def __repr__(self) -> str:
        return f"Table({self.name!r})"

    def encode(self, row: R) -> bytes:
        """The row as it is logged and stored.

        Raises:
            RowTooLarge: Beyond 512 KiB.
        """
        data = _VERSION + self._encode(row)
        if len(data) > ROW_LIMIT_BYTES:
            raise RowTooLarge(f"table {self.name}: a row of {len(data)} bytes; at most {ROW_LIMIT_BYTES}")
        return data

    def decode(self, data: bytes) -> R:
        """The inverse of `encode`.

        Raises:
            ValueError: A row version that this program does not know.
        """
        if data[:1] != _VERSION:
            raise ValueError(f"table {self.name}: row version {data[0]}, this program reads {ROW_VERSION}")
        return self._decode(memoryview(data)[1:])

    def store_key(self, key: bytes) -> bytes:
        """The key in RocksDB of a row key.

        Raises:
            ValueError: An empty key, or one that begins with NUL, which is the engine's own.
        """
        if not key or key[0] == 0:
            raise ValueError(f"table {self.name}: a row key must not be empty or begin with NUL")
        return self.prefix_byte + key

    def keys_of(self, key: bytes, row: R) -> list[bytes]:
        """Index keys, with the table's index prefix, of a row."""
        if self.index is None:
            return []
        mark = self.index_byte
        return [mark + k for k in self.index(key, row)]

    def index_of(self, store_key: bytes, data: bytes) -> list[bytes]:
        """Index keys, with the table's index prefix, of a stored row."""
        return [] if self.index is None else self.keys_of(store_key[1:], self.decode(data))
