"""Records whose header names are not UTF-8.

Kafka checks no header, and a producer in another language may write any bytes; aiokafka then refuses the whole batch,
and with it the partition for ever. Such a batch, and no other, is read once more, by aiokafka's slow parser, and the
bytes that are no text are spelt out in the name, as Python writes them.
"""

from __future__ import annotations

import struct
from typing import Any

import aiokafka.consumer.fetcher as aiokafka_fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

__all__ = ["KeptRecords", "keep_fetched_bytes", "read_batch_again"]

_LENGTH_AT = 8
_LOG_OVERHEAD = struct.calcsize(">qi")


class KeptRecords(MemoryRecords):  # type: ignore[misc]  # aiokafka ships no types
    """What a fetch brought, and its bytes, which aiokafka's own keeps to itself."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


class _Text(bytearray):
    """Bytes whose parts decode whatever they are."""

    def __getitem__(self, place: Any) -> Any:
        part = super().__getitem__(place)
        return _Text(part) if isinstance(place, slice) else part

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        del errors
        return super().decode(encoding, "backslashreplace")


class _LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # aiokafka ships no types
    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer: Any = _Text(self._buffer)


def keep_fetched_bytes() -> None:
    """Have aiokafka's fetcher keep the bytes that it parses; once a process."""
    aiokafka_fetcher.MemoryRecords = KeptRecords


def read_batch_again(records: Any, base_offset: int) -> Any:
    """The batch at that offset, its header names readable."""
    data, at = memoryview(records.data), 0
    while struct.unpack_from(">q", data, at)[0] != base_offset:
        at += _LOG_OVERHEAD + struct.unpack_from(">i", data, at + _LENGTH_AT)[0]
    end = at + _LOG_OVERHEAD + struct.unpack_from(">i", data, at + _LENGTH_AT)[0]
    return _LenientBatch(bytearray(data[at:end]))
