"""One replay as it runs, over a log, rows and a clock that the test plays."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.webhooks.model import Status, WebhookRow
from app.webhooks.replay import DisabledTime
from app.webhooks.replay_request import Only
from app.webhooks.replay_run import (
    ReplayFailed,
    ReplayState,
)
from tests.support.memory_unit import START_MS
from tests.support.replay_play import BATCH, DAY_MS, EVENTS, OTHER, TP, World
from tests.support.webhooks import webhook_row


@pytest.fixture
def world() -> World:
    return World()


async def test_sends_every_event_that_is_in_the_log_once_and_in_the_order_of_its_partition(world: World) -> None:
    first, second = world.log.add(EVENTS, 20), world.log.add(OTHER, 3)
    await world.run(since_ms=0).run()
    assert [id_ for id_ in world.sent if id_ in first] == first
    assert [id_ for id_ in world.sent if id_ in second] == second
    assert len(world.sent) == 23
    progress = world.progress
    assert (progress.total, progress.scanned, progress.matched, progress.sent) == (23, 23, 23, 23)


async def test_ends_where_the_log_ended_when_it_began(world: World) -> None:
    there = world.log.add(EVENTS, 10)
    world.before_send = lambda: world.log.add(EVENTS, 1) and None
    await world.run(since_ms=0, rate_per_s=10).run()
    assert world.sent == there


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"since_ms": START_MS + 4000}, range(4, 10)),
        ({"since_ms": START_MS + 4000, "until_ms": START_MS + 6000}, range(4, 6)),
        ({"since_ms": START_MS + 99_000}, range(0)),
        ({"from_offset": {"vault.events/0": 8}}, range(8, 10)),
        ({"from_offset": {"vault.events/0": 99}}, range(0)),
        ({"since_ms": 0, "event_types": ("access.*",)}, range(0)),
    ],
)
async def test_begins_and_ends_as_asked(world: World, request_: dict[str, Any], expected: range) -> None:
    ids = world.log.add(EVENTS, 10)
    await world.run(**request_).run()
    assert world.sent == [ids[place] for place in expected]
    assert world.progress.scanned == world.progress.total


async def test_reads_only_the_partitions_whose_offsets_were_given(world: World) -> None:
    world.log.add(EVENTS, 3)
    other = world.log.add(OTHER, 3)
    await world.run(from_offset={"vault.events/1": 1}).run()
    assert world.sent == other[1:]


async def test_says_how_much_of_what_was_asked_for_retention_has_taken(world: World) -> None:
    ids = world.log.add(EVENTS, 10)
    world.log.begins[EVENTS] = 4
    await world.run(from_offset={"vault.events/0": 1}).run()
    assert (world.sent, world.progress.gone) == (ids[4:], 3)


async def test_fails_where_there_is_no_such_partition(world: World) -> None:
    with pytest.raises(ReplayFailed, match=r"no partition vault\.events/7"):
        await world.run(from_offset={"vault.events/7": 0}).run()


async def test_skips_and_counts_what_is_no_event(world: World) -> None:
    ids = world.log.add(EVENTS, 2)
    world.log.add(EVENTS, 3, value=b"{")
    ids += world.log.add(EVENTS, 2)
    await world.run(since_ms=0).run()
    assert (world.sent, world.progress.malformed, world.progress.matched) == (ids, 3, 4)


class TestOnly:
    async def test_what_the_rows_say(self, world: World) -> None:
        ids = world.log.add(EVENTS, 12)
        for id_, status in zip(ids, [*Status, *Status], strict=True):
            world.became(id_, status)
        await world.run(since_ms=0, only=Only.FAILED).run()
        assert world.sent == [id_ for id_, status in zip(ids, [*Status, *Status], strict=True) if status == "failed"]
        assert (world.progress.matched, world.progress.skipped, world.progress.sent) == (12, 10, 2)

    async def test_what_was_missed_since_the_webhook_was_disabled(self, world: World) -> None:
        before, waited, missed, live = (world.log.add(EVENTS, 3) for _ in range(4))
        disabled = DisabledTime(START_MS + 6000, START_MS + 9000)
        for id_ in before + live:
            world.became(id_, Status.DELIVERED)
        for id_ in waited + missed:
            world.became(id_, Status.MISSED, ended_ms=disabled.from_ms)
        await world.run(since_disabled=True, disabled=disabled).run()
        assert world.sent == waited + missed

    async def test_needs_no_rows_for_what_was_missed_long_ago(self, world: World) -> None:
        ids = world.log.add(EVENTS, 10)
        world.clock.advance(7 * DAY_MS / 1000)
        disabled = DisabledTime(START_MS + 3000, START_MS + 6000)
        await world.run(since_disabled=True, disabled=disabled).run()
        assert world.sent == ids[3:6]

    async def test_is_refused_for_offsets_older_than_what_rows_remember(self, world: World) -> None:
        world.log.add(EVENTS, 10)
        world.clock.advance(7 * DAY_MS / 1000)
        with pytest.raises(ReplayFailed, match="older than what rows remember"):
            await world.run(from_offset={"vault.events/0": 0}, only=Only.MISSED).run()

    async def test_waits_for_an_owner_that_is_being_opened(self, world: World) -> None:
        ids = world.log.add(EVENTS, 3)
        world.became(ids[1], Status.MISSED)
        world.row_failures = 5
        await world.run(since_ms=0, only=Only.MISSED).run()
        assert world.sent == [ids[1]]


class TestABrokerThatFails:
    async def test_is_waited_for_and_nothing_is_left_out(self, world: World) -> None:
        ids = world.log.add(EVENTS, 40)
        world.log.failures = 5
        world.send_failures = 4
        await world.run(since_ms=0, rate_per_s=50).run()
        assert world.sent == ids
        assert (world.progress.scanned, world.progress.matched) == (40, 40)
        assert world.progress.waits_for is None

    async def test_is_named_while_it_fails(self, world: World) -> None:
        world.log.add(EVENTS, 1)
        world.send_failures = 1
        seen = []

        async def sleep(seconds: float) -> None:
            seen.append(world.progress.waits_for)
            await World.sleep(world, seconds)

        world.sleep = sleep  # type: ignore[method-assign]
        await world.run(since_ms=0).run()
        assert "the broker is away" in seen

    async def test_ends_a_replay_whose_webhook_was_deleted_meanwhile(self, world: World) -> None:
        world.log.add(EVENTS, 1)
        world.send_failures = 1_000_000

        def gone() -> None:
            if world.send_failures < 999_990:
                world.row = None

        world.before_send = gone
        with pytest.raises(ReplayFailed, match="deleted"):
            await world.run(since_ms=0).run()

    @given(
        st.lists(st.integers(0, 30), max_size=6), st.integers(0, 9), st.integers(0, 9), st.sampled_from([1, 30, 1e5])
    )
    async def test_costs_no_event_and_no_count(
        self, counts: list[int], log_failures: int, send_failures: int, rate_per_s: float
    ) -> None:
        world = World()
        for count in counts:
            world.log.add(EVENTS, count)
            world.log.add(OTHER, count // 2)
        world.log.failures, world.send_failures = log_failures, send_failures
        await world.run(since_ms=0, rate_per_s=rate_per_s).run()
        expected = sum(len(records) for records in world.log.partitions.values())
        assert Counter(world.sent) == Counter(
            f"e{tp[1]}-{n}" for tp in (EVENTS, OTHER) for n in range(_size(world, tp))
        )
        assert world.progress.scanned == world.progress.sent == world.progress.total == expected


def _size(world: World, tp: TP) -> int:
    return len(world.log.partitions[tp])


class TestTheRate:
    @pytest.mark.parametrize("rate_per_s", [0.5, 3, 25, 400])
    async def test_is_never_exceeded_by_more_than_a_chunk(self, world: World, rate_per_s: float) -> None:
        world.log.add(EVENTS, 300)
        await world.run(since_ms=0, rate_per_s=rate_per_s).run()
        chunk = max(1, rate_per_s / 10)
        for place, at_s in enumerate(world.sent_at_s):
            assert place < rate_per_s * (at_s - world.sent_at_s[0]) + chunk + 1e-6
        took_s = world.sent_at_s[-1] - world.sent_at_s[0]
        assert took_s <= 300 / rate_per_s

    async def test_is_not_made_up_for_after_a_pause(self, world: World) -> None:
        world.log.add(EVENTS, 30)
        pauses = iter([60.0])
        world.before_send = lambda: world.clock.advance(next(pauses, 0.0))
        await world.run(since_ms=0, rate_per_s=1).run()
        gaps = [after - before for before, after in zip(world.sent_at_s, world.sent_at_s[1:], strict=False)]
        assert min(gaps[1:]) >= 1 - 1e-6


class TestTheWebhook:
    @pytest.mark.parametrize(
        ("becomes", "why"),
        [
            (None, "deleted"),
            (webhook_row(deleting=True), "deleted"),
            (webhook_row(enabled=False), "disabled; enable it, and ask again with the same request_id"),
        ],
    )
    async def test_ends_the_replay_when_it_takes_nothing_any_more(
        self, world: World, becomes: WebhookRow | None, why: str
    ) -> None:
        world.log.add(EVENTS, 50)

        def change() -> None:
            if len(world.intents) >= 20:
                world.row = becomes

        world.before_send = change
        with pytest.raises(ReplayFailed, match=why):
            await world.run(since_ms=0, rate_per_s=10).run()
        assert 20 <= len(world.sent) <= 21

    async def test_is_served_by_what_it_asks_for_at_the_time(self, world: World) -> None:
        world.log.add(EVENTS, 50)

        def change() -> None:
            world.row = webhook_row(events=("access.*",))

        world.before_send = change
        await world.run(since_ms=0, rate_per_s=10).run()
        assert len(world.sent) <= 2 * BATCH


async def test_a_replay_that_was_cancelled_sends_nothing_more_whoever_swallows_the_cancellation(world: World) -> None:
    world.log.add(EVENTS, 50)

    def cancel() -> None:
        world.progress.state = ReplayState.CANCELLED

    world.before_send = cancel
    with pytest.raises(ReplayFailed):
        await world.run(since_ms=0, rate_per_s=10).run()
    assert len(world.sent) == 1


async def test_others_get_their_turn_while_a_long_log_is_read(world: World) -> None:
    world.log.add(EVENTS, 5000, value=b"{")
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await world.run(since_ms=0).run()
    task.cancel()
    assert turns >= 100
