from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from agents.registry import pulling
from agents.registry.pulling import MAX_EMPTY_PAGES, OVERLAP_MS
from app.events import STRUCTURED_HEADERS
from app.integrations.registry_messages import PASS_OVER, PASS_WANTED, key_of_number, pass_message
from app.integrations.registry_sync import SyncMode
from tables.datasets import CURSOR_KEY, DATASETS
from tests.support.registry_world import SOURCE, START_MS, RegistryWorld


@pytest.fixture
async def world() -> AsyncIterator[RegistryWorld]:
    world = RegistryWorld()
    await world.open()
    yield world
    await world.close()


async def test_a_dataset_of_the_registry_is_taken_over_and_not_pushed_back(world: RegistryWorld) -> None:
    world.book.change("ds-9", name="Theirs", record_count=7, tags=["a", {"key": "team", "value": "risk"}])
    await world.turn()
    await world.calm()
    assert world.ours() == world.theirs()
    assert world.registry.pushes == []
    assert world.row("ds-9").origin == "registry"
    assert world.kinds("ds-9") == ["registered"]


async def test_what_was_pushed_comes_back_and_changes_nothing(world: RegistryWorld) -> None:
    world.created()
    await world.turn()
    await world.calm()
    assert len(world.registry.pushes) == 1
    assert world.kinds() == ["registered"]
    assert (world.row().version, world.row().origin) == (1, "vault")


async def test_all_pages_are_read_and_the_next_pass_asks_for_what_came_since(world: RegistryWorld) -> None:
    for number in range(8):
        world.book.change(f"ds-{number}")
    await world.turn()
    assert len(world.ours()) == 8
    assert len(world.registry.pages) == 3
    await world.advance(10)
    await world.advance(10)
    assert f"updated_since=2025-06-15T15%3A06%3A{40 - OVERLAP_MS // 1000}.000Z" in world.registry.pages
    published = [entry for entry in world.log if b"registry.pulled" in (entry.value or b"")]
    assert len(published) == 8


async def test_a_registry_that_goes_away_in_the_middle_is_read_on_from_there(world: RegistryWorld) -> None:
    for number in range(8):
        world.book.change(f"ds-{number}")
    world.registry.failures = deque([None, "before"])
    await world.turn()
    assert len(world.ours()) == 3
    world.save()
    await world.crash()
    await world.calm()
    assert world.ours() == world.theirs()
    first, second, again, *_ = world.registry.pages
    assert (first, second) == ("", again)


async def test_a_page_that_comes_twice_is_folded_once(world: RegistryWorld) -> None:
    for number in range(5):
        world.book.change(f"ds-{number}")
    _, first = world.book.page(None, None)
    world.registry.answers = deque([orjson.dumps(first)] * 3)
    await world.turn()
    await world.calm()
    assert world.ours() == world.theirs()
    assert [world.kinds(f"ds-{number}") for number in range(5)] == [["registered"]] * 5


async def test_what_waits_for_a_pass_does_not_take_the_end_of_a_broken_one_for_it(world: RegistryWorld) -> None:
    world.book.by_id = True
    await world.calm()
    for number in range(8):
        world.book.change(f"ds-{number}", name="Theirs")
    world.registry.failures = deque([None, "before"])
    await world.advance(10)
    # The first page is read, the second is not yet: a change of what was on the first one is not seen by its end.
    world.clock.advance(0.1)
    world.book.change("ds-0", name="Theirs, and the newer")
    world.vault("dataset.updated", "ds-0", name="Ours", at_ms=world.clock.now_ms() - 1)
    await world.turn()
    await world.calm()
    assert world.ours()["ds-0"]["name"] == world.theirs()["ds-0"]["name"] == "Theirs, and the newer"
    assert [conflict["winner"] for conflict in world.conflicts()] == ["registry"]


async def test_what_was_deleted_before_anybody_heard_of_it_is_told_to_nobody(world: RegistryWorld) -> None:
    world.book.change("ds-1")
    world.book.remove("ds-1")
    await world.calm()
    assert world.changes == []
    assert world.registry.pushes == []


