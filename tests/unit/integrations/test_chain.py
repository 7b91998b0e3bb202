import hashlib
import json
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.events import canonical_json
from app.integrations import verification
from app.integrations.chain import (
    GENESIS,
    Batch,
    Entry,
    batch_id,
    chain_id,
    hash_of,
    make_entry,
)
from app.integrations.verification import TopicCheck, Trailer, Verdict, verify
from tests.support.audit_records import audit, audit_value

AT_MS = 1_750_000_000_000
Topic = list[tuple[int, int, bytes]]


def entries(count: int, partition: int = 0) -> list[dict[str, Any]]:
    return [orjson.loads(entry.body) for entry in chain(range(count), partition)]


def chain(offsets: Iterable[int], partition: int = 0) -> Iterator[Entry]:
    previous = GENESIS
    for offset in offsets:
        entry = make_entry(
            audit(offset), partition=partition, sequence=offset, timestamp_ms=AT_MS + offset, previous_hash=previous
        )
        previous = entry.hash
        yield entry


def topic(count: int) -> Topic:
    return [(number, AT_MS + number, audit_value(number)) for number in range(count)]


def batches(offsets: Iterable[int], size: int = 3) -> list[Batch]:
    all_ = list(chain(offsets))
    hashes = [GENESIS, *(entry.hash for entry in all_)]
    sealed = []
    for at in range(0, len(all_) - size + 1, size):
        first, last = all_[at].sequence, all_[at + size - 1].sequence
        sealed.append(
            Batch(
                id=batch_id(chain_id(hashes[1]), 0, first, last),
                partition=0,
                first=first,
                last=last,
                count=size,
                previous_hash=hashes[at],
                last_hash=hashes[at + size],
                oldest_ms=AT_MS + first,
                newest_ms=AT_MS + last,
            )
        )
    return sealed


def check(records: Topic, sealed: list[Batch], noted: tuple[int, str] | None = None, end: int | None = None) -> Verdict:
    checking = TopicCheck(0, sealed, noted)
    for offset, timestamp_ms, value in records:
        checking.add(offset, timestamp_ms, value)
    return checking.end(records[-1][0] + 1 if end is None else end)


def only(verdict: Verdict) -> tuple[str, int | None, str | None]:
    (finding,) = verdict.findings
    return finding.kind, finding.sequence, finding.batch


class TestAnEntry:
    def test_holds_its_place_and_the_hash_of_everything_else(self) -> None:
        entry = make_entry(audit(1), partition=3, sequence=7, timestamp_ms=AT_MS, previous_hash=GENESIS)
        body = orjson.loads(entry.body)
        assert {name: body[name] for name in ("partition", "sequence", "recorded_at", "previous_hash")} == {
            "partition": 3,
            "sequence": 7,
            "recorded_at": "2025-06-15T15:06:40.000Z",
            "previous_hash": "0" * 64,
        }
        rest = {name: value for name, value in body.items() if name != "hash"}
        # The keys of these events are ASCII and their numbers integers: sorted JSON is canonical.
        assert body["hash"] == hashlib.sha256(orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)).hexdigest()
        assert entry.hash == body["hash"] == hash_of(body)
        assert entry.body == orjson.dumps(body, option=orjson.OPT_SORT_KEYS)

    def test_overwrites_a_place_that_its_record_claims(self) -> None:
        claimed = audit(1, sequence=99, partition=99, previous_hash="x", hash="y", recorded_at="z")
        plain = make_entry(audit(1), partition=0, sequence=1, timestamp_ms=AT_MS, previous_hash=GENESIS)
        assert make_entry(claimed, partition=0, sequence=1, timestamp_ms=AT_MS, previous_hash=GENESIS) == plain

    @given(
        st.dictionaries(
            st.text(max_size=4) | st.sampled_from(["hash", "hasg", "hasha", "Hash", "\U0001f600", "\uffff"]),
            st.integers() | st.text(max_size=4) | st.none() | st.floats(allow_nan=False, allow_infinity=False),
            max_size=6,
        )
    )
    def test_is_the_canonical_json_of_all_its_fields_whatever_they_are(self, fields: dict[str, Any]) -> None:
        entry = make_entry(fields, partition=0, sequence=1, timestamp_ms=AT_MS, previous_hash=GENESIS)
        body = json.loads(entry.body)
        assert entry.body == canonical_json(body)
        assert entry.hash == body["hash"] == hash_of(body)

    def test_names_chain_and_batch(self) -> None:
        assert chain_id("0123456789abcdef") == "0123456789ab"
        assert batch_id("0123456789ab", 3, 10, 12) == "0123456789ab-3-10-12"


