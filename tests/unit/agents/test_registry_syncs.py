from __future__ import annotations

import pytest

from app.integrations.registry_sync import SyncMode
from tests.support.registry_world import START_MS, RegistryWorld


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
