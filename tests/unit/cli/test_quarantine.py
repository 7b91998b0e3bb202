"""What the quarantine commands make of what they read; that it comes back on a broker is tests/system's to prove."""

from types import SimpleNamespace

import msgspec
import pytest
from click.testing import CliRunner

from app.cli import cli
from app.cli.quarantined import entry_of, newest_of_each_origin
from app.engine.quarantine import quarantine_message
from app.redrive.entries import Entry, Filter, plan_of
from app.redrive.operator import Transactions
from app.redrive.republish import redrive
from app.topics import Topics
from tests.support.engine import FakeRecord

INTENT = (("vs-delivery-id", b"dlv_1"), ("vs-reason", b"event"), ("vs-timestamp", b"7"), ("traceparent", None))


def message(
    record: FakeRecord, place: str = "0-1", at_ms: int = 1000, reason: str = "handler_error"
) -> SimpleNamespace:
    made = quarantine_message("q", "router", record, reason, "why")
    partition, offset = map(int, place.split("-"))
    return SimpleNamespace(
        key=lambda: made.key,
        value=lambda: made.value,
        headers=lambda: list(made.headers) or None,
        partition=lambda: partition,
        offset=lambda: offset,
        timestamp=lambda: (1, at_ms),
    )


def entry(record: FakeRecord, *args: object, **named: object) -> Entry:
    found = entry_of(message(record, *args, **named))
    assert found is not None
    return found


class Topic:
    """A reader of one topic with these records."""

    def __init__(self, *messages: SimpleNamespace) -> None:
        self.messages = messages

    def records(self, topic: str, doing: str) -> tuple[SimpleNamespace, ...]:
        return self.messages


@pytest.mark.parametrize("value", [b"\x00bytes", b"", None])
def test_a_record_is_read_back_as_it_came_though_its_headers_are_named_like_ours(value: bytes | None) -> None:
    record = FakeRecord("vault.webhook.deliveries", 3, 41, 1234, b"wh_1", value, INTENT)

    found = entry(record, "2-7").record

    assert (found.topic, found.partition, found.offset, found.timestamp_ms) == (record.topic, 3, 41, 1234)
    assert (found.key, found.value, found.headers) == (b"wh_1", value, INTENT)
    assert (found.reason, found.detail, found.agent) == ("handler_error", "why", "router")
    assert found.origin == found.first_origin == "vault.webhook.deliveries/3/41"


def test_a_record_of_somebody_else_is_no_entry() -> None:
    for headers in (None, [("vs-reason", b"x")], [("vs-reason", None), ("vs-topic", b"t"), ("vs-partition", b"no")]):
        foreign = message(FakeRecord())
        foreign.headers = lambda headers=headers: headers
        assert entry_of(foreign) is None


@pytest.mark.parametrize(
    ("record", "type_"),
    [
        (FakeRecord(value=b'{"specversion":"1.0","type":"llm.data-vault.dataset.created"}'), "dataset.created"),
        (FakeRecord(value=b"data", headers=(("ce_type", b"llm.data-vault.pii.detected"),)), "pii.detected"),
        (FakeRecord(value=b'{"type":7}'), None),
        (FakeRecord(value=b"[1]"), None),
        (FakeRecord(value=b"cut off"), None),
    ],
)
def test_the_type_is_read_where_one_can_be(record: FakeRecord, type_: str | None) -> None:
    found = entry(record)
    assert found.type == (None if type_ is None else f"llm.data-vault.{type_}")
    assert Filter(type="dataset.created").takes(found) == (type_ == "dataset.created")


def test_a_filter_takes_what_all_its_parts_take() -> None:
    found = entry(FakeRecord("vault.events", 0, 5), at_ms=5000)

    assert Filter().takes(found)
    takes = {"reason": "handler_error", "agent": "router", "topic": "vault.events", "origin": "vault.events/0/5"}
    assert Filter(**takes, since_ms=5000, until_ms=5001).takes(found)
    for name in takes:
        assert not Filter(**{**takes, name: "other"}).takes(found)
    assert not Filter(since_ms=5001).takes(found)
    assert not Filter(until_ms=5000).takes(found)


def test_of_each_origin_the_newest_counts_however_often_it_was_put_back() -> None:
    again = FakeRecord("in", 0, 90, headers=(("vs-republished", b"in/0/5"), ("x", b"1")))
    thrice = FakeRecord("in", 0, 95, headers=(("x", b"1"), ("vs-republished", b"in/0/5")))
    topic = Topic(
        message(FakeRecord("in", 0, 5, headers=(("x", b"1"),)), "0-1", 1000),
        message(FakeRecord("in", 0, 6), "0-2", 1000),
        message(FakeRecord("in", 0, 6), "0-3", 1001),
        message(again, "1-1", 3000),
        message(thrice, "2-1", 4000, reason="too_large"),
    )

    found = newest_of_each_origin(topic, "q", Filter())

    assert [(one.id, one.record.origin, one.record.first_origin) for one in found] == [
        ("2-1", "in/0/95", "in/0/5"),
        ("0-3", "in/0/6", "in/0/6"),
    ]
    assert found[0].record.headers == (("x", b"1"),)
    assert newest_of_each_origin(topic, "q", Filter(reason="handler_error")) == found[1:]
    assert newest_of_each_origin(topic, "q", Filter(origin="in/0/5")) == found[:1]


def test_ids_a_filter_or_all_must_be_said_and_only_one_of_them() -> None:
    for arguments in ([], ["0-1", "--all"], ["0-1", "--reason", "too_large"], ["--all", "--agent", "router"]):
        result = CliRunner().invoke(cli, ["quarantine", "republish", "--yes", *arguments])
        assert result.exit_code == 2
        assert "give ids, or a filter, or --all" in result.stderr


@pytest.mark.parametrize("wrong", [["show", "7"], ["show", "a-b"], ["list", "--since", "yesterday"]])
def test_what_is_no_id_and_no_time_is_wrong_usage(wrong: list[str]) -> None:
    assert CliRunner().invoke(cli, ["quarantine", *wrong]).exit_code == 2


class NoTransactions(Transactions):
    """Nothing is to be put back."""

    def __init__(self) -> None:
        """Without a broker."""


def test_a_plan_counts_apart_what_will_be_refused_and_says_why_in_the_words_of_the_refusal() -> None:
    whole = entry(FakeRecord("t", 0, 1, 7, b"k", b"v", ()), "0-1")
    record = msgspec.structs.replace(whole.record, offset=2, truncated=3_000_000)
    part = msgspec.structs.replace(whole, id="0-2", record=record)

    refused = redrive(NoTransactions(), Topics("vault", "app"), iter([part]), lambda _: [0], {}, lambda _: None).refused

    assert plan_of([whole, part]) == {
        "would_republish": 1,
        "of": [{"topic": "t", "reason": "handler_error", "agent": "router", "records": 1}],
        "refused": refused,
    }
    assert refused == {"0-2": "only a part of its 3000000 bytes is here"}
    assert plan_of([part]) == {"would_republish": 0, "of": [], "refused": refused}