@pytest.mark.parametrize("id_", ["a b", "a\u0001b", "ä/ö?", "-" * 512])
async def test_any_id_goes_both_ways(world: RegistryWorld, id_: str) -> None:
    world.book.change(id_, name="Theirs")
    await world.calm()
    world.vault("dataset.updated", id_, name="Ours")
    await world.calm()
    assert world.ours()[id_]["name"] == world.theirs()[id_]["name"] == "Ours"
    assert world.context.quarantined == []


async def test_cursors_that_go_round_end_the_pass_and_it_begins_anew(world: RegistryWorld) -> None:
    round_ = orjson.dumps({"datasets": [], "cursor": "same"})
    world.registry.answers = deque([round_] * 20)
    world.book.change("ds-1")
    await world.turn()
    assert len(world.registry.asked) <= 10
    world.registry.answers.clear()
    await world.calm()
    assert world.ours() == world.theirs()


async def test_cursors_without_an_end_and_without_datasets_end_the_pass(world: RegistryWorld) -> None:
    world.registry.answers = deque(orjson.dumps({"datasets": [], "cursor": f"c-{n}"}) for n in range(100_000))
    world.created()
    await world.turn()
    assert len(world.registry.pages) <= MAX_EMPTY_PAGES + 1
    for _ in range(20):
        await world.advance(1)
    assert list(world.theirs()) == ["ds-1"]


async def test_pages_without_an_end_hold_no_push_back_for_ever(
    world: RegistryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "MAX_PAGES", 20)
    item = {"id": "ds-9", "name": "n", "tags": [], "updated_at": "2025-06-15T15:06:40.000Z"}
    world.registry.answers = deque(orjson.dumps({"datasets": [item], "cursor": f"c-{n}"}) for n in range(100_000))
    world.created()
    await world.turn()
    assert len(world.registry.pages) == 20
    for _ in range(20):
        await world.advance(1)
    assert "ds-1" in world.theirs()


async def test_a_drain_ends_a_pass_behind_the_page_that_is_under_way(world: RegistryWorld) -> None:
    for number in range(9):
        world.book.change(f"ds-{number}")
    world.registry.answer_gate.clear()
    world.ask("s-1", SyncMode.PULL)
    await world.read()
    assert world.processor is not None
    await world.context.settle(world.processor)
    world.processor.begin_drain()
    world.registry.answer_gate.set()
    await world.turn()
    assert not world.processor.busy()
    assert len(world.registry.pages) == 1
    # What it has read is kept, and whoever has the number next reads on from there.
    world.save()
    await world.crash()
    await world.calm()
    assert world.registry.pages[1] != ""
    assert world.ours() == world.theirs()


async def test_a_cursor_that_the_registry_forgot_costs_the_pass_not_the_datasets(world: RegistryWorld) -> None:
    for number in range(5):
        world.book.change(f"ds-{number}")
    world.registry.answers = deque([orjson.dumps({"datasets": [], "cursor": "old"})])
    await world.turn()
    await world.calm()
    assert world.ours() == world.theirs()


@pytest.mark.parametrize(
    "answer",
    [b"<html>", b"[]", b"{}", b'{"datasets":{}}', b'{"datasets":[],"cursor":7}', b'{"datasets":[],"cursor":""}'],
)
async def test_an_answer_that_is_no_page_is_no_success(world: RegistryWorld, answer: bytes) -> None:
    world.book.change("ds-1")
    world.registry.answers = deque([answer])
    await world.turn()
    assert world.ours() == {}
    await world.calm()
    assert world.ours() == world.theirs()


async def test_an_item_that_is_no_dataset_takes_nothing_from_the_others(world: RegistryWorld) -> None:
    good = {"id": "ds-1", "name": "n", "tags": [], "updated_at": "2025-06-15T15:06:40.000Z"}
    bad = [7, {}, {**good, "id": ""}, {**good, "id": "a", "updated_at": "noon"}, {"id": "b"}, {**good, "name": None}]
    bad += [
        {**good, "record_count": -1},
        {**good, "tags": [7]},
        {**good, "status": "odd"},
        {**good, "name": "x" * 140_000},
    ]
    world.registry.answers = deque([orjson.dumps({"datasets": [*bad, good], "cursor": None})])
    world.ask("s-1", SyncMode.PULL)
    await world.turn()
    assert list(world.ours()) == ["ds-1"]


