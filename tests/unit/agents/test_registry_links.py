from __future__ import annotations

from collections import deque

import pytest

from app.integrations.registry_sync import SyncMode
from tests.support.registry_world import RegistryWorld


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
