from typing import Any

import orjson
import pytest

from app.integrations.chain import GENESIS, Batch, ChainHead
from app.integrations.governance import Fate, Flush, Line, Reply, Seal
from tests.support.audit_records import audit

AT_MS = 1_750_000_000_000
FLUSH = Flush(size=3, limit_bytes=1000, interval_s=5.0)


def add(line: Line, *offsets: int, size_bytes: int = 10, at_ms: int = AT_MS, due_s: float = 5.0) -> list[Fate]:
    return [line.add(offset, at_ms + offset, audit(offset), size_bytes=size_bytes, due_s=due_s) for offset in offsets]


def seal(line: Line, now_s: float = 100.0) -> Seal:
    proposal = line.propose(now_s)
    assert proposal is not None
    line.sealed(proposal)
    return proposal


def accept(line: Line) -> None:
    line.settled(line.answered(line.next_part(), Reply.ACCEPTED))


def sealed_line(*offsets: int) -> tuple[Line, Seal]:
    line = Line(0, FLUSH)
    add(line, *offsets)
    return line, seal(line)


def reopened(done: Seal) -> Line:
    return Line(0, FLUSH, done.head, done.batch)


class TestFlush:
    def test_nothing_is_due_before_the_first_record_has_its_age(self) -> None:
        line = Line(0, FLUSH)
        add(line, 0, 1)
        assert line.due_s() == 5.0
        assert line.propose(4.9) is None
        assert seal(line, 5.0).batch.count == 2

    def test_a_full_batch_is_due_at_once(self) -> None:
        line = Line(0, FLUSH)
        add(line, 0, 1, 2, 3)
        assert seal(line, 0.0).batch.count == 3

    def test_bytes_make_a_batch_due_and_bound_it(self) -> None:
        line = Line(0, FLUSH)
        add(line, 0, 1, size_bytes=600)
        assert seal(line, 0.0).batch.count == 1

    def test_a_record_larger_than_a_batch_leaves_alone(self) -> None:
        line = Line(0, FLUSH)
        add(line, 0, size_bytes=5000)
        assert seal(line, 0.0).batch.count == 1

    def test_while_a_batch_is_under_way_none_is_due(self) -> None:
        line, _ = sealed_line(0, 1, 2)
        add(line, 3, 4, 5)
        assert line.due_s() is None
        accept(line)
        assert seal(line, 0.0).batch.first == 3


class TestASealedBatch:
    def test_has_its_range_hashes_and_an_id_made_of_them(self) -> None:
        _, done = sealed_line(4, 7, 8)
        chain = orjson.loads(done.entries[0].body)["hash"][:12]
        assert done.batch == Batch(
            id=f"{chain}-0-4-8",
            partition=0,
            first=4,
            last=8,
            count=3,
            previous_hash=GENESIS,
            last_hash=done.entries[2].hash,
            oldest_ms=AT_MS + 4,
            newest_ms=AT_MS + 8,
        )
        assert done.head == ChainHead(
            chain=chain, sequence=8, hash=done.entries[2].hash, newest_ms=AT_MS + 8, unaccepted=4
        )

    def test_is_chained_to_the_one_before_under_the_same_chain_id(self) -> None:
        line, first = sealed_line(0, 1, 2)
        accept(line)
        add(line, 3)
        second = seal(line)
        assert second.batch.previous_hash == first.batch.last_hash
        assert second.batch.previous_sequence == 2
        assert second.batch.id == f"{first.head.chain}-0-3-3"

    def test_is_posted_as_a_json_array_under_its_id(self) -> None:
        line, done = sealed_line(4, 5)
        part = line.next_part()
        assert part.headers == {
            "Idempotency-Key": done.batch.id,
            "X-Batch-First-Offset": "4",
            "X-Batch-Last-Offset": "5",
        }
        assert [entry["sequence"] for entry in orjson.loads(part.body)] == [4, 5]

    def test_that_is_accepted_leaves_a_head_without_a_mark(self) -> None:
        line, done = sealed_line(0, 1, 2)
        step = line.answered(line.next_part(), Reply.ACCEPTED)
        assert step.done
        assert step.batch.accepted
        assert step.batch.parts == {}
        assert step.head is not None
        assert step.head.unaccepted is None
        assert step.head.hash == done.head.hash


class TestARefusedBatch:
    def test_is_halved_and_the_halves_go_in_order(self) -> None:
        line, done = sealed_line(0, 1, 2)
        step = line.answered(line.next_part(), Reply.REFUSED)
        assert step.split
        assert step.batch.parts == {"": "split"}
        line.settled(step)
        first = line.next_part()
        assert (first.id, [entry.sequence for entry in first.entries]) == (f"{done.batch.id}.0", [0, 1])
        accept(line)
        second = line.next_part()
        assert (second.id, [entry.sequence for entry in second.entries]) == (f"{done.batch.id}.1", [2])

    def test_ends_at_the_one_record_that_is_refused(self) -> None:
        line, _ = sealed_line(0, 1, 2)
        for suffix, reply in (("", "no"), (".0", "no"), (".0.0", "yes"), (".0.1", "no"), (".1", "yes")):
            part = line.next_part()
            assert part.suffix == suffix
            step = line.answered(part, Reply.REFUSED if reply == "no" else Reply.ACCEPTED)
            assert (step.rejected == 1) == (suffix == ".0.1")
            line.settled(step)
        assert step.done
        assert step.batch.parts == {
            "": "split",
            ".0": "split",
            ".0.0": "accepted",
            ".0.1": "rejected",
            ".1": "accepted",
        }

    def test_keeps_the_entry_of_a_rejected_record_in_the_chain(self) -> None:
        line, first = sealed_line(0)
        line.settled(line.answered(line.next_part(), Reply.REFUSED))
        add(line, 1)
        assert seal(line).batch.previous_hash == first.batch.last_hash