async def test_a_time_that_is_not_yet_hides_nothing(world: RegistryWorld) -> None:
    far = {"id": "ds-1", "name": "n", "tags": [], "updated_at": "9999-01-01T00:00:00.000Z"}
    world.registry.answers = deque([orjson.dumps({"datasets": [far], "cursor": None})])
    await world.turn()
    row = world.context.rows.get(DATASETS, CURSOR_KEY)
    assert row is not None
    assert row.cursor is not None
    assert row.cursor.floor_ms == START_MS


async def test_what_changes_behind_a_slow_pass_is_seen_by_the_next(world: RegistryWorld) -> None:
    world.book.by_id = True
    await world.calm()
    for number in range(5):
        world.book.change(f"ds-{number}")
    world.registry.failures = deque([None, "before"])
    await world.advance(10)
    world.book.change("ds-0", name="Behind")
    world.clock.advance(30)
    world.book.change("ds-4", name="Before")
    await world.calm()
    assert world.ours() == world.theirs()


async def test_nothing_is_pulled_where_only_pushes_are_wanted() -> None:
    world = RegistryWorld(mode=SyncMode.PUSH)
    await world.open()
    world.book.change("ds-1")
    await world.calm()
    assert world.registry.asked == []
    await world.close()


async def test_nothing_is_pushed_where_only_pulls_are_wanted() -> None:
    world = RegistryWorld(mode=SyncMode.PULL)
    await world.open()
    world.created()
    world.book.change("ds-2")
    await world.calm()
    assert world.registry.pushes == []
    assert world.ours().keys() == {"ds-1", "ds-2"}
    await world.close()


class TestConflicts:
    async def test_the_newer_wins_and_it_is_the_registry(self, world: RegistryWorld) -> None:
        world.created()
        await world.calm()
        world.registry.down = True
        world.vault("dataset.updated", name="Ours")
        await world.turn()
        world.clock.advance(1)
        world.book.change("ds-1", name="Theirs")
        world.registry.down = False
        await world.calm()
        assert world.ours()["ds-1"]["name"] == world.theirs()["ds-1"]["name"]
        (conflict,) = world.conflicts()
        assert (conflict["vault"]["name"], conflict["registry"]["name"]) == ("Ours", "Theirs")

    async def test_the_newer_wins_and_it_is_the_vault(self, world: RegistryWorld) -> None:
        world.created()
        await world.calm()
        world.book.change("ds-1", name="Theirs")
        world.vault("dataset.updated", name="Ours", at_ms=world.clock.now_ms() + 1)
        world.registry.failures = deque(["before"])
        await world.turn()
        await world.calm()
        assert world.ours()["ds-1"]["name"] == world.theirs()["ds-1"]["name"] == "Ours"

    async def test_a_tie_is_the_vault_s(self, world: RegistryWorld) -> None:
        world.book.change("ds-1", name="Theirs")
        world.created(name="Ours")
        world.registry.gate.clear()
        await world.turn()
        world.registry.gate.set()
        await world.calm()
        assert world.ours()["ds-1"]["name"] == world.theirs()["ds-1"]["name"] == "Ours"

    async def test_a_change_of_the_vault_that_comes_late_is_reported(self, world: RegistryWorld) -> None:
        world.created()
        await world.calm()
        world.book.change("ds-1", name="Theirs")
        late_ms = world.clock.now_ms() - 1
        await world.calm()
        world.vault("dataset.updated", name="Ours", at_ms=late_ms)
        await world.calm()
        assert world.ours()["ds-1"]["name"] == world.theirs()["ds-1"]["name"] == "Theirs"
        assert [conflict["winner"] for conflict in world.conflicts()] == ["registry"]
        assert world.book.echoes == []

    async def test_each_is_reported_under_an_id_of_its_own(self, world: RegistryWorld) -> None:
        world.created()
        await world.calm()
        world.book.change("ds-1", name="Theirs")
        late_ms = world.clock.now_ms() - 2
        await world.calm()
        world.vault("dataset.updated", name="Ours", at_ms=late_ms)
        world.vault("dataset.updated", name="Also ours", at_ms=late_ms + 1)
        await world.calm()
        ids = [change["id"] for change in world.changes]
        assert len(world.conflicts()) == 2
        assert len(ids) == len(set(ids))


