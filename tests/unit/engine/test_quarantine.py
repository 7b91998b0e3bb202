import hashlib

from app.engine.quarantine import QUARANTINE_VALUE_BYTES, TRUNCATED_BYTES, cut_message, quarantine_message
from tests.support.engine import FakeRecord


def test_a_quarantined_record_keeps_its_bytes_headers_and_origin() -> None:
    record = FakeRecord("vault.x", 2, 7, 1234, b"key", b"\x00garbage", (("content-type", b"text/plain"),))

    message = quarantine_message("vault.quarantine", "router", record, "invalid_envelope", "id is missing")

    assert (message.topic, message.key, message.value) == ("vault.quarantine", b"vault.x/2/7", b"\x00garbage")
    assert dict(message.headers) == {
        "content-type": b"text/plain",
        "vs-reason": b"invalid_envelope",
        "vs-detail": b"id is missing",
        "vs-topic": b"vault.x",
        "vs-partition": b"2",
        "vs-offset": b"7",
        "vs-timestamp": b"1234",
        "vs-key": b"a2V5",
        "vs-agent": b"router",
    }


def test_an_empty_value_a_tombstone_and_a_header_without_a_value_are_kept_as_they_are() -> None:
    for value in (b"", None):
        record = FakeRecord(key=None, value=value, headers=(("", b""), ("n", None)))

        message = quarantine_message("q", "router", record, "handler_error", "")

        assert message.value == value
        assert list(message.headers[:2]) == [("", b""), ("n", None)]
        assert dict(message.headers)["vs-key"] == b""


def test_a_value_that_no_topic_carries_is_cut_and_says_so() -> None:
    value = b"x" * (3 << 20)

    message = quarantine_message("q", "router", FakeRecord(value=value), "too_large", "")

    assert message.value == value[:TRUNCATED_BYTES]
    headers = dict(message.headers)
    assert headers["vs-truncated"] == b"%d" % len(value)
    assert headers["vs-sha256"] == hashlib.sha256(value).hexdigest().encode()


def test_headers_and_a_key_that_no_topic_carries_are_cut_too() -> None:
    large = b"h" * QUARANTINE_VALUE_BYTES
    record = FakeRecord(key=large, value=b"v", headers=(("small", b"1"), ("large", large), ("later", b"2")))

    for message in (quarantine_message("q", "a", record, "r", "d"), cut_message("q", "a", record, "r", "d")):
        headers = dict(message.headers)
        assert sum(len(name) + len(value) for name, value in message.headers) < 2 * TRUNCATED_BYTES
        assert headers["small"] == b"1"
        assert not {"large", "later"} & headers.keys()
        assert headers["vs-truncated"] == b"1"
