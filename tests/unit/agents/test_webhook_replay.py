"""Replayed events at the owner of their webhook."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.engine import Ownership, Record
from app.events import STRUCTURED_HEADERS, format_time, new_event
from app.observability.metrics import EVENT_TO_POST_SECONDS
from app.replays import OwnedRows
from app.webhooks.commands import Op
from app.webhooks.intents import IntentReason
from app.webhooks.model import Status
from app.webhooks.replay import ReplayIntent, Selection
from app.webhooks.replay_request import Only, ReplayRequest
from app.webhooks.replay_run import Progress, ReplayDeps, ReplayRun, ReplayState, Timing
from tests.support.memory_unit import START_MS, record
from tests.support.webhooks import TOPICS, Desk, answer, webhook_row


def replayed(desk: Desk, event_id: str, request_id: str = "r1", **more: Any) -> Record:
    return desk.intent(event_id, reason=IntentReason.REPLAY, request_id=request_id, **more)


def status_of(desk: Desk, event_id: str) -> Status | None:
    row = desk.row(event_id)
    return None if row is None else row.status


async def test_an_event_that_the_webhook_never_got_is_delivered_once_however_often_its_replay_is_asked_for(
    desk: Desk,
) -> None:
    await desk.deliver(replayed(desk, "e1"))
    await desk.deliver(replayed(desk, "e1"), desk.intent("e1"))
    assert desk.receiver.events() == ["e1"]
    assert status_of(desk, "e1") is Status.DELIVERED


async def test_an_event_that_comes_twice_in_one_replay_while_it_is_in_flight_is_one_post(desk: Desk) -> None:
    desk.receiver.hold()
    await desk.deliver(replayed(desk, "e1"), replayed(desk, "e1"))
    await desk.deliver(replayed(desk, "e1"))
    desk.receiver.release()
    await desk.settle()
    assert desk.receiver.events() == ["e1"]
    assert desk.context.unfinished == []


async def test_a_delivery_that_ended_is_made_again_by_another_request_only(desk: Desk) -> None:
    await desk.deliver(desk.intent("e1"))
    await desk.deliver(replayed(desk, "e1", "r1"))
    await desk.deliver(replayed(desk, "e1", "r1"))
    assert desk.receiver.events() == ["e1", "e1"]
    await desk.deliver(replayed(desk, "e1", "r2"))
    assert desk.receiver.events() == ["e1", "e1", "e1"]


async def test_what_a_webhook_missed_is_delivered_by_a_replay_once_it_is_enabled(desk: Desk) -> None:
    await desk.deliver(desk.command(Op.DISABLE))
    await desk.deliver(desk.intent("e1"), replayed(desk, "e2"))
    assert [status_of(desk, event) for event in ("e1", "e2")] == [Status.MISSED, Status.MISSED]
    await desk.deliver(desk.command(Op.ENABLE, command_id="c2"))
    await desk.deliver(replayed(desk, "e1"), replayed(desk, "e2"))
    await desk.deliver(replayed(desk, "e1"), replayed(desk, "e2"))
    assert sorted(desk.receiver.events()) == ["e1", "e2"]


async def test_what_a_410_has_failed_is_delivered_again_by_a_replay_that_takes_it_once_the_webhook_is_enabled(
    desk: Desk,
) -> None:
    desk.receiver.will_answer(answer(410))
    await desk.deliver(desk.intent("e1"))
    await desk.deliver(desk.command(Op.ENABLE))
    await desk.deliver(replayed(desk, "e1"))
    assert desk.receiver.events() == ["e1", "e1"]
    assert status_of(desk, "e1") is Status.DELIVERED


async def test_the_age_of_a_replayed_event_is_no_delay_of_ours(desk: Desk) -> None:
    def seen() -> float:
        return next(s.value for m in EVENT_TO_POST_SECONDS.collect() for s in m.samples if s.name.endswith("_count"))

    before, old = seen(), format_time(START_MS - 365 * 86_400_000)
    await desk.deliver(replayed(desk, "e1", time=old))
    assert seen() == before
    await desk.deliver(desk.intent("e2", time=old))
    assert seen() == before + 1


VAULT = ("vault.events", 0)


@dataclass
class OwnLog:
    """One partition of vault events."""

    events: Sequence[str]

    async def bounds(self) -> Mapping[tuple[str, int], tuple[int, int]]:
        return {VAULT: (0, len(self.events))}

    async def offsets_at(self, partitions: Sequence[tuple[str, int]], at_ms: int) -> Mapping[Any, int | None]:
        return dict.fromkeys(partitions, 0)

    async def read(self, start: Any, until: Any) -> AsyncGenerator[Sequence[Record], None]:
        assert (start, until) == ({VAULT: 0}, {VAULT: len(self.events)})
        for place, id_ in enumerate(self.events):
            event = new_event(
                id=id_,
                source="/vault",
                type="llm.data-vault.dataset.created",
                subject=None,
                data={"dataset_id": "d1", "name": "n"},
            )
            yield [record(event.posted, topic=VAULT[0], offset=place, key=b"k", headers=STRUCTURED_HEADERS)]


@dataclass
class Asking:
    """Replays of a log to the webhook of a desk."""

    desk: Desk
    log: OwnLog

    def __post_init__(self) -> None:
        self._offsets = itertools.count(1000)

    async def ask(self, **request: Any) -> Progress:
        asked = ReplayRequest(**({"since_ms": 0, "request_id": "r1", "rate_per_s": 1e5} | request))
        clock, progress = self.desk.clock, Progress(ReplayState.RUNNING)
        ownership = Ownership(1, lambda _: True)
        rows = OwnedRows("wh_a", "w1", self.desk.readers, ownership)
        deps = ReplayDeps(self.log, rows, webhook_row, self._send, Timing(clock.now_ms, clock.monotonic_s))
        await ReplayRun(asked, Selection.of(asked, None, 86_400_000), deps, progress).run()
        return progress

    async def _send(self, intents: Sequence[ReplayIntent]) -> None:
        for intent in intents:
            offset = next(self._offsets)
            sent = record(intent.value, topic=TOPICS.deliveries, offset=offset, key=intent.key, headers=intent.headers)
            await self.desk.deliver(sent)


@given(
    st.lists(st.sampled_from("abcdefgh"), max_size=12),
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from([200, 400, 500])), max_size=8),
    st.lists(
        st.tuples(st.sampled_from(["r1", "r2"]), st.sampled_from([None, Only.FAILED, Only.MISSED])),
        min_size=1,
        max_size=6,
    ),
)
async def test_a_replay_counts_as_sent_what_is_posted_because_of_it_whatever_was_before(
    events: list[str], before: list[tuple[str, int]], asked: list[tuple[str, Only | None]]
) -> None:
    desk = await Desk().open(webhook_row())
    for event_id, status in before:
        desk.receiver.will_answer(answer(status), event_id=event_id)
        await desk.deliver(desk.intent(event_id))
    asking = Asking(desk, OwnLog(events))
    for request_id, only in asked:
        posted = len(desk.receiver.requests)
        progress = await asking.ask(request_id=request_id, only=only)
        assert progress.sent == len(desk.receiver.requests) - posted
        assert progress.sent + progress.skipped == progress.matched == len(events)


async def test_asked_for_again_a_replay_sends_nothing_and_says_so(desk: Desk) -> None:
    asking = Asking(desk, OwnLog(["e1", "e2", "e2", "e3"]))
    first, again = await asking.ask(), await asking.ask()
    assert (first.sent, first.skipped) == (3, 1)
    assert (again.sent, again.skipped) == (0, 4)
    assert desk.receiver.events() == ["e1", "e2", "e3"]