class TestNoEcho:
    async def test_a_user_goes_there_and_back(self, world: RegistryWorld) -> None:
        world.created(name="A", created_at="2025-06-15T15:06:40.000Z")
        await world.calm()
        first = world.theirs()["ds-1"]
        for name in ("B", "A", "B", "A"):
            world.book.change("ds-1", name=name)
            await world.calm()
            assert world.ours()["ds-1"]["name"] == world.theirs()["ds-1"]["name"] == name
        assert world.theirs()["ds-1"] == first
        assert len(world.registry.pushes) == 1

    async def test_a_change_of_the_vault_on_top_of_a_pulled_one_is_pushed_with_it(self, world: RegistryWorld) -> None:
        world.book.change("ds-1", name="Theirs", version="7")
        await world.calm()
        world.vault("dataset.updated", tags=["ours"])
        await world.calm()
        assert world.theirs()["ds-1"]["name"] == "Theirs"
        assert world.theirs()["ds-1"]["tags"] == ["ours"]
        assert world.ours() == world.theirs()
        assert world.kinds() == ["registered", "updated"]

    async def test_a_registry_that_writes_things_its_own_way_is_not_fought(self, world: RegistryWorld) -> None:
        def upsert(dataset: dict[str, object]) -> tuple[int, dict[str, object]]:
            world.book._write({**dataset, "name": str(dataset["name"]).upper()}, "user")
            return 200, {"id": str(dataset["id"])}

        world.book.upsert = upsert  # type: ignore[method-assign,assignment]
        # The vault's clock is ahead, so that its state is always the newer one.
        world.created(name="claims", at_ms=world.clock.now_ms() + 86_400_000)
        await world.calm()
        await world.calm()
        assert len(world.registry.pushes) <= 2
        assert world.ours() == world.theirs()

    async def test_a_push_whose_answer_was_lost_is_known_when_it_comes_back(self, world: RegistryWorld) -> None:
        world.interval_s = 1
        await world.crash()
        world.registry.failures = deque([None, "after"])
        world.created()
        await world.turn()
        await world.calm()
        assert world.kinds().count("registered") == 1
        assert world.book.keys_reused == []
        assert world.ours() == world.theirs()


