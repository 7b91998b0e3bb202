import csv
import io
from typing import Any

import orjson
import pytest

from app.events import format_time
from app.integrations.chain import GENESIS, hash_of
from app.integrations.export import CSV_COLUMNS, Anchor, PartitionExport, Span, Writer, choose_anchor, writer_of
from app.integrations.export_range import between
from app.integrations.verification import Verdict, verify
from tests.support.audit_records import audit_value

AT_MS = 1_750_000_000_000
WHOLE = Span(0, 0, 100, Anchor())


def export(
    count: int = 6,
    span: Span = WHOLE,
    *,
    resource: str | None = None,
    partitions: int = 1,
    writer: Writer | None = None,
    **fields: Any,
) -> bytes:
    writer = writer or writer_of("jsonl")
    found = PartitionExport(span, resource)
    made = (found.add(offset, AT_MS + offset, audit_value(offset, **fields)) for offset in range(span.start, count))
    lines = [writer.entry(entry) for entry in made if entry is not None]
    return b"".join([writer.head(), *lines, writer.trailer(found.trailer(partitions))])


def lines(exported: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in exported.splitlines()]


def check(found: list[dict[str, Any]]) -> Verdict:
    (verdict,) = verify(found)
    return verdict


def kinds(found: list[dict[str, Any]]) -> set[str]:
    return {finding.kind for verdict in verify(found) for finding in verdict.findings}


def test_an_export_is_whole_and_says_where_it_ends() -> None:
    exported = lines(export())
    verdict = check(exported)
    assert verdict.ok
    assert verdict.ended
    assert (verdict.first, verdict.from_start, verdict.checked) == (0, True, 6)
    assert exported[-1] == {
        "trailer": {
            "partition": 0,
            "sequence": 5,
            "hash": exported[-2]["hash"],
            "entries": 6,
            "previous_hash": GENESIS,
            "partitions": 1,
        }
    }


@pytest.mark.parametrize("at", range(6))
def test_a_removed_entry_is_found_wherever_it_stood(at: int) -> None:
    exported = lines(export())
    del exported[at]
    assert kinds(exported) == {"truncated" if at == 5 else "removed"}


def test_an_entry_behind_the_last_one_is_found_though_it_is_chained() -> None:
    longer, shorter = lines(export(7)), lines(export(6))
    assert kinds([*longer[:7], shorter[-1]]) == {"inserted"}
    assert kinds([*shorter, longer[6]]) == {"inserted"}


def test_a_file_that_was_cut_anywhere_is_found() -> None:
    exported = lines(export(partitions=2)) + lines(export(span=Span(1, 0, 100, Anchor()), partitions=2))
    assert kinds(exported) == set()
    for length in range(7, len(exported)):
        assert kinds(exported[:length]) == {"truncated"}, length


def test_a_time_range_begins_in_the_middle_of_the_chain() -> None:
    whole = lines(export())
    ranged = lines(export(span=Span(0, 3, 5, Anchor(2, whole[1]["hash"]))))
    assert ranged[:-1] == whole[3:5]
    verdict = check(ranged)
    assert verdict.ok
    assert (verdict.first, verdict.from_start) == (3, False)
    assert kinds(ranged[1:]) == {"removed"}


class TestATimeRangeOfAFile:
    """Of records 0 to 9, a second apart: 4, 5 and 6, unless said otherwise."""

    def part(self, found: list[dict[str, Any]], first: int | None = 4, until: int | None = 7) -> Verdict:
        times = (None if at is None else format_time(AT_MS + at * 1000) for at in (first, until))
        return check(list(between(found, *times)))

    def whole(self, resource: str | None = None) -> list[dict[str, Any]]:
        found, writer = PartitionExport(WHOLE, resource), writer_of("jsonl")
        made = (
            found.add(offset, AT_MS + offset * 1000, audit_value(offset, resource=self.named(offset)))
            for offset in range(10)
        )
        exported = [writer.entry(entry) for entry in made if entry is not None]
        return lines(b"".join([*exported, writer.trailer(found.trailer(1))]))

    @staticmethod
    def named(offset: int) -> dict[str, str]:
        return {"type": "dataset", "id": f"ds-{offset % 2}"}

    @pytest.mark.parametrize(
        ("first", "until", "checked"),
        [
            (4, 7, 3),
            (0, 7, 7),
            (4, 10, 6),
            (None, 7, 7),
            (4, None, 6),
            (None, None, 10),
            (20, 30, 0),
            (4, 4, 0),
            (None, 0, 0),
        ],
    )
    def test_of_a_whole_one_is_whole(self, first: int | None, until: int | None, checked: int) -> None:
        verdict = self.part(self.whole(), first, until)
        assert (verdict.ok, verdict.ended, verdict.checked) == (True, True, checked)
        assert self.part(self.whole("ds-0"), first, until).ok

    @pytest.mark.parametrize("removed", [[4], [5], [6], [4, 5], [5, 6], [4, 5, 6]])
    def test_shows_what_was_removed_anywhere_in_it(self, removed: list[int]) -> None:
        found = [line for line in self.whole() if line.get("sequence") not in removed]
        assert not self.part(found).ok

    @pytest.mark.parametrize(("first", "until", "removed"), [(None, 3, 0), (7, None, 9), (9, None, 9), (None, 1, 0)])
    def test_shows_what_was_removed_where_it_ends_with_the_file(
        self, first: int | None, until: int | None, removed: int
    ) -> None:
        found = [line for line in self.whole() if line.get("sequence") != removed]
        assert not self.part(found, first, until).ok

    @pytest.mark.parametrize("at", [4, 5, 6])
    def test_shows_what_was_edited_and_hashed_anew(self, at: int) -> None:
        found = self.whole()
        found[at]["action"] = "forged"
        found[at]["hash"] = hash_of(found[at])
        assert [finding.kind for finding in self.part(found).findings] == ["edited"]

    @pytest.mark.parametrize("at", [0, 2, 9])
    def test_passes_over_what_was_removed_or_edited_elsewhere(self, at: int) -> None:
        found = self.whole()
        found[at]["action"] = "forged"
        assert self.part(found).ok
        del found[at]
        assert self.part(found).ok

    @pytest.mark.parametrize("removed", [4, 6])
    def test_of_one_resource_shows_a_removed_entry_by_their_number(self, removed: int) -> None:
        found = [line for line in self.whole("ds-0") if line.get("sequence") != removed]
        assert [finding.kind for finding in self.part(found).findings] == ["removed"]


