from __future__ import annotations

from collections import deque

from tests.support.registry_world import RegistryWorld


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