class TestDeletions:
    async def test_of_the_registry_are_taken_over(self, world: RegistryWorld) -> None:
        world.created()
        await world.calm()
        world.book.remove("ds-1")
        await world.calm()
        assert world.row().status == "deleted"
        assert world.kinds() == ["registered", "deleted"]
        assert len(world.registry.pushes) == 1

    @pytest.mark.parametrize(
        ("type_", "more"),
        [
            ("dataset.updated", {"name": "Renamed"}),
            ("version.created", {"version_id": "2"}),
            ("records.ingested", {"record_count": 2}),
            ("dataset.archived", {}),
        ],
    )
    async def test_of_the_registry_give_way_to_what_the_vault_says_later(
        self, world: RegistryWorld, type_: str, more: dict[str, Any]
    ) -> None:
        world.created(record_count=5, tags=["pii"])
        await world.calm()
        before = world.theirs()["ds-1"]
        world.book.remove("ds-1")
        await world.calm()
        world.vault(type_, **more)
        await world.calm()
        changed = {
            "dataset.updated": {"name": "Renamed"},
            "version.created": {"version": "2"},
            "records.ingested": {"record_count": 7},
            "dataset.archived": {"status": "archived"},
        }
        assert world.theirs()["ds-1"] == {**before, **changed[type_]}
        assert world.ours() == world.theirs()
        assert world.kinds() == ["registered", "deleted", "registered"]

    async def test_of_the_registry_stand_against_what_the_vault_said_before(self, world: RegistryWorld) -> None:
        world.created()
        await world.calm()
        world.book.remove("ds-1")
        late_ms = world.clock.now_ms() - 1
        await world.calm()
        world.vault("dataset.updated", name="Late", at_ms=late_ms)
        await world.calm()
        assert world.ours() == world.theirs() == {}

    async def test_of_both_are_not_undone_by_what_else_the_vault_says(self, world: RegistryWorld) -> None:
        world.created()
        await world.calm()
        world.book.remove("ds-1")
        await world.calm()
        world.vault("dataset.deleted")
        world.vault("records.deleted", record_count=1, at_ms=world.clock.now_ms() + 5)
        await world.calm()
        assert world.ours() == world.theirs() == {}

    async def test_of_the_registry_leave_nothing_to_a_dataset_that_is_made_again(self, world: RegistryWorld) -> None:
        world.created(record_count=5, tags=["pii"])
        await world.calm()
        world.book.remove("ds-1")
        await world.calm()
        world.created(name="Again")
        await world.calm()
        assert world.ours() == world.theirs()
        assert "record_count" not in world.theirs()["ds-1"]
        assert world.theirs()["ds-1"]["tags"] == []

    async def test_of_the_registry_bring_nothing_back_that_the_vault_has_deleted(self, world: RegistryWorld) -> None:
        world.created(record_count=5, tags=["pii"])
        world.clock.advance(1)
        world.vault("dataset.deleted")
        world.clock.advance(1)
        world.created(name="Again")
        await world.calm()
        world.book.remove("ds-1")
        await world.calm()
        world.vault("dataset.updated", name="Renamed")
        await world.calm()
        assert world.theirs()["ds-1"]["name"] == "Renamed"
        assert world.theirs()["ds-1"]["tags"] == []
        assert "record_count" not in world.theirs()["ds-1"]

    async def test_of_the_vault_and_a_dataset_made_again(self, world: RegistryWorld) -> None:
        world.created(name="A", record_count=9)
        await world.calm()
        world.vault("dataset.deleted")
        await world.calm()
        assert world.theirs() == {}
        world.created(name="B")
        await world.calm()
        assert world.ours() == world.theirs()
        assert "record_count" not in world.theirs()["ds-1"]
        assert world.kinds() == ["registered", "deleted", "registered"]

    @pytest.mark.parametrize("mode", [SyncMode.PUSH, SyncMode.BOTH])
    async def test_of_the_vault_are_told_though_it_archived_the_dataset_after_them(self, mode: SyncMode) -> None:
        world = RegistryWorld(mode=mode)
        await world.open()
        world.created()
        await world.calm()
        world.vault("dataset.deleted")
        world.vault("dataset.archived", at_ms=world.clock.now_ms() + 1)
        await world.calm()
        assert world.theirs() == world.ours() == {}
        assert world.kinds() == ["registered", "deleted"]
        await world.close()

    async def test_a_user_makes_again_what_the_vault_deleted(self, world: RegistryWorld) -> None:
        world.created(name="A")
        await world.calm()
        world.vault("dataset.deleted")
        await world.calm()
        world.book.change("ds-1", name="Again")
        await world.calm()
        assert world.ours() == world.theirs()
        assert world.ours()["ds-1"]["name"] == "Again"
        assert world.conflicts() == []

    async def test_an_archived_dataset_stays_so_on_both_sides(self, world: RegistryWorld) -> None:
        world.created()
        world.vault("dataset.archived")
        await world.calm()
        assert world.theirs()["ds-1"]["status"] == "archived"
        world.book.change("ds-2", status="archived")
        await world.calm()
        assert world.row("ds-2").status == "archived"


async def test_records_that_came_before_the_dataset_was_known_count_on_top(world: RegistryWorld) -> None:
    world.book.change("ds-1", record_count=10)
    world.vault("records.ingested", record_count=5, at_ms=world.clock.now_ms() + 1)
    await world.calm()
    assert world.ours()["ds-1"]["record_count"] == world.theirs()["ds-1"]["record_count"] == 15


async def test_one_key_is_never_used_for_two_states_over_a_crash(world: RegistryWorld) -> None:
    world.created()
    await world.calm()
    world.save()
    world.book.change("ds-1", name="Theirs")
    world.vault("dataset.updated", name="Ours", at_ms=world.clock.now_ms() + 1)
    await world.calm()
    await world.crash()
    world.vault("dataset.updated", name="Later", at_ms=world.clock.now_ms() + 1)
    await world.calm()
    assert world.book.keys_reused == []
    assert world.ours() == world.theirs()
    assert world.ours()["ds-1"]["name"] == "Later"


