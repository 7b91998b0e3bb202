"""Vault and registry under changes of both, failures and crashes: in the end they hold the same, nothing went in a
circle, and of two changes of one dataset the newer one is there.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant

from agents.registry import processor as processor_module
from agents.registry.gate import OpenGate
from app.devstack.registry_standin import Answer
from app.integrations import registry_pull
from tests.support.machines import Machine, action, caught, play
from tests.support.registry_world import RegistryWorld

NAMED = ("a", "b", "c")
"""Datasets of which only the name changes: the newest name is the one that both must have in the end."""
LOOSE = ("x", "y")
"""Datasets to which everything happens."""
ENDED, FOUGHT_OVER = "g", "h"
"""One that only the vault makes, archives and deletes, and one that it names, and users delete."""
UNTAKEN = ("p", "q", "r")
"""Datasets that the registry never takes, however often it is told."""
UNKNOWN_MODEL = "m-unknown"


class RegistryMachine(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.world = RegistryWorld()
        self.runner.run(self.world.open())
        self.world.book.models = {"m-1", "m-2"}
        self.in_vain = 0
        self._refuse_the_untaken()
        self.names = 0
        # Time, whether it is the vault's (which wins a tie), name.
        self.writes: dict[str, list[tuple[int, bool, str]]] = {}
        self.pages_before: dict[str, int] = {}
        # By dataset: when the vault last deleted it, and when anybody last made it.
        self.deleted_ms: dict[str, int] = {}
        self.made_ms: dict[str, int] = {}
        # When a user last deleted it, and when the vault last named it.
        self.removed_ms: dict[str, int] = {}
        self.named_ms: dict[str, int] = {}

    def _name(self, dataset_id: str, at_ms: int, *, vault: bool) -> str:
        self.names += 1
        name = f"n{self.names}"
        self.writes.setdefault(dataset_id, []).append((at_ms, vault, name))
        self.pages_before[name] = len(self.world.registry.pages)
        return name

    def _refuse_the_untaken(self) -> None:
        book = self.world.book
        upsert, link = book.upsert, book.link

        def upsert_but(dataset: dict[str, Any]) -> Answer:
            if dataset["id"] in UNTAKEN:
                self.in_vain += 1
                return 500, {}
            return upsert(dataset)

        def link_but(model_id: str, wanted: dict[str, Any]) -> Answer:
            self.in_vain += model_id == UNKNOWN_MODEL
            return link(model_id, wanted)

        book.upsert = upsert_but  # type: ignore[method-assign]
        book.link = link_but  # type: ignore[method-assign]

    @invariant()
    def a_pull_comes_between_a_change_and_its_push(self) -> None:
        for dataset_id, name in self.world.book.replaced:
            assert dataset_id not in NAMED or len(self.world.registry.pages) > self.pages_before[name]

    @action(weight=5)
    def the_vault_names(self, data: st.DataObject) -> None:
        dataset_id = data.draw(st.sampled_from(NAMED))
        at_ms = self.world.clock.now_ms() - data.draw(st.sampled_from([0, 0, 0, 1, 700, 20_000]))
        while any(at_ms == known for known, _, _ in self.writes.get(dataset_id, ())):
            at_ms -= 1
        type_ = data.draw(st.sampled_from(["dataset.created", "dataset.updated"]))
        self.world.vault(type_, dataset_id, at_ms=at_ms, name=self._name(dataset_id, at_ms, vault=True))

    @action(weight=4)
    def a_user_names(self, data: st.DataObject) -> None:
        dataset_id = data.draw(st.sampled_from(NAMED))
        self.world.clock.advance(0.001)
        now_ms = self.world.clock.now_ms()
        self.world.book.change(dataset_id, name=self._name(dataset_id, now_ms, vault=False))

    @action(weight=3)
    def the_vault_does_something(self, data: st.DataObject) -> None:
        dataset_id = data.draw(st.sampled_from(LOOSE))
        at_ms = self.world.clock.now_ms() - data.draw(st.sampled_from([0, 0, 3, 5000]))
        type_, more = data.draw(
            st.sampled_from(
                [
                    ("dataset.created", {"name": "A", "record_count": 3}),
                    ("dataset.created", {"name": "B", "tags": ["t"]}),
                    ("dataset.updated", {"name": "B", "schema": {"b": 1}}),
                    ("dataset.updated", {"record_count": 8}),
                    ("version.created", {"version_id": "v2"}),
                    ("records.ingested", {"record_count": 2}),
                    ("records.deleted", {"record_count": 1}),
                    ("dataset.archived", {}),
                    ("dataset.deleted", {}),
                ]
            )
        )
        self._vault(type_, dataset_id, at_ms, more)

    @action(weight=5)
    def the_vault_ends_a_dataset(self, data: st.DataObject) -> None:
        self.world.clock.advance(0.001)
        type_ = data.draw(st.sampled_from(["dataset.created", "dataset.deleted", "dataset.archived"]))
        more = {"name": "G"} if type_ == "dataset.created" else {}
        self._vault(type_, ENDED, self.world.clock.now_ms(), more)

    @action(weight=5)
    def a_user_deletes_what_the_vault_goes_on_with(self, data: st.DataObject) -> None:
        self.world.clock.advance(0.001)
        now_ms = self.world.clock.now_ms()
        if FOUGHT_OVER in self.world.theirs() and data.draw(st.booleans()):
            self.world.book.remove(FOUGHT_OVER)
            self.removed_ms[FOUGHT_OVER] = now_ms
        else:
            self._vault("dataset.updated", FOUGHT_OVER, now_ms, {"name": f"h{now_ms}"})

    def _vault(self, type_: str, dataset_id: str, at_ms: int, more: dict[str, Any]) -> None:
        self.world.vault(type_, dataset_id, at_ms=at_ms, **more)
        if type_ in {"dataset.created", "dataset.deleted"}:
            last = self.made_ms if type_ == "dataset.created" else self.deleted_ms
            last[dataset_id] = max(at_ms, last.get(dataset_id, 0))
        if "name" in more:
            self.named_ms[dataset_id] = max(at_ms, self.named_ms.get(dataset_id, 0))

    @action(weight=2)
    def a_user_does_something(self, data: st.DataObject) -> None:
        self.world.clock.advance(0.001)
        dataset_id = data.draw(st.sampled_from(LOOSE))
        if dataset_id in self.world.theirs() and data.draw(st.booleans()):
            self.world.book.remove(dataset_id)
            self.removed_ms[dataset_id] = self.world.clock.now_ms()
        else:
            fields = data.draw(st.sampled_from([{"name": "A"}, {"name": "B"}, {"name": "C", "record_count": 1}]))
            self.world.book.change(dataset_id, **fields)
            self.made_ms[dataset_id] = self.world.clock.now_ms()

    @action(weight=2)
    def links_are_asked_for(self, data: st.DataObject) -> None:
        self.world.link(data.draw(st.sampled_from(NAMED)), data.draw(st.sampled_from(["m-1", "m-2", UNKNOWN_MODEL])))

    @action()
    def the_vault_makes_what_the_registry_never_takes(self, _: st.DataObject) -> None:
        for dataset_id in UNTAKEN:
            self.world.created(dataset_id)

    @action(weight=6)
    def time_passes(self, data: st.DataObject) -> None:
        self.world.clock.advance(data.draw(st.sampled_from([0.001, 0.3, 0.6, 3.0, 11.0, 61.0])))
        self.runner.run(self.world.context.settle(self.world.processor))

    @action(weight=6)
    def a_slice_is_read(self, data: st.DataObject) -> None:
        self.runner.run(self.world.read(data.draw(st.sampled_from([1, 2, 256]))))

    @action(weight=3)
    def everything_is_read(self, _: st.DataObject) -> None:
        self.runner.run(self.world.turn())

    @action(weight=3)
    def both_come_to_rest(self, _: st.DataObject) -> None:
        self.runner.run(self._calm())

    @action()
    def the_order_of_its_pages_is_another(self, _: st.DataObject) -> None:
        self.world.book.by_id = not self.world.book.by_id

    @action(weight=2)
    def requests_wait(self, data: st.DataObject) -> None:
        gate = data.draw(st.sampled_from([self.world.registry.gate, self.world.registry.answer_gate]))
        gate.clear() if gate.is_set() else gate.set()

    @action(weight=2)
    def requests_fail(self, data: st.DataObject) -> None:
        self.world.registry.failures.append(data.draw(st.sampled_from(["before", "after", None])))

    @action(weight=2)
    def a_checkpoint_is_made(self, _: st.DataObject) -> None:
        self.world.save()

    @action()
    def the_worker_dies(self, _: st.DataObject) -> None:
        self.runner.run(self.world.crash())

    def teardown(self) -> None:
        try:
            self.runner.run(self._calm())
            self._judge()
        finally:
            self.runner.run(self.world.close())
            self.runner.close()

    async def _calm(self) -> None:
        registry = self.world.registry
        registry.failures.clear()
        registry.gate.set()
        registry.answer_gate.set()
        for _ in range(3):
            await self.world.calm()

    def _judge(self) -> None:
        world = self.world
        assert {id_: told for id_, told in world.ours().items() if id_ not in UNTAKEN} == world.theirs()
        assert world.book.echoes == []
        assert world.book.keys_reused == []
        calls = len(world.registry.pushes) - self.in_vain
        self.runner.run(world.calm())
        assert len(world.registry.pushes) - self.in_vain == calls, "something goes in a circle"
        replaced = {dataset_id for dataset_id, _ in world.book.replaced}
        for dataset_id, writes in self.writes.items():
            _, vault, name = max(writes)
            # What a user writes between a pull and the push that follows it is replaced, and nobody can know.
            if dataset_id in world.ours() and (vault or dataset_id not in replaced):
                assert world.ours()[dataset_id]["name"] == name, (dataset_id, writes)
        for dataset_id, deleted_ms in self.deleted_ms.items():
            if deleted_ms > self.made_ms.get(dataset_id, 0):
                assert dataset_id not in world.ours(), (dataset_id, "was deleted")
        for dataset_id, removed_ms in self.removed_ms.items():
            if self.named_ms.get(dataset_id, 0) > removed_ms and dataset_id not in self.deleted_ms:
                assert dataset_id in world.ours(), (dataset_id, "was deleted by a user, and lives on")
        linked = {(row.id, link.model_id) for row in world.rows().values() for link in row.links} - {
            (id_, UNKNOWN_MODEL) for id_ in NAMED
        }
        assert {(id_, model) for id_, model, _ in world.book.links} == linked


@pytest.mark.parametrize(
    ("examples", "steps"), [(60, 40), pytest.param(400, 60, marks=pytest.mark.prove)], ids=["short", "full"]
)
def test_both_sides_come_to_hold_the_same(examples: int, steps: int) -> None:
    play(RegistryMachine, examples, steps, "Vault and registry in step")


def _takes_old_news(row: Any, pulled: Any) -> Any:
    return registry_pull._adopt(row, pulled), registry_pull.PullOutcome.ADOPTED


def _pushes_back(row: Any, pulled: Any) -> Any:
    after, outcome = registry_pull.fold_pulled(row, pulled)
    return registry_pull.again(after) if outcome is registry_pull.PullOutcome.ADOPTED else after, outcome


def test_a_push_that_waits_for_no_pull_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor_module, "Gate", lambda *_: OpenGate())
    assert caught(RegistryMachine, 100, 40) is not None


@pytest.mark.prove
def test_taking_old_news_for_a_change_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_pull, "_met_own", _takes_old_news)
    assert caught(RegistryMachine, 200, 40) is not None


def test_an_echo_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor_module, "fold_pulled", _pushes_back)
    assert caught(RegistryMachine, 60, 40) is not None
