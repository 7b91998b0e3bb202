"""A log, rows and a clock that a test plays to one replay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from app.events import STRUCTURED_HEADERS, new_event
from app.webhooks.model import DeliveryRow, Status, WebhookRow
from app.webhooks.replay import DisabledTime, ReplayIntent, Selection
from app.webhooks.replay_request import ReplayRequest
from app.webhooks.replay_run import (
    Moved,
    Progress,
    ReplayDeps,
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
        intent = intent_of(found)
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


def intent_of(record: FakeRecord, request_id: str = "r") -> ReplayIntent:
    from app.webhooks.replay import Aim  # noqa: PLC0415  # for this one place

    aim = Aim(ReplayRequest(since_ms=0, request_id=request_id))
    aim.use(webhook_row())
    intent = aim.intent(record)
    assert intent is not None
    return intent