class TestPushesWaitForAPull:
    async def test_so_that_a_newer_change_of_the_registry_is_not_replaced(self, world: RegistryWorld) -> None:
        world.created()
        await world.calm()
        before = len(world.registry.pushes)
        world.vault("dataset.updated", name="Ours", at_ms=world.clock.now_ms() - 1)
        world.book.change("ds-1", name="Theirs")
        await world.calm()
        assert world.ours()["ds-1"]["name"] == world.theirs()["ds-1"]["name"] == "Theirs"
        assert [conflict["winner"] for conflict in world.conflicts()] == ["registry"]
        assert len(world.registry.pushes) == before

    async def test_one_pass_serves_everything_that_waited(self, world: RegistryWorld) -> None:
        await world.calm()
        before = len(world.registry.pages)
        for number in range(50):
            world.created(f"ds-{number}")
        await world.turn()
        await world.advance(1)
        assert len(world.theirs()) == 50
        assert len(world.registry.pages) - before <= 3

    @pytest.mark.parametrize("answer", [b"<html>", b"{}"])
    async def test_but_not_for_ever_where_the_registry_lists_nothing(self, world: RegistryWorld, answer: bytes) -> None:
        world.registry.answers = deque([answer] * 100)
        world.created()
        for _ in range(20):
            await world.advance(1)
        assert list(world.theirs()) == ["ds-1"]

    async def test_and_are_not_lost_with_whoever_was_asked_for_it(self, world: RegistryWorld) -> None:
        world.registry.down = True
        world.created()
        await world.turn()
        world.save()
        world.registry.down = False
        await world.crash()
        await world.calm()
        assert world.ours() == world.theirs()

    @pytest.mark.parametrize("type_", [PASS_WANTED, PASS_OVER])
    @pytest.mark.parametrize("number", [-1, 1, 99])
    async def test_and_a_wish_of_a_number_that_there_is_not_is_put_aside(
        self, world: RegistryWorld, type_: str, number: int
    ) -> None:
        world.append(pass_message(type_, number, "t", SOURCE, START_MS), key_of_number(0, 1), STRUCTURED_HEADERS)
        world.created()
        await world.calm()
        assert [item.reason for item in world.context.quarantined] == ["invalid_data"]
        assert list(world.theirs()) == ["ds-1"]

    async def test_a_key_of_a_number_that_there_is_not_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="no number 12 of 12"):
            key_of_number(12, 12)


