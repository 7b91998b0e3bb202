"""The table of what becomes of a pulled state is played, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from app.events import VaultEventType, decode_record, format_time
from app.integrations.registry import DatasetRow, acknowledged, document, fold, is_clean
from app.integrations.registry_links import MAX_LINKS, RELATIONSHIPS
from app.integrations.registry_pull import Pulled, PullOutcome, fold_pulled, read_page

DOCUMENT = (Path(__file__).parents[2] / "docs" / "registry.md").read_text()
AT_MS = 1_750_000_000_000


def table() -> list[tuple[str, str, str]]:
    """The rows of the document."""
    lines = DOCUMENT.partition("| the vault's state | a pull shows | becomes |\n|---|---|---|\n")[2].splitlines()
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        state, shown, becomes = (cell.strip() for cell in line.strip("|").split("|"))
        rows.append((state, shown, becomes))
    return rows


def named(row: DatasetRow | None, name: str, at_ms: int) -> DatasetRow:
    event = {
        "specversion": "1.0",
        "id": f"e-{name}",
        "source": "/vault",
        "type": str(VaultEventType.DATASET_UPDATED),
        "data": {"dataset_id": "ds-1", "name": name},
    }
    return fold(row, decode_record(orjson.dumps(event), []), at_ms)


def told(row: DatasetRow, at_ms: int) -> DatasetRow:
    return acknowledged(row, row, "reg-1", at_ms)


def pulled(name: str, at_ms: int) -> Pulled:
    item = {"id": "ds-1", "name": name, "tags": [], "updated_at": format_time(at_ms)}
    return read_page({"datasets": [item], "cursor": None}).items[0]


def state(words: str) -> DatasetRow | None:
    """The vault has said "first" and then, at `AT_MS`, "ours"."""
    if words == "unknown":
        return None
    row = told(named(None, "first", AT_MS - 10_000), AT_MS - 9_000)
    row = named(row, "ours", AT_MS)
    if words == "not told yet":
        return row
    row = told(row, AT_MS + 10)
    if words == "told to the registry":
        return row
    assert words == "told, and seen there"
    return fold_pulled(row, pulled("ours", AT_MS + 5))[0]


SHOWN: dict[str, Pulled] = {
    "the same": pulled("ours", AT_MS + 5),
    "an older state of the vault": pulled("first", AT_MS + 20),
    "another state, newer": pulled("theirs", AT_MS + 1000),
    "another state, older": pulled("theirs", AT_MS - 1000),
    "another state, of the same time": pulled("theirs", AT_MS),
    "any state": pulled("theirs", AT_MS),
}


def what_became(before: DatasetRow | None, after: DatasetRow, outcome: PullOutcome) -> str:
    name = (document(after) or {}).get("name")
    if outcome is PullOutcome.ADOPTED:
        assert (name != "ours", is_clean(after)) == (True, True)
        return "the registry's, without a conflict"
    if outcome is PullOutcome.REGISTRY_WON:
        assert (name, is_clean(after)) == ("theirs", True)
        return "conflict, the registry wins"
    assert name == "ours"
    if outcome is PullOutcome.VAULT_WON:
        assert not is_clean(after)
        return "conflict, the vault wins"
    assert before is not None
    if not is_clean(after):
        return "told again"
    return "nothing" if is_clean(before) else "told: it was the answer to a push that was lost"


def test_the_table_has_every_row() -> None:
    assert len(table()) == 10


@pytest.mark.parametrize("row", table(), ids=lambda row: f"{row[0]}: {row[1]}")
def test_what_becomes_of_a_pulled_state(row: tuple[str, str, str]) -> None:
    words, shown, becomes = row
    before = state(words)
    after, outcome = fold_pulled(before, SHOWN[shown])
    assert what_became(before, after, outcome) == becomes


@pytest.mark.parametrize("row", table(), ids=lambda row: f"{row[0]}: {row[1]}")
def test_what_was_seen_already_changes_nothing(row: tuple[str, str, str]) -> None:
    after, _ = fold_pulled(state(row[0]), SHOWN[row[1]])
    assert fold_pulled(after, SHOWN[row[1]]) == (after, PullOutcome.KNOWN)


def test_the_relationships_are_those_of_the_page() -> None:
    assert all(f"`{relationship}`" in DOCUMENT for relationship in RELATIONSHIPS)
    assert f"At most {MAX_LINKS} a dataset" in DOCUMENT


def test_a_form_of_its_own_is_overruled_once() -> None:
    row: Any = state("told to the registry")
    ahead = msgspec.structs.replace(row, vault_ms=AT_MS + 60_000)
    after, outcome = fold_pulled(ahead, pulled("OURS", AT_MS + 11))
    assert outcome is PullOutcome.VAULT_WON
    again = acknowledged(after, after, "reg-1", AT_MS + 20)
    end, outcome = fold_pulled(again, pulled("OURS", AT_MS + 21))
    assert (outcome, is_clean(end), (document(end) or {})["name"]) == (PullOutcome.ADOPTED, True, "OURS")
