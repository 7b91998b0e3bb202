"""What a replay counts as sent."""

from __future__ import annotations

import pytest

from app.events import new_event
from app.webhooks.intents import MAX_KEPT_BYTES
from app.webhooks.model import Status
from app.webhooks.replay_request import Only
from app.webhooks.replay_run import (
    Moved,
    Progress,
    ReplayFailed,
    ReplayState,
)
from tests.support.replay_play import EVENTS, OTHER, World, intent_of


@pytest.fixture
def world() -> World:
    return World()


class TestWhatItCountsAsSent:
    async def test_is_nothing_of_what_was_sent_under_its_request_id_before(self, world: World) -> None:
        world.log.add(EVENTS, 30)
        world.log.add(OTHER, 10)
        await world.run(since_ms=0).run()
        world.apply()
        sent, world.progress = list(world.sent), Progress(ReplayState.RUNNING)
        await world.run(since_ms=0).run()
        assert world.sent == sent
        assert (world.progress.matched, world.progress.skipped, world.progress.sent) == (40, 40, 0)

    async def test_is_all_that_only_other_requests_have_sent_whatever_became_of_it(self, world: World) -> None:
        ids = world.log.add(EVENTS, 30)
        await world.run(since_ms=0).run()
        for status in Status:
            world.apply(status)
            world.intents, world.progress = [], Progress(ReplayState.RUNNING)
            await world.run(since_ms=0, request_id=f"again-{status}").run()
            assert (world.sent, world.progress.sent, world.progress.skipped) == (ids, 30, 0)

    async def test_is_the_rest_where_the_first_one_ended_early(self, world: World) -> None:
        ids = world.log.add(EVENTS, 30)

        def stop() -> None:
            if len(world.intents) >= 12:
                world.progress.state = ReplayState.CANCELLED

        world.before_send = stop
        with pytest.raises(ReplayFailed, match="cancelled"):
            await world.run(since_ms=0, rate_per_s=10).run()
        world.apply()
        first, world.progress, world.before_send = world.progress.sent, Progress(ReplayState.RUNNING), lambda: None
        await world.run(since_ms=0).run()
        assert world.sent == ids
        assert (world.progress.skipped, world.progress.sent) == (first, 30 - first)

    async def test_is_one_of_an_event_that_is_in_the_log_more_than_once(self, world: World) -> None:
        ids = world.log.add(EVENTS, 20)
        near, far = world.log.partitions[EVENTS][3], world.log.partitions[EVENTS][0]
        world.log.repeat(EVENTS, near)
        world.log.repeat(EVENTS, near)
        world.log.repeat(EVENTS, far)
        await world.run(since_ms=0).run()
        assert world.sent == ids
        assert (world.progress.matched, world.progress.skipped, world.progress.sent) == (23, 3, 20)

    async def test_is_none_that_is_too_large_to_become_a_delivery_but_its_owner_may_say_so(self, world: World) -> None:
        small = world.log.add(EVENTS, 2)
        large = new_event(
            id="large",
            source="/vault",
            type="llm.data-vault.dataset.created",
            subject="s" * (MAX_KEPT_BYTES // 2 + 4096),
            data={"dataset_id": "ds-1", "name": "n"},
        )
        world.log.add(EVENTS, 1, value=large.posted)
        await world.run(since_ms=0).run()
        assert world.sent == [*small, "large"]
        assert (world.progress.matched, world.progress.skipped, world.progress.sent) == (3, 1, 2)

    async def test_is_the_copy_that_can_be_delivered_where_another_is_too_large(self, world: World) -> None:
        for subject in ("s" * (MAX_KEPT_BYTES // 2 + 4096), "s"):
            event = new_event(
                id="twice",
                source="/vault",
                type="llm.data-vault.dataset.created",
                subject=subject,
                data={"dataset_id": "ds-1", "name": "n"},
            )
            world.log.add(EVENTS, 1, value=event.posted)
        await world.run(since_ms=0).run()
        assert [len(intent.value) < 4096 for intent in world.intents] == [True]
        assert (world.progress.matched, world.progress.skipped, world.progress.sent) == (2, 1, 1)

    async def test_is_a_large_event_whose_correlation_is_a_number(self, world: World) -> None:
        event = new_event(
            id="n",
            source="/vault",
            type="llm.data-vault.dataset.created",
            data={"dataset_id": "ds-1", "name": "n" * (MAX_KEPT_BYTES // 2)},
            extensions={"correlationid": 7},
        )
        world.log.add(EVENTS, 1, value=event.posted)
        after = world.log.add(EVENTS, 2)
        await world.run(since_ms=0).run()
        assert world.sent == ["n", *after]
        assert world.progress.sent == 3

    async def test_is_all_that_may_be_new_while_the_rows_are_not_open(self, world: World) -> None:
        ids = world.log.add(EVENTS, 3)
        world.became(ids[1], Status.DELIVERED, request_id=intent_of(world.log.partitions[EVENTS][1], "r1").request_id)
        world.row_failures = 1_000_000
        await world.run(since_ms=0).run()
        assert (world.sent, world.progress.sent) == (ids, 3)

    async def test_is_all_that_may_be_new_while_the_webhook_is_with_another_worker(self, world: World) -> None:
        ids = world.log.add(EVENTS, 3)
        world.became(ids[1], Status.DELIVERED, request_id=intent_of(world.log.partitions[EVENTS][1], "r1").request_id)
        world.moved = True
        await world.run(since_ms=0).run()
        assert (world.sent, world.progress.sent) == (ids, 3)
        with pytest.raises(Moved):
            await world.run(since_ms=0, only=Only.FAILED).run()
