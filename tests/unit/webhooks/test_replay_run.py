"""One replay as it runs, over a log, rows and a clock that the test plays."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.events import STRUCTURED_HEADERS, new_event
from app.webhooks.intents import MAX_KEPT_BYTES
from app.webhooks.model import DeliveryRow, Status, WebhookRow
from app.webhooks.replay import DisabledTime, ReplayIntent, Selection
from app.webhooks.replay_request import Only, ReplayRequest
from app.webhooks.replay_run import (
    Moved,
    Progress,
    ReplayDeps,
    ReplayFailed,
    ReplayRun,
    ReplayState,
    Timing,
    Unavailable,
)
from tests.support.memory_unit import START_MS, FakeClock, FakeRecord
from tests.support.webhooks import webhook_row

TP = tuple[str, int]
DAY_MS = 86_400_000
EVENTS, OTHER = ("vault.events", 0), ("vault.events", 1)
BATCH = 7


@dataclass
class PlayedLog:
    """Partitions; one that begins later than 0 has lost its first records to retention.

    Attributes:
        failures: How many of the next calls and batches break off.
        reads: How often it was read from anew.
    """

    partitions: dict[TP, list[FakeRecord]] = field(default_factory=lambda: {EVENTS: [], OTHER: []})
    begins: dict[TP, int] = field(default_factory=dict)
    failures: int = 0
    reads: int = 0

    def add(self, tp: TP, count: int, *, at_ms: int = START_MS, value: bytes | None = None) -> list[str]:
        """Events of one a second; their ids."""
        ids = []
        for _ in range(count):
            place = len(self.partitions[tp])
            id_ = f"e{tp[1]}-{place}"
            event = new_event(
                id=id_,
                source="/vault",
                type="llm.data-vault.dataset.created",
                subject="ds-1",
                data={"dataset_id": "ds-1", "name": "n"},
            )
            content = event.posted if value is None else value
            timestamp = at_ms + place * 1000
            self.partitions[tp].append(FakeRecord(*tp, place, timestamp, b"k", content, STRUCTURED_HEADERS))
            ids.append(id_)
        return ids

    def repeat(self, tp: TP, record: FakeRecord) -> None:
        """The same event, published once more."""
        records = self.partitions[tp]
        records.append(replace(record, offset=len(records), timestamp=records[-1].timestamp + 1000))

    async def bounds(self) -> Mapping[TP, tuple[int, int]]:
        self._maybe_fail()
        return {tp: (self.begins.get(tp, 0), len(records)) for tp, records in self.partitions.items()}

    async def offsets_at(self, partitions: Sequence[TP], at_ms: int) -> Mapping[TP, int | None]:
        self._maybe_fail()
        return {tp: next((r.offset for r in self._kept(tp) if r.timestamp >= at_ms), None) for tp in partitions}

    async def read(
        self, start: Mapping[TP, int], until: Mapping[TP, int]
    ) -> AsyncGenerator[Sequence[FakeRecord], None]:
        self.reads += 1
        self._maybe_fail()
        unread = [record for tp, first in start.items() for record in self.partitions[tp][first : until[tp]]]
        unread.sort(key=lambda record: record.timestamp)
        for at in range(0, len(unread), BATCH):
            yield unread[at : at + BATCH]
            self._maybe_fail()

    def _kept(self, tp: TP) -> list[FakeRecord]:
        return self.partitions[tp][self.begins.get(tp, 0) :]

    def _maybe_fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise Unavailable("the broker is away")


class World:
    """Everything around one replay; `sent` are the ids of events, in order."""

    def __init__(self) -> None:
        self.log = PlayedLog()
        self.rows: dict[str, DeliveryRow] = {}
        self.row: WebhookRow | None = webhook_row()
        self.clock = FakeClock(START_MS + DAY_MS // 4)
        self.intents: list[ReplayIntent] = []
        self.sent_at_s: list[float] = []
        self.progress = Progress(ReplayState.RUNNING)
        self.send_failures = 0
        self.row_failures = 0
        self.moved = False
        self.before_send: Callable[[], None] = lambda: None

    @property
    def sent(self) -> list[str]:
        return [msgspec.json.decode(intent.value)["id"] for intent in self.intents]

    async def send(self, intents: Sequence[ReplayIntent]) -> None:
        self.before_send()
        if self.send_failures:
            self.send_failures -= 1
            raise Unavailable("the broker is away")
        self.intents += intents
        self.sent_at_s += [self.clock.monotonic_s()] * len(intents)

    async def read(self, delivery_ids: Sequence[str]) -> Sequence[DeliveryRow | None]:
        if self.moved:
            raise Moved("the webhook moved")
        if self.row_failures:
            self.row_failures -= 1
            raise Unavailable("the number is not open")
        return [self.rows.get(id_) for id_ in delivery_ids]

    async def origins_of_missed(self, asked: Callable[[DeliveryRow], bool]) -> Mapping[TP, int]:
        found: dict[TP, int] = {}
        for row in self.rows.values():
            if row.status is Status.MISSED and asked(row):
                topic, partition, offset = row.origin.split("/")
                tp = (topic, int(partition))
                found[tp] = min(int(offset), found.get(tp, int(offset)))
        return found

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.clock.advance(seconds)
        await asyncio.sleep(0)

    def run(self, *, disabled: DisabledTime | None = None, **request: Any) -> ReplayRun:
        wanted = ReplayRequest(**({"request_id": "r1", "rate_per_s": 100_000.0} | request))
        timing = Timing(self.clock.now_ms, self.clock.monotonic_s, self.sleep)
        deps = ReplayDeps(self.log, self, lambda: self.row, self.send, timing)
        return ReplayRun(wanted, Selection.of(wanted, disabled, DAY_MS), deps, self.progress)

    def apply(self, status: Status = Status.DELIVERED) -> None:
        """The owner does what it was sent."""
        for intent in self.intents:
            self.became(msgspec.json.decode(intent.value)["id"], status, request_id=intent.request_id)

    def became(
        self, event_id: str, status: Status, *, ended_ms: int | None = None, request_id: str | None = None
    ) -> None:
        """The owner has a row of an event."""
        records = (record for records in self.log.partitions.values() for record in records)
        found = next(r for r in records if msgspec.json.decode(r.value or b"")["id"] == event_id)
        intent = _intent_of(found)
        ended_ms = self.clock.now_ms() if ended_ms is None else ended_ms
        self.rows[intent.delivery_id] = DeliveryRow(
            delivery_id=intent.delivery_id,
            webhook_id="wh_a",
            event_id=event_id,
            event_source="/vault",
            event_type="llm.data-vault.dataset.created",
            origin=f"{found.topic}/{found.partition}/{found.offset}",
            request_id=request_id,
            status=status,
            created_at_ms=ended_ms,
            waiting_since_ms=ended_ms,
            expires_at_ms=ended_ms + DAY_MS,
        )


def _intent_of(record: FakeRecord, request_id: str = "r") -> ReplayIntent:
    from app.webhooks.replay import Aim  # noqa: PLC0415  # for this one place

    aim = Aim(ReplayRequest(since_ms=0, request_id=request_id))
    aim.use(webhook_row())
    intent = aim.intent(record)
    assert intent is not None
    return intent


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
        world.became(ids[1], Status.DELIVERED, request_id=_intent_of(world.log.partitions[EVENTS][1], "r1").request_id)
        world.row_failures = 1_000_000
        await world.run(since_ms=0).run()
        assert (world.sent, world.progress.sent) == (ids, 3)

    async def test_is_all_that_may_be_new_while_the_webhook_is_with_another_worker(self, world: World) -> None:
        ids = world.log.add(EVENTS, 3)
        world.became(ids[1], Status.DELIVERED, request_id=_intent_of(world.log.partitions[EVENTS][1], "r1").request_id)
        world.moved = True
        await world.run(since_ms=0).run()
        assert (world.sent, world.progress.sent) == (ids, 3)
        with pytest.raises(Moved):
            await world.run(since_ms=0, only=Only.FAILED).run()


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