class TestWhatWasAskedFor:
    async def test_counts_what_it_did_and_ends(self, world: RegistryWorld) -> None:
        world = RegistryWorld(mode=SyncMode.PULL, interval_s=3600)
        await world.open()
        world.created("ds-1")
        world.created("ds-2", name="Ours", at_ms=START_MS + 1)
        await world.turn()
        world.clock.advance(1)
        world.book.change("ds-2", name="Theirs")
        world.book.change("ds-3")
        world.ask("s-1", SyncMode.BOTH)
        await world.advance(1)
        reader = world.readers.get(0)
        assert reader is not None
        found = await reader.sync("s-1")
        assert found is not None
        assert (found["done"], found["pushed"], found["pulled"], found["failed"]) == (True, 1, 2, [])
        assert [conflict["dataset_id"] for conflict in found["conflicts"]] == ["ds-2"]
        assert world.ours() == world.theirs()
        assert await reader.sync("s-2") is None
        await world.close()

    async def test_lists_what_failed_and_keeps_the_rest(self, world: RegistryWorld) -> None:
        world = RegistryWorld(mode=SyncMode.PULL, interval_s=3600)
        await world.open()
        world.created("ds-1")
        world.book.change("ds-3")
        await world.turn()
        world.book.upsert = lambda _: (503, {})  # type: ignore[method-assign]
        world.book.change("ds-4")
        world.ask("s-1", SyncMode.BOTH)
        await world.advance(1)
        reader = world.readers.get(0)
        assert reader is not None
        found = await reader.sync("s-1")
        assert found is not None
        assert (found["done"], found["pulled"]) == (True, 1)
        assert found["failed"] == [{"id": "ds-1", "reason": "answered 503"}]
        await world.close()

    async def test_lists_what_another_has_under_its_id_as_a_conflict_and_once(self) -> None:
        world = RegistryWorld(mode=SyncMode.BOTH, interval_s=3600)
        await world.open()
        await world.turn()
        world.book.upsert = lambda _: (409, {"id": "other"})  # type: ignore[method-assign]
        world.created("ds-1")
        world.ask("s-1", SyncMode.BOTH)
        for _ in range(5):
            await world.advance(1)
        reader = world.readers.get(0)
        assert reader is not None
        found = await reader.sync("s-1")
        assert found is not None
        assert found["done"]
        assert [one["dataset_id"] for one in found["conflicts"]] == ["ds-1"]
        assert found["failed"] == []
        await world.close()

    async def test_says_that_a_registry_is_away(self, world: RegistryWorld) -> None:
        world = RegistryWorld(mode=SyncMode.PUSH)
        await world.open()
        world.registry.down = True
        world.created()
        world.ask("s-1", SyncMode.BOTH)
        for _ in range(20):
            await world.advance(1)
        reader = world.readers.get(0)
        assert reader is not None
        found = await reader.sync("s-1")
        assert found is not None
        assert found["done"]
        assert {item["id"] for item in found["failed"]} >= {"pull", "ds-1"}
        await world.close()

    async def test_leaves_the_registry_alone_once_it_has_failed(self, world: RegistryWorld) -> None:
        world = RegistryWorld(mode=SyncMode.PUSH)
        await world.open()
        world.registry.down = True
        world.ask("s-1", SyncMode.PULL)
        for _ in range(20):
            await world.advance(1)
        before = len(world.registry.asked)
        await world.calm()
        assert len(world.registry.asked) == before
        await world.close()

    async def test_lists_long_conflicts_in_brief(self, world: RegistryWorld) -> None:
        world.created()
        await world.calm()
        world.registry.down = True
        world.vault("dataset.updated", name="Ours", tags=["t" * 50] * 100, at_ms=world.clock.now_ms() - 1)
        world.book.change("ds-1", name="Theirs")
        world.ask("s-1", SyncMode.PULL)
        await world.turn()
        world.registry.down = False
        await world.advance(1)
        reader = world.readers.get(0)
        assert reader is not None
        found = await reader.sync("s-1")
        assert found is not None
        (conflict,) = found["conflicts"]
        assert conflict["vault"].keys() == {"name", "version", "status", "updated_at"}
        assert (conflict["vault"]["name"], conflict["winner"]) == ("Ours", "registry")
        assert len(world.conflicts()[0]["vault"]["tags"]) == 100

    @pytest.mark.parametrize("mode", [SyncMode.PUSH, SyncMode.BOTH])
    async def test_ends_also_where_pushes_wait_for_a_pull_that_fails(
        self, world: RegistryWorld, mode: SyncMode
    ) -> None:
        world.registry.down = True
        world.created()
        world.ask("s-1", mode)
        for _ in range(20):
            await world.advance(1)
        reader = world.readers.get(0)
        assert reader is not None
        found = await reader.sync("s-1")
        assert found is not None
        assert found["done"]
        assert found["failed"]


