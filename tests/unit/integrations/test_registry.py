import hashlib
from itertools import permutations
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.events import CloudEvent, decode_record
from app.integrations.registry import (
    DatasetRow,
    acknowledged,
    change_kind,
    document,
    fold,
    is_dirty,
    refused,
    schema_hash,
    status_of,
)

AT_MS = 1_750_000_000_000


def event(type_: str, number: int = 1, **data: Any) -> CloudEvent:
    fields = {"specversion": "1.0", "id": f"e-{number}", "source": "/vault", "type": f"llm.data-vault.{type_}"}
    return decode_record(orjson.dumps({**fields, "data": {"dataset_id": "ds-1", **data}}), [])


def folded(*events: tuple[int, CloudEvent]) -> DatasetRow:
    row = None
    for at, item in events:
        row = fold(row, item, AT_MS + at)
    assert row is not None
    return row


def created(number: int = 1, **data: Any) -> CloudEvent:
    return event("dataset.created", number, **{"name": "Claims", **data})


class TestWhatTheRegistryIsTold:
    def test_holds_every_field_that_was_stated(self) -> None:
        row = folded((0, created(version="3", schema_hash="sha256:ab", record_count=10, tags=["pii"])))
        assert document(row) == {
            "id": "ds-1",
            "name": "Claims",
            "version": "3",
            "schema_hash": "sha256:ab",
            "record_count": 10,
            "created_at": "2025-06-15T15:06:40.000Z",
            "tags": ["pii"],
        }

    def test_leaves_out_what_nobody_stated(self) -> None:
        told = document(folded((0, created()), (1, event("records.ingested", 2, record_count=5))))
        assert told is not None
        assert told.keys() == {"id", "name", "created_at", "tags"}

    def test_keeps_the_values_of_tags_in_all_three_spellings(self) -> None:
        tags = ["plain", {"key": "team", "value": "risk"}, {"name": "tier", "value": 1}, {"key": "bare"}]
        told = document(folded((0, created(tags=tags))))
        assert told is not None
        assert told["tags"] == ["plain", {"key": "team", "value": "risk"}, {"key": "tier", "value": 1}, "bare"]

    def test_waits_until_the_dataset_has_a_name(self) -> None:
        row = folded((0, event("records.ingested", record_count=5)))
        assert document(row) is None
        assert not is_dirty(row)

    def test_says_that_a_dataset_is_archived(self) -> None:
        told = document(folded((0, created()), (1, event("dataset.archived", 2))))
        assert told is not None
        assert told["status"] == "archived"

    def test_is_a_deletion_once_the_dataset_is_deleted(self) -> None:
        row = folded((0, created()), (1, event("dataset.deleted", 2)))
        assert document(row) is None
        assert is_dirty(row)
        assert row.deleted_ms == AT_MS + 1

    @pytest.mark.parametrize("order", list(permutations(range(3))))
    def test_stays_a_deletion_whatever_else_is_said_later(self, order: tuple[int, ...]) -> None:
        events = [(0, created()), (1, event("dataset.deleted", 2)), (2, event("dataset.archived", 3))]
        row = folded(*(events[at] for at in order))
        assert (status_of(row), document(row), is_dirty(row)) == ("deleted", None, True)
        assert change_kind(row, row) == "deleted"
        again = fold(row, created(4), AT_MS + 3)
        assert status_of(again) == "active"

    def test_names_the_newest_version(self) -> None:
        told = document(folded((0, created(version="1")), (1, event("version.created", 2, version_id="v2"))))
        assert told is not None
        assert told["version"] == "v2"

    def test_hashes_a_schema_that_comes_without_its_hash(self) -> None:
        told = document(folded((0, created(schema={"b": 1, "a": 2}))))
        assert told is not None
        # sha256 of {"a":2,"b":1}
        assert told["schema_hash"] == "sha256:d3626ac30a87e6f7a6428233b3c68299976865fa5508e4267c5415c76af7a772"
        assert told["schema_hash"] == schema_hash({"a": 2, "b": 1})


