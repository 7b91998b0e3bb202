from __future__ import annotations

from typing import Any

import pytest

from app.integrations.registry_sync import SyncMode
from tests.support.registry_world import RegistryWorld


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