class TestLinks:
    async def test_are_told_once_the_registry_has_the_dataset(self, world: RegistryWorld) -> None:
        world.created()
        world.link("ds-1", "m/1", "evaluation_data")
        world.link("ds-1", "m/1", "training_data")
        world.link("ds-1", "m/1", "training_data")
        await world.calm()
        assert [path for _, path in world.registry.pushes] == [
            "/api/v1/datasets",
            *["/api/v1/models/m%2F1/datasets"] * 2,
        ]
        told = world.book.links["ds-1", "m/1", "training_data"]
        assert told == {
            "dataset_id": "ds-1",
            "model_id": "m/1",
            "relationship": "training_data",
            "linked_at": "2025-06-15T15:06:40.000Z",
        }
        assert world.kinds() == ["registered", "linked", "linked"]
        assert len({change["id"] for change in world.changes}) == 3
        assert world.row().pushed == world.row().version

    @pytest.mark.parametrize("relationship", ["training_data", "evaluation_data", "validation_data", "test_data"])
    async def test_have_four_relationships(self, world: RegistryWorld, relationship: str) -> None:
        world.created()
        world.link("ds-1", "m-1", relationship)
        await world.calm()
        assert list(world.book.links) == [("ds-1", "m-1", relationship)]

    async def test_wait_for_a_model_that_is_not_there_yet_and_hold_no_change_back(self, world: RegistryWorld) -> None:
        world.book.models = set()
        world.created()
        world.link("ds-1", "m-1")
        await world.calm()
        world.vault("dataset.updated", name="New")
        await world.calm()
        assert world.theirs()["ds-1"]["name"] == "New"
        assert world.book.links == {}
        world.book.models = {"m-1"}
        await world.calm()
        assert list(world.book.links) == [("ds-1", "m-1", "training_data")]

    async def test_to_unknown_models_hold_no_dataset_back(self) -> None:
        world = RegistryWorld(mode=SyncMode.PUSH)
        await world.open()
        world.book.models = set()
        for number in range(20):
            world.created(f"ds-{number}")
            world.link(f"ds-{number}", "m-1")
        await world.calm()
        world.created("new")
        await world.turn()
        assert "new" in world.theirs()
        await world.close()

    async def test_to_an_unknown_model_hold_no_other_back(self, world: RegistryWorld) -> None:
        world.book.models = {"m-2"}
        world.created()
        world.link("ds-1", "m-1")
        world.link("ds-1", "m-2")
        await world.calm()
        assert list(world.book.links) == [("ds-1", "m-2", "training_data")]

    async def test_end_with_their_dataset(self, world: RegistryWorld) -> None:
        world.created()
        world.link("ds-1", "m-1")
        await world.calm()
        world.vault("dataset.deleted")
        world.created(name="Again")
        await world.calm()
        assert world.row().links == ()
        world.link("ds-1", "m-1")
        await world.calm()
        assert world.book.links["ds-1", "m-1", "training_data"]["linked_at"] > "2025-06-15T15:06:40.000Z"

    async def test_make_no_key_that_another_state_has_had_over_a_crash(self) -> None:
        world = RegistryWorld(mode=SyncMode.PUSH)
        await world.open()
        world.created()
        await world.turn()
        world.save()
        world.link("ds-1", "m-1")
        await world.turn()
        world.vault("dataset.updated", name="First")
        await world.turn()
        world.registry.gate.clear()
        await world.crash()
        await world.read()
        world.vault("dataset.updated", name="Second")
        await world.read()
        world.registry.gate.set()
        await world.calm()
        assert world.book.keys_reused == []
        assert world.ours() == world.theirs()
        assert list(world.book.links) == [("ds-1", "m-1", "training_data")]
        await world.close()

    async def test_that_waited_make_no_key_that_another_state_has_had_over_a_crash(self) -> None:
        world = RegistryWorld(mode=SyncMode.PUSH)
        await world.open()
        world.created()
        await world.turn()
        world.registry.down = True
        world.link("ds-1", "m-1")
        await world.turn()
        world.save()
        world.registry.down = False
        await world.advance(2)
        # What the registry answered to the link is lost with the crash, and the change that followed it is read anew.
        world.vault("dataset.updated", name="First")
        await world.turn()
        await world.crash()
        world.registry.failures = deque(["before"])
        world.vault("dataset.updated", name="Second")
        await world.calm()
        assert world.book.keys_reused == []
        assert world.theirs()["ds-1"]["name"] == "Second"
        await world.close()

    async def test_to_a_dataset_that_nobody_knows_are_none(self, world: RegistryWorld) -> None:
        world.link("ds-1", "m-1")
        await world.calm()
        assert world.rows() == {}
        assert world.context.quarantined == []

    async def test_that_the_registry_refuses_are_tried_when_asked_for_again(self, world: RegistryWorld) -> None:
        world.created()
        world.book.link = lambda *_: (422, {})  # type: ignore[method-assign]
        world.link("ds-1", "m-1")
        await world.calm()
        assert [link.status for link in world.row().links] == ["refused"]
        del world.book.link
        world.link("ds-1", "m-1")
        await world.calm()
        assert [link.status for link in world.row().links] == ["linked"]
