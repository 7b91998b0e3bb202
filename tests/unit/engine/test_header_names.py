"""Batches as a broker serves them, with header names that no client of ours would write."""

import struct

import aiokafka.consumer.fetcher as aiokafka_fetcher
import pytest
from aiokafka import TopicPartition
from aiokafka.codec import zstd_encode
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from app.engine.header_names import keep_fetched_bytes
from app.engine.taking import _next_batch

NAME = b"\xff\xfe\x00caf\xc3\xa9"
ZSTD = 4
HEAD_BYTES = 61


@pytest.fixture(autouse=True)
def _kept() -> None:
    keep_fetched_bytes()


def batch(base: int, *, name: bytes = NAME, zstd: bool = False) -> bytes:
    """Three records, the middle one with two headers of that name, one of them without a value."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=1 << 20,
    )  # fmt: skip
    stand_in = "n" * len(name)
    for at, headers in enumerate(([("plain", b"1")], [(stand_in, b"2"), (stand_in, None)], [])):
        builder.append(at, 1000 + at, b"key-%d" % at, b"value-%d" % at, headers)
    data = bytearray(bytes(builder.build()).replace(stand_in.encode(), name))
    if zstd:
        data[HEAD_BYTES:] = zstd_encode(bytes(data[HEAD_BYTES:]))
        struct.pack_into(">h", data, 21, ZSTD)
        struct.pack_into(">i", data, 8, len(data) - 12)
    struct.pack_into(">q", data, 0, base)
    struct.pack_into(">I", data, 17, calc_crc32c(memoryview(bytes(data[21:]))))
    return bytes(data)


def fetched(*batches: bytes, first: int = 0) -> PartitionRecords:
    records = aiokafka_fetcher.MemoryRecords(b"".join(batches))
    return PartitionRecords(TopicPartition("in", 0), records, [], first, None, None, True, READ_COMMITTED)


@pytest.mark.parametrize("zstd", [False, True], ids=["plain", "zstd"])
def test_a_name_that_is_no_text_is_read_with_its_bytes_spelt_out(*, zstd: bool) -> None:
    source = fetched(batch(10, name=b"plain-name"), batch(13, zstd=zstd), batch(16, name=b"plain-name"), first=10)

    before, garbled, after = (_next_batch(source) for _ in range(3))

    assert [r.offset for r in (*before, *garbled, *after)] == list(range(10, 19))
    assert [r.value for r in garbled] == [b"value-0", b"value-1", b"value-2"]
    assert [r.key for r in garbled] == [b"key-0", b"key-1", b"key-2"]
    assert [r.timestamp for r in garbled] == [1000, 1001, 1002]
    assert [list(r.headers) for r in garbled] == [
        [("plain", b"1")],
        [("\\xff\\xfe\x00café", b"2"), ("\\xff\\xfe\x00café", None)],
        [],
    ]
    assert source.next_fetch_offset == 19


def test_a_fetch_that_begins_inside_of_such_a_batch_repeats_nothing() -> None:
    source = fetched(batch(0), first=2)

    assert [r.offset for r in _next_batch(source)] == [2]