def test_a_partition_without_entries_has_a_trailer_all_the_same() -> None:
    empty = lines(export(0))
    assert empty == [{"trailer": {"partition": 0, "sequence": -1, "hash": GENESIS, "entries": 0, "partitions": 1}}]
    assert kinds(empty) == set()
    assert "inserted" in kinds([lines(export())[0], *empty])


def test_entries_of_one_resource_need_not_be_chained_and_none_is_removed_unseen() -> None:
    found = PartitionExport(WHOLE, "ds-7")
    writer = writer_of("jsonl")
    made = []
    for offset in range(9):
        name = "ds-7" if offset % 3 == 0 else "ds-8"
        value = audit_value(offset, resource={"type": "job", "id": f"job-{offset}", "dataset_id": name})
        entry = found.add(offset, AT_MS, value)
        made += [orjson.loads(writer.entry(entry))] if entry is not None else []
    made.append(orjson.loads(writer.trailer(found.trailer(1))))
    assert [line.get("sequence") for line in made] == [0, 3, 6, None]
    verdict = check(made)
    assert verdict.ok
    assert verdict.filtered
    assert kinds([made[0], *made[2:]]) == {"removed"}
    assert kinds([made[1], made[0], *made[2:]]) == {"swapped"}
    made[1]["action"] = "forged"
    assert kinds(made) == {"edited"}


def test_records_that_are_no_audit_events_are_passed_over() -> None:
    found = PartitionExport(WHOLE)
    assert found.add(0, AT_MS, b"noise") is None
    assert found.add(1, AT_MS, audit_value(1)) is not None


def test_csv_has_a_row_an_entry_and_one_for_the_trailer() -> None:
    exported = export(2, writer=writer_of("csv"))
    rows = list(csv.DictReader(io.StringIO(exported.decode())))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [row["kind"] for row in rows] == ["entry", "entry", "trailer"]
    assert rows[1]["resource_id"] == "ds-1"
    assert orjson.loads(rows[1]["details"]) == {"dataset_id": "ds-1", "name": "n"}
    assert orjson.loads(rows[2]["details"])["entries"] == 2
    assert rows[1]["previous_hash"] == rows[0]["hash"] == lines(export(2))[0]["hash"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "'x"])
def test_csv_makes_no_formula_of_what_stands_in_an_event(text: str) -> None:
    exported = export(1, writer=writer_of("csv"), actor={"id": text, "type": "user"})
    (row, _) = csv.DictReader(io.StringIO(exported.decode()))
    assert row["actor_id"] == f"'{text}"


def test_records_that_are_chained_to_what_retention_took_are_counted() -> None:
    found = lines(export(span=Span(0, 2, 100, Anchor(4, "f" * 64))))
    assert [line.get("sequence") for line in found] == [4, 5, None]
    assert found[-1]["trailer"]["unlinked"] == 2
    assert check(found).ok


class TestTheAnchor:
    BATCHES = (Anchor(4, "b"), Anchor(0, GENESIS), Anchor(8, "c"))

    @pytest.mark.parametrize(("wanted", "first"), [(0, 0), (3, 0), (4, 4), (7, 4), (8, 8), (50, 8)])
    def test_is_the_last_batch_that_begins_before_what_is_wanted(self, wanted: int, first: int) -> None:
        assert choose_anchor(self.BATCHES, 0, wanted).first == first

    def test_passes_over_a_batch_that_retention_cut(self) -> None:
        assert choose_anchor(self.BATCHES, 2, 2) == Anchor(4, "b")

    def test_is_the_beginning_where_nothing_was_sealed(self) -> None:
        assert choose_anchor((), 0, 5) == Anchor(0, GENESIS)
        assert choose_anchor((), 3, 5) == Anchor(3, GENESIS, assumed=True)