class TestTheCount:
    def test_is_the_last_stated_plus_ingested_minus_deleted(self) -> None:
        row = folded(
            (0, created(record_count=100)),
            (1, event("records.ingested", 2, record_count=50)),
            (2, event("records.deleted", 3, record_count=20)),
        )
        assert document(row)["record_count"] == 130  # type: ignore[index]

    def test_is_never_below_zero(self) -> None:
        row = folded((0, created(record_count=1)), (1, event("records.deleted", 2, record_count=5)))
        assert document(row)["record_count"] == 0  # type: ignore[index]

    def test_counts_only_what_came_after_the_statement_though_it_was_read_before(self) -> None:
        row = folded(
            (5, event("records.ingested", 1, record_count=7)),
            (1, event("records.ingested", 2, record_count=1000)),
            (3, created(3, record_count=100)),
        )
        assert document(row)["record_count"] == 107  # type: ignore[index]

    def test_ignores_an_export(self) -> None:
        row = folded((0, created(record_count=3)), (1, event("records.exported", 2, record_count=3)))
        assert document(row)["record_count"] == 3  # type: ignore[index]


class TestDisorder:
    def test_a_known_event_changes_nothing(self) -> None:
        row = folded((0, created(record_count=1)), (1, event("records.ingested", 2, record_count=5)))
        assert fold(row, event("records.ingested", 2, record_count=5), AT_MS + 1) is row

    def test_the_last_256_events_are_known(self) -> None:
        row = folded(*((at, event("records.ingested", at, record_count=1)) for at in range(300)))
        assert fold(row, event("records.ingested", 44, record_count=1), AT_MS) is row
        assert fold(row, event("records.ingested", 43, record_count=1), AT_MS) is not row

    def test_an_older_statement_that_comes_late_is_not_taken(self) -> None:
        row = folded((5, event("dataset.updated", 1, name="New")), (1, created(2, name="Old", version="1")))
        told = document(row)
        assert told is not None
        assert (told["name"], told["version"]) == ("New", "1")

    def test_what_is_older_than_a_deletion_does_not_revive_it(self) -> None:
        row = folded((5, event("dataset.deleted", 1)), (1, created(2)), (2, event("dataset.archived", 3)))
        assert row.status == "deleted"

    def test_a_dataset_created_anew_has_nothing_of_the_old_one(self) -> None:
        row = folded(
            (0, created(1, tags=["old"], record_count=9)), (1, event("dataset.deleted", 2)), (2, created(3, name="B"))
        )
        assert document(row) == {"id": "ds-1", "name": "B", "created_at": "2025-06-15T15:06:40.002Z", "tags": []}

    @given(
        st.permutations(
            [
                (0, created(1, tags=["a"], record_count=10)),
                (1, event("records.ingested", 2, record_count=5)),
                (2, event("dataset.updated", 3, name="B", record_count=100)),
                (3, event("records.deleted", 4, record_count=1)),
                (4, event("dataset.deleted", 5)),
                (5, created(6, name="C", record_count=3)),
                (6, event("records.ingested", 7, record_count=4)),
                (7, event("dataset.archived", 8)),
            ]
        )
    )
    def test_the_order_of_arrival_does_not_matter(self, events: list[tuple[int, CloudEvent]]) -> None:
        row = folded(*events)
        assert document(row) == {
            "id": "ds-1",
            "name": "C",
            "created_at": "2025-06-15T15:06:40.005Z",
            "record_count": 7,
            "tags": [],
            "status": "archived",
        }
        assert row.deleted_ms == AT_MS + 4


