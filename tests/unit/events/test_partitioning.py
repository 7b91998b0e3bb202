import pytest
from aiokafka.partitioner import DefaultPartitioner

from app.events import delivery_id, murmur2, new_event, partition_for, record_key

# org.apache.kafka.common.utils.UtilsTest.testMurmur2, with the sign bit cleared as toPositive does.
JAVA = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]


@pytest.mark.parametrize(("key", "java"), JAVA)
def test_murmur2_is_javas(key: bytes, java: int) -> None:
    assert murmur2(key) == java & 0x7FFFFFFF


@pytest.mark.parametrize("count", [1, 4, 12, 50])
def test_a_key_goes_where_the_default_partitioner_puts_it(count: int) -> None:
    partitions = list(range(count))
    for number in range(100):
        key = f"ds-{number}".encode()
        assert partition_for(key, count) == DefaultPartitioner()(key, partitions, partitions)


def test_the_record_key_is_partitionkey_else_subject_else_id() -> None:
    keyed = new_event(id="e-1", source="/s", type="t", subject="ds-1", extensions={"partitionkey": "pk"})
    assert record_key(keyed) == b"pk"
    assert record_key(new_event(id="e-1", source="/s", type="t", subject="ds-1")) == b"ds-1"
    assert record_key(new_event(id="e-1", source="/s", type="t")) == b"e-1"


def test_a_partitionkey_that_is_no_string_is_taken_as_its_text() -> None:
    assert record_key(new_event(id="e-1", source="/s", type="t", extensions={"partitionkey": 7})) == b"7"
    assert record_key(new_event(id="e-1", source="/s", type="t", extensions={"partitionkey": True})) == b"true"


def test_the_delivery_id_has_its_golden_value() -> None:
    # base32 of murmur2(webhook id), big-endian, and blake2b-12 of source 0x00 id 0x00 webhook id: 16 bytes.
    assert delivery_id("wh_abcdefghijklmnopqrstuvwxyz", "/vault/datasets", "e-1") == "dlv_pl7lkusqn3bivipffn2cy6zsgq"


def test_the_delivery_id_is_constant_and_differs_by_webhook_source_and_event() -> None:
    ids = {
        delivery_id(webhook, source, event) for webhook in ("wh_a", "wh_b") for source in ("/s", "/t") for event in "12"
    }
    assert len(ids) == 8
    assert delivery_id("wh_a", "/s", "1") in ids
    assert all(len(found) == 30 and found.startswith("dlv_") and "." not in found for found in ids)
