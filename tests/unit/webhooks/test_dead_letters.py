"""Dead letters read back as they were written."""

import orjson
import pytest

from app.webhooks.dead_letters import DeadLetterFilter, read_dead_letter, show_dead_letter
from app.webhooks.derived import Publisher
from app.webhooks.errors import SerializationFailed
from app.webhooks.model import DeliveryRow, Reason, Status

EVENT = b'{ "specversion":"1.0","id":"e-1", "source":"/v","type":"llm.data-vault.dataset.created","data":{"n":1.0} }'
ROW = DeliveryRow(
    delivery_id="dlv_a",
    webhook_id="wh_a",
    event_id="e-1",
    event_source="/v",
    event_type="llm.data-vault.dataset.created",
    origin="t/0/7",
    status=Status.FAILED,
    attempts=3,
    status_code=500,
    error="status_500",
    created_at_ms=1000,
    waiting_since_ms=1000,
    expires_at_ms=9000,
)


def written(body: bytes | None = EVENT) -> bytes:
    return Publisher("/vault-stream/test", "w1").given_up(ROW, Reason.EXHAUSTED, body, 5000)


@pytest.mark.parametrize("body", [EVENT, b" \r\n" + EVENT + b"\t\n ", b"\n" + EVENT])
def test_white_space_around_the_event_comes_back_too(body: bytes) -> None:
    assert read_dead_letter(0, 0, 0, written(body)).event == body


def test_the_event_comes_back_byte_for_byte() -> None:
    letter = read_dead_letter(3, 41, 5000, written())
    assert letter.event == EVENT
    assert show_dead_letter(letter) == {
        "id": "3-41",
        "given_up_at": "1970-01-01T00:00:05.000Z",
        "delivery_id": "dlv_a",
        "webhook_id": "wh_a",
        "event_id": "e-1",
        "event_source": "/v",
        "event_type": "llm.data-vault.dataset.created",
        "reason": "exhausted",
        "attempts": 3,
        "first_at": "1970-01-01T00:00:01.000Z",
        "last_at": "1970-01-01T00:00:01.000Z",
        "last_code": 500,
        "last_error": "status_500",
        "origin": "t/0/7",
    }
    assert letter.without_event().event is None


@pytest.mark.parametrize(
    ("expirytime", "shown"),
    [
        (b'"2026-01-31T13:00:00+01:00"', "2026-01-31T12:00:00.000Z"),
        (b"null", None),
        (b'"soon"', None),
        (b'"9999-12-31T23:59:59-05:00"', None),
        (b'"0001-01-01T00:00:00+01:00"', None),
        (b"5", None),
    ],
)
def test_it_shows_when_its_event_expires_and_what_is_no_time_hides_none(expirytime: bytes, shown: str | None) -> None:
    letter = read_dead_letter(0, 0, 0, written(EVENT.replace(b'"id"', b'"expirytime":' + expirytime + b',"id"')))
    assert show_dead_letter(letter.without_event()).get("event_expires_at") == shown


def test_one_without_its_event_says_so() -> None:
    letter = read_dead_letter(0, 0, 5000, written(None))
    assert (letter.event, letter.event_id) == (None, None)


@pytest.mark.parametrize("value", [None, b"", b"{}", b"[]", orjson.dumps({"time": "x", "data": {"delivery_id": 1}})])
def test_what_is_none_of_ours_is_refused(value: bytes | None) -> None:
    with pytest.raises(SerializationFailed):
        read_dead_letter(0, 0, 0, value)


@pytest.mark.parametrize(
    ("only", "takes"),
    [
        (DeadLetterFilter(), True),
        (DeadLetterFilter(webhook_id="wh_a", reason="exhausted"), True),
        (DeadLetterFilter(webhook_id="wh_b"), False),
        (DeadLetterFilter(reason="rejected"), False),
        (DeadLetterFilter(event_type="dataset.created"), True),
        (DeadLetterFilter(event_type="llm.data-vault.dataset.created"), True),
        (DeadLetterFilter(event_type="dataset.deleted"), False),
        (DeadLetterFilter(since_ms=5000, until_ms=5001), True),
        (DeadLetterFilter(since_ms=5001), False),
        (DeadLetterFilter(until_ms=5000), False),
    ],
)
def test_a_filter_takes_what_all_its_parts_take(only: DeadLetterFilter, takes: bool) -> None:
    assert only.takes(read_dead_letter(0, 0, 5000, written())) is takes
