from __future__ import annotations

from collections import deque

import orjson
import pytest

from agents.registry import pulling
from agents.registry.pulling import MAX_EMPTY_PAGES, OVERLAP_MS
from app.events import STRUCTURED_HEADERS
from app.integrations.registry_messages import PASS_OVER, PASS_WANTED, key_of_number, pass_message
from app.integrations.registry_sync import SyncMode
from tables.datasets import CURSOR_KEY, DATASETS
from tests.support.registry_world import SOURCE, START_MS, RegistryWorld


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