class TestAnExport:
    def test_that_is_whole_is_found_whole(self) -> None:
        (verdict,) = verify(entries(5))
        assert verdict.ok
        assert (verdict.first, verdict.from_start, verdict.checked) == (0, True, 5)
        assert verdict.head == (4, entries(5)[4]["hash"])

    def test_is_checked_by_partition(self) -> None:
        mixed = [entry for pair in zip(entries(3, 0), entries(3, 1), strict=True) for entry in pair]
        assert [(verdict.partition, verdict.ok, verdict.checked) for verdict in verify(mixed)] == [
            (0, True, 3),
            (1, True, 3),
        ]

    def test_that_begins_later_says_so(self) -> None:
        (verdict,) = verify(entries(5)[2:])
        assert verdict.ok
        assert (verdict.first, verdict.from_start) == (2, False)

    def test_with_a_removed_entry_names_it(self) -> None:
        whole = entries(5)
        assert only(verify(whole[:2] + whole[3:])[0])[:2] == ("removed", 3)

    def test_with_an_edited_entry_names_it(self) -> None:
        whole = entries(5)
        whole[2]["actor"]["id"] = "mallory"
        assert only(verify(whole)[0])[:2] == ("edited", 2)

    def test_with_an_entry_edited_and_hashed_anew_names_it(self) -> None:
        whole = entries(5)
        whole[2]["actor"]["id"] = "mallory"
        whole[2]["hash"] = hash_of(whole[2])
        assert only(verify(whole)[0])[:2] == ("edited", 2)

    def test_with_two_entries_swapped_names_them(self) -> None:
        whole = entries(6)
        whole[2], whole[3] = whole[3], whole[2]
        findings = verify(whole)[0].findings
        assert {finding.kind for finding in findings} == {"swapped"}
        assert findings[0].sequence == 3

    def test_with_its_first_two_entries_swapped_misses_none(self) -> None:
        whole = entries(4)
        trailer = Trailer(0, 3, whole[3]["hash"], entries=4, previous_hash=GENESIS).show()
        (verdict,) = verify([whole[1], whole[0], *whole[2:], trailer])
        assert {finding.kind for finding in verdict.findings} == {"swapped"}
        assert (verdict.first, verdict.from_start) == (0, True)
        (cut,) = verify([*whole[1:], trailer])
        assert {finding.kind for finding in cut.findings} == {"removed"}

    @pytest.mark.parametrize("at", [0, 2, 4])
    @pytest.mark.parametrize("later", [1, 2, 5])
    def test_with_an_entry_given_twice_names_it(self, at: int, later: int) -> None:
        whole = entries(5)
        trailer = {"trailer": {"partition": 0, "sequence": 4, "hash": whole[4]["hash"], "entries": 5}}
        place = min(at + later, 5)
        (verdict,) = verify([*whole[:place], whole[at], *whole[place:], trailer])
        assert only(verdict)[:2] == ("repeated", at)
        assert (verdict.checked, verdict.repeats) == (5, 0)

    def test_with_an_inserted_entry_names_it(self) -> None:
        whole = [orjson.loads(entry.body) for entry in chain([0, 1, 3, 4])]
        forged = make_entry(audit(99), partition=0, sequence=2, timestamp_ms=AT_MS, previous_hash=whole[1]["hash"])
        assert only(verify([*whole[:2], orjson.loads(forged.body), *whole[2:]])[0])[:2] == ("inserted", 2)

    @pytest.mark.parametrize("sequence", [1, 2])
    def test_with_an_inserted_entry_that_takes_the_place_of_another_names_it(self, sequence: int) -> None:
        whole = entries(5)
        forged = make_entry(
            audit(99), partition=0, sequence=sequence, timestamp_ms=AT_MS, previous_hash=whole[2]["hash"]
        )
        findings = verify([*whole[:3], orjson.loads(forged.body), *whole[3:]])[0].findings
        assert ("inserted", sequence) in {(finding.kind, finding.sequence) for finding in findings}

    def test_whose_tail_is_cut_shows_against_its_trailer(self) -> None:
        whole = entries(5)
        trailer = {"trailer": {"partition": 0, "sequence": 4, "hash": whole[4]["hash"]}}
        assert verify([*whole, trailer])[0].ok
        assert only(verify([*whole[:4], trailer])[0])[:2] == ("truncated", 4)

    def test_whose_tail_is_cut_shows_against_a_head_noted_elsewhere(self) -> None:
        whole = entries(5)
        head = {0: (4, whole[4]["hash"])}
        assert verify(whole, head)[0].ok
        assert only(verify(whole[:4], head)[0])[:2] == ("truncated", 4)
        assert only(verify(whole, {0: (4, "f" * 64)})[0])[:2] == ("edited", 4)

    def test_takes_no_more_memory_for_more_entries(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(verification, "_REMEMBERED_EVENTS", 100)

        def peak_bytes(count: int) -> int:
            noted = {0: (1, entries(2)[1]["hash"])}
            tracemalloc.start()
            try:
                (verdict,) = verify((orjson.loads(entry.body) for entry in chain(range(count))), noted)
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
                assert verdict.ok
                assert verdict.checked == count

        assert peak_bytes(9_000) < 1.5 * peak_bytes(3_000)

    def test_without_a_partition_that_was_noted_is_truncated(self) -> None:
        assert [only(verdict)[0] for verdict in verify([], {2: (4, "f" * 64)})] == ["truncated"]

    def test_counts_repeated_events_without_finding_fault(self) -> None:
        previous, twice = GENESIS, []
        for sequence in range(2):
            entry = make_entry(audit(1), partition=0, sequence=sequence, timestamp_ms=AT_MS, previous_hash=previous)
            previous = entry.hash
            twice.append(orjson.loads(entry.body))
        (verdict,) = verify(twice)
        assert verdict.ok
        assert verdict.repeats == 1

    def test_with_an_entry_that_has_no_hash_is_not_whole(self) -> None:
        assert only(verify([{"partition": 0}])[0])[0] == "unreadable"


class TestATopic:
    def test_that_is_whole_is_found_whole(self) -> None:
        verdict = check(topic(8), batches(range(8)))
        assert verdict.ok
        assert (verdict.first, verdict.from_start, verdict.batches, verdict.unsealed) == (0, True, 2, 2)
        assert verdict.head == (7, list(chain(range(8)))[7].hash)

    @pytest.mark.parametrize("at", [3, 4, 5])
    def test_with_a_removed_record_names_its_batch(self, at: int) -> None:
        records = topic(9)
        del records[at]
        assert only(check(records, batches(range(9)))) == ("removed", None, batches(range(9))[1].id)

    @pytest.mark.parametrize("at", [3, 4, 5])
    def test_with_an_edited_record_names_its_batch(self, at: int) -> None:
        records = topic(9)
        records[at] = (at, AT_MS + at, audit_value(at, actor={"id": "mallory", "type": "user"}))
        assert only(check(records, batches(range(9)))) == ("edited", None, batches(range(9))[1].id)

    def test_with_another_timestamp_names_its_batch(self) -> None:
        records = topic(9)
        records[4] = (4, AT_MS, records[4][2])
        assert only(check(records, batches(range(9))))[0] == "edited"

    def test_with_two_records_swapped_names_their_batch(self) -> None:
        records = topic(9)
        records[3], records[4] = (3, AT_MS + 3, records[4][2]), (4, AT_MS + 4, records[3][2])
        assert only(check(records, batches(range(9)))) == ("edited", None, batches(range(9))[1].id)

    def test_with_an_inserted_record_names_the_batch(self) -> None:
        # Offset 4 had no entry when the batches were sealed.
        sealed = batches([0, 1, 2, 3, 5, 6, 7, 8, 9])
        noise = [*topic(4), (4, AT_MS + 4, b"noise"), *topic(10)[5:]]
        assert check(noise, sealed).ok
        assert only(check(topic(10), sealed)) == ("inserted", None, sealed[1].id)

    def test_with_a_record_inserted_between_two_batches_names_it(self) -> None:
        sealed = batches([0, 1, 2, 4, 5, 6])
        findings = check(topic(7), sealed).findings
        assert [(finding.kind, finding.sequence) for finding in findings] == [("inserted", 3)]

    def test_that_ends_before_its_last_batch_is_truncated(self) -> None:
        assert only(check(topic(8), batches(range(9)))) == ("truncated", None, batches(range(9))[2].id)

    def test_without_a_batch_row_finds_its_records_sealed_nowhere(self) -> None:
        sealed = batches(range(9))
        kinds = [finding.kind for finding in check(topic(9), [sealed[0], sealed[2]]).findings]
        assert kinds == ["inserted", "inserted", "inserted", "removed"]

    def test_begins_at_the_first_batch_that_retention_left_whole(self) -> None:
        verdict = check(topic(9)[1:], batches(range(9)))
        assert verdict.ok
        assert (verdict.first, verdict.from_start, verdict.batches) == (3, False, 2)

    def test_that_retention_emptied_has_nothing_to_check(self) -> None:
        verdict = TopicCheck(0, batches(range(6))).end(20)
        assert verdict.ok
        assert verdict.first is None

    @pytest.mark.parametrize(
        ("left", "kept_since_ms", "missing"),
        [
            (20, AT_MS, [0, 1, 2]),
            (20, AT_MS + 3, [1, 2]),
            (20, AT_MS + 9, []),
            (3, AT_MS, [0]),
            (4, AT_MS, [0, 1]),
            (4, AT_MS + 1, [1]),
            (4, AT_MS + 4, []),
        ],
    )
    def test_that_lost_records_which_retention_cannot_have_reached_names_their_batches(
        self, left: int, kept_since_ms: int, missing: list[int]
    ) -> None:
        sealed = batches(range(9))
        checking = TopicCheck(0, sealed, kept_since_ms=kept_since_ms)
        for record in topic(9)[left:]:
            checking.add(*record)
        findings = checking.end(9).findings
        assert [(finding.kind, finding.batch) for finding in findings] == [
            ("removed", sealed[number].id) for number in missing
        ]

    def test_passes_over_records_that_are_no_audit_events(self) -> None:
        records = topic(6)
        # Offset 6 has no entry: the chain goes on around it.
        records.append((6, AT_MS + 6, b"noise"))
        assert check(records, batches(range(6))).ok

    def test_is_compared_with_a_head_noted_elsewhere(self) -> None:
        head = list(chain(range(8)))[7].hash
        assert check(topic(8), batches(range(8)), (7, head)).ok
        assert only(check(topic(8), batches(range(8)), (7, "f" * 64)))[:2] == ("edited", 7)
        assert only(check(topic(7), batches(range(8)), (7, head)))[:2] == ("truncated", 7)

    def test_judges_later_batches_by_what_was_sealed(self) -> None:
        records = topic(12)
        records[1] = (1, AT_MS + 1, audit_value(1, action="forged"))
        records[10] = (10, AT_MS + 10, audit_value(10, action="forged"))
        found = [finding.batch for finding in check(records, batches(range(12))).findings]
        assert found == [batches(range(12))[0].id, batches(range(12))[3].id]