class TestAfterACrash:
    def test_the_sealed_range_goes_out_again_byte_for_byte_though_more_has_come(self) -> None:
        line, done = sealed_line(0, 1)
        body = line.next_part().body
        again = reopened(done)
        assert not again.sendable()
        assert add(again, 0, 1, 2, 3) == [Fate.HELD] * 4
        assert again.sendable()
        assert (again.next_part().id, again.next_part().body) == (done.batch.id, body)

    def test_a_split_goes_on_with_the_part_that_is_left(self) -> None:
        line, _ = sealed_line(0, 1, 2)
        line.settled(line.answered(line.next_part(), Reply.REFUSED))
        step = line.answered(line.next_part(), Reply.ACCEPTED)
        again = Line(0, FLUSH, line.head, step.batch)
        add(again, 0, 1, 2)
        assert again.next_part().suffix == ".1"

    def test_a_record_that_the_dashboard_has_is_known(self) -> None:
        line, _ = sealed_line(0, 1, 2)
        accept(line)
        again = Line(0, FLUSH, line.head)
        assert add(again, 1, 2, 3) == [Fate.KNOWN, Fate.KNOWN, Fate.HELD]
        assert seal(again).batch.first == 3

    def test_a_record_before_the_sealed_batch_is_known(self) -> None:
        line, _ = sealed_line(0, 1)
        accept(line)
        add(line, 2, 3)
        done = seal(line)
        again = reopened(done)
        assert add(again, 1, 2, 3) == [Fate.KNOWN, Fate.HELD, Fate.HELD]
        assert again.sendable()


class TestAChangedTopic:
    def test_records_that_give_another_hash_are_not_sent(self) -> None:
        _, done = sealed_line(0, 1)
        again = reopened(done)
        again.add(0, AT_MS, audit(0, action="forged"), size_bytes=10, due_s=0.0)
        add(again, 1, 2)
        assert again.broken is not None
        assert done.batch.id in again.broken
        assert not again.sendable()
        assert again.due_s() is None
        assert again.propose(1000.0) is None

    def test_a_hole_in_a_sealed_batch_is_not_sent(self) -> None:
        _, done = sealed_line(0, 1, 2)
        again = reopened(done)
        add(again, 0, 2)
        assert again.broken is not None

    def test_a_missing_end_of_a_sealed_batch_is_not_sent(self) -> None:
        _, done = sealed_line(0, 1)
        again = reopened(done)
        add(again, 0, 2)
        assert again.broken is not None

    def test_what_retention_left_of_a_batch_is_sealed_anew_from_before_it(self) -> None:
        line, first = sealed_line(0, 1)
        accept(line)
        add(line, 2, 3, 4)
        lost = seal(line)
        again = reopened(lost)
        assert add(again, 4, 5) == [Fate.HELD, Fate.HELD]
        anew = seal(again)
        assert anew.lost == lost.batch
        assert anew.batch.previous_hash == first.batch.last_hash
        assert (anew.batch.first, anew.batch.last) == (4, 5)
        assert anew.batch.id != lost.batch.id
        assert anew.head.chain == first.head.chain

    def test_a_topic_made_anew_begins_a_new_chain(self) -> None:
        line, first = sealed_line(0, 1, 2)
        accept(line)
        again = Line(0, FLUSH, line.head)
        assert add(again, 0, at_ms=AT_MS + 60_000) == [Fate.HELD]
        anew = seal(again)
        assert anew.batch.previous_hash == GENESIS
        assert anew.head.chain != first.head.chain

    def test_a_topic_made_anew_under_a_sealed_batch_begins_a_new_chain(self) -> None:
        _, done = sealed_line(0, 1)
        again = reopened(done)
        add(again, 0, at_ms=AT_MS + 60_000)
        anew = seal(again)
        assert anew.lost == done.batch
        assert anew.batch.previous_hash == GENESIS


def test_a_record_that_is_added_twice_is_held_once() -> None:
    line = Line(0, FLUSH)
    assert add(line, 0, 1, 0, 1) == [Fate.HELD] * 4
    assert seal(line).batch.count == 2


def test_a_record_that_is_added_again_after_it_was_accepted_is_known() -> None:
    line, _ = sealed_line(0, 1)
    add(line, 2)
    accept(line)
    assert add(line, 0, 1, 2) == [Fate.KNOWN, Fate.KNOWN, Fate.HELD]


def test_the_oldest_record_is_known_while_it_is_not_accepted() -> None:
    line = Line(0, FLUSH)
    assert line.oldest_ms() is None
    add(line, 0, 1)
    assert line.oldest_ms() == AT_MS
    seal(line)
    add(line, 2)
    assert line.oldest_ms() == AT_MS
    accept(line)
    assert line.oldest_ms() == AT_MS + 2


@pytest.mark.parametrize("ask", [Line.next_part, lambda line: line.answered(None, Reply.ACCEPTED)])
def test_without_a_sealed_batch_there_is_no_part(ask: Any) -> None:
    with pytest.raises(ValueError, match="sealed batch"):
        ask(Line(0, FLUSH))