class TestVersions:
    def test_only_what_the_registry_would_see_makes_a_version(self) -> None:
        row = folded((0, created()))
        assert row.version == 1
        again = fold(row, event("version.tagged", 2, version_id="v", tag="t"), AT_MS + 1)
        assert again.version == 1
        assert fold(again, event("dataset.updated", 3, name="B"), AT_MS + 2).version == 2

    def test_an_acknowledged_state_is_clean_until_the_next_change(self) -> None:
        row = folded((0, created()))
        assert change_kind(row, row) == "registered"
        clean = acknowledged(row, row, "reg-1", AT_MS)
        assert not is_dirty(clean)
        changed = fold(clean, event("dataset.updated", 2, name="B"), AT_MS + 1)
        assert is_dirty(changed)
        assert change_kind(changed, changed) == "updated"

    def test_a_change_during_the_push_stays_dirty(self) -> None:
        pushed = folded((0, created()))
        row = fold(pushed, event("dataset.updated", 2, name="B"), AT_MS + 1)
        assert is_dirty(acknowledged(row, pushed, "reg-1", AT_MS))

    def test_a_refused_state_is_not_tried_again_before_the_next_change(self) -> None:
        row = folded((0, created()))
        stuck = refused(row, row)
        assert not is_dirty(stuck)
        assert is_dirty(fold(stuck, event("dataset.updated", 2, name="B"), AT_MS + 1))

    def test_a_deletion_ends_the_registration(self) -> None:
        row = acknowledged(folded((0, created())), folded((0, created())), "reg-1", AT_MS)
        gone = fold(row, event("dataset.deleted", 2), AT_MS + 1)
        assert change_kind(gone, gone) == "deleted"
        assert acknowledged(gone, gone, None, AT_MS).registration_id is None


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_ties_are_taken_in_the_order_of_the_log(order: tuple[int, ...]) -> None:
    events = [event("dataset.updated", number, name=str(number)) for number in order]
    told = document(folded(*((0, item) for item in events)))
    assert told is not None
    assert told["name"] == str(order[-1])


class TestTheSchemaHash:
    """Of the canonical JSON, RFC 8785: keys in the order of their UTF-16 code units, characters as they are."""

    @pytest.mark.parametrize(
        ("schema", "canonical"),
        [
            ({}, "{}"),
            ({"b": 1, "a": [True, None, "x"]}, '{"a":[true,null,"x"],"b":1}'),
            ({"€": "\u20ac", "ä": "a\u0308"}, '{"ä":"a\u0308","€":"€"}'),
            ({"\ufb33": 1, "\U0001f600": 2, "\u000d": 3}, '{"\\r":3,"\U0001f600":2,"\ufb33":1}'),
            ({"n": 1.0, "m": 1e21, "k": 9007199254740993}, '{"k":9007199254740993,"m":1e+21,"n":1}'),
        ],
    )
    def test_is_of_these_bytes(self, schema: Any, canonical: str) -> None:
        assert schema_hash(schema) == "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()

    @given(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(-9, 9), st.lists(st.text()))), st.randoms())
    def test_does_not_know_the_order_of_keys(self, schema: dict[str, Any], random: Any) -> None:
        keys = list(schema)
        random.shuffle(keys)
        assert schema_hash({key: schema[key] for key in keys}) == schema_hash(schema)

    def test_does_not_know_how_characters_were_escaped(self) -> None:
        plain, escaped = '{"ä":"€","😀":1}', '{"\\ud83d\\ude00":1,"\\u00e4":"\\u20ac"}'
        assert schema_hash(orjson.loads(plain)) == schema_hash(orjson.loads(escaped))

    def test_tells_composed_characters_from_decomposed_ones(self) -> None:
        assert schema_hash({"ä": 1}) != schema_hash({"a\u0308": 1})

    def test_of_an_event_is_its_own_where_it_has_one(self) -> None:
        told = document(folded((0, created(schema={"a": 1}, schema_hash="sha256:own"))))
        assert told is not None
        assert told["schema_hash"] == "sha256:own"
