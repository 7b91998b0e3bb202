"""One replay as it runs: the log from its beginning to the end as of its start, and what came of it.

Everything that it reads, asks and sends is passed in. It may be cut off at any point: nothing is remembered but in the
rows of the deliveries, and whoever asks for it again under its request id repeats nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from app.events import InvalidEvent
from app.webhooks.errors import WebhookError
from app.webhooks.intents import fits_a_row
from app.webhooks.replay import Aim, LatelySent
from app.webhooks.replay_request import Only

if TYPE_CHECKING:
    from app.webhooks.model import DeliveryRow, WebhookRow
    from app.webhooks.replay import LogRecord, ReplayIntent, Selection
    from app.webhooks.replay_request import ReplayRequest

__all__ = [
    "Log",
    "Moved",
    "Progress",
    "ReplayDeps",
    "ReplayFailed",
    "ReplayRows",
    "ReplayRun",
    "ReplayState",
    "Timing",
    "Unavailable",
]

log = logging.getLogger("app.webhooks.replay")

RETRY_MIN_S: Final = 0.2
RETRY_MAX_S: Final = 5.0
YIELD_EVERY_RECORDS: Final = 32
# So many records take less than this; more than it was spent waiting.
BREATH_MAX_S: Final = 0.005
# A chunk is sent and acknowledged at once, so it is the most that a rate is ever exceeded by.
MAX_CHUNK: Final = 128
CHUNKS_A_SECOND: Final = 10

TP = tuple[str, int]
T = TypeVar("T")


class Unavailable(Exception):
    """A broker or an owner does not answer now; the same call may succeed later.

    The text is shown to callers, so that it names no address; the cause is for the log.
    """


class ReplayFailed(WebhookError):
    """A replay that cannot go on; the text says why, and what to do."""

    code = "replay_failed"


class Moved(ReplayFailed):
    """The rows of the webhook are with another worker."""


class ReplayState(StrEnum):
    """Where a replay stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self not in {ReplayState.QUEUED, ReplayState.RUNNING}


@dataclass(slots=True)
class Progress:
    """How far a replay has come.

    Attributes:
        total: Offsets between the beginning and the end; None until they are known.
        scanned: Of those, how many lie behind it.
        matched: Events that the webhook asks for and the request does not leave out.
        skipped: Of those, how many this replay brings nobody: `only` leaves them out, or they were sent under its
            request id before, or are larger than a delivery may be and go to quarantine.
        sent: All others of those, once the broker has acknowledged them. While the webhook is with another worker, it
            is not known which of them were sent before; they count here, and their owner leaves them out.
        malformed: Records that are in quarantine, as they are no events of the catalogue.
        gone: Offsets that were asked for and that retention has taken.
        waits_for: Why nothing goes on at the moment.
    """

    state: ReplayState = ReplayState.QUEUED
    total: int | None = None
    scanned: int = 0
    matched: int = 0
    skipped: int = 0
    sent: int = 0
    malformed: int = 0
    gone: int = 0
    started_at_ms: int | None = None
    ended_at_ms: int | None = None
    error: str | None = None
    waits_for: str | None = None


class Log(Protocol):
    """The topics that the router reads."""

    async def bounds(self) -> Mapping[TP, tuple[int, int]]:
        """First offset and end of every partition.

        Raises:
            Unavailable: Not known now.
        """

    async def offsets_at(self, partitions: Sequence[TP], at_ms: int) -> Mapping[TP, int | None]:
        """Of each partition the first offset of that time or later; None: there is none.

        Raises:
            Unavailable: Not known now.
        """

    def read(self, start: Mapping[TP, int], until: Mapping[TP, int]) -> AsyncGenerator[Sequence[LogRecord], None]:
        """The records in between, some at a time, of each partition in its order.

        Raises:
            Unavailable: It broke off.
        """


class ReplayRows(Protocol):
    """The rows of one webhook's deliveries."""

    async def read(self, delivery_ids: Sequence[str]) -> Sequence[DeliveryRow | None]:
        """The row of each, as it is now.

        Raises:
            Unavailable: The number is not open at the moment.
            Moved: It is with another worker.
        """

    async def origins_of_missed(self, asked: Callable[[DeliveryRow], bool]) -> Mapping[TP, int]:
        """By partition the first offset of the events of the missed rows that are asked for.

        Raises:
            Unavailable, Moved: As above.
        """


@dataclass(frozen=True, slots=True)
class Timing:
    """Clocks, and how to wait."""

    now_ms: Callable[[], int]
    monotonic_s: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True, slots=True)
class ReplayDeps:
    """What a replay works with.

    Attributes:
        webhook: The webhook as it is now; None: it is gone.
        send: Sends intents in their order; returns once all are acknowledged, raises Unavailable if not all are.
    """

    log: Log
    rows: ReplayRows
    webhook: Callable[[], WebhookRow | None]
    send: Callable[[Sequence[ReplayIntent]], Awaitable[None]]
    timing: Timing


class ReplayRun:
    """One replay.

    Attributes:
        progress: Kept up to date.
    """

    def __init__(self, request: ReplayRequest, selection: Selection, deps: ReplayDeps, progress: Progress) -> None:
        self.progress = progress
        self._request = request
        self._selection = selection
        self._deps = deps
        self._aim = Aim(request)
        self._next: dict[TP, int] = {}
        self._until: dict[TP, int] = {}
        self._chunk = max(1, min(MAX_CHUNK, math.floor(request.rate_per_s / CHUNKS_A_SECOND)))
        self._send_at_s = 0.0
        self._lately = LatelySent()
        self._worked = 0
        self._breathed_at_s = 0.0

    async def run(self) -> None:
        """Read, select and send, to the end.

        Raises:
            ReplayFailed: It cannot go on.
        """
        self._look_at_webhook()
        await self._patiently(self._plan)
        await self._patiently(self._read)

    # -- where it begins and ends

    async def _plan(self) -> None:
        bounds = await self._deps.log.bounds()
        starts = await self._starts(bounds)
        # What could not be finished is planned anew, so nothing is kept before everything is known.
        self._until = {tp: bounds[tp][1] for tp in starts}
        self._next = {tp: max(min(at, bounds[tp][1]), bounds[tp][0]) for tp, at in starts.items()}
        self.progress.gone = sum(max(0, bounds[tp][0] - at) for tp, at in starts.items())
        self.progress.total = sum(self._until[tp] - at for tp, at in self._next.items())

    async def _starts(self, bounds: Mapping[TP, tuple[int, int]]) -> dict[TP, int]:
        request = self._request
        if request.from_offset is not None:
            return await self._from_offsets(request.offsets, bounds)
        disabled = self._selection.disabled
        if request.since_ms is not None:
            return await self._at(request.since_ms, bounds)
        row = self._deps.webhook()
        disabled_at_ms = disabled.from_ms if disabled is not None else None if row is None else row.disabled_at_ms
        starts = await self._at(disabled_at_ms or 0, bounds)
        if disabled is not None:
            # What waited when the webhook was disabled was missed, too, and may be days older.
            for tp, origin in (await self._deps.rows.origins_of_missed(self._selection.missed_now)).items():
                if tp in starts:
                    starts[tp] = min(starts[tp], origin)
        return starts

    async def _at(self, at_ms: int, bounds: Mapping[TP, tuple[int, int]]) -> dict[TP, int]:
        found = await self._deps.log.offsets_at(list(bounds), at_ms)
        return {tp: end if (offset := found.get(tp)) is None else offset for tp, (_, end) in bounds.items()}

    async def _from_offsets(self, asked: dict[TP, int], bounds: Mapping[TP, tuple[int, int]]) -> dict[TP, int]:
        for topic, partition in asked:
            if (topic, partition) not in bounds:
                raise ReplayFailed(f"there is no partition {topic}/{partition}")
        if self._selection.only is not Only.ALL:
            oldest_ms = self._deps.timing.now_ms() - self._selection.history_ms
            remembered = await self._at(oldest_ms, {tp: bounds[tp] for tp in asked})
            for (topic, partition), offset in asked.items():
                if offset < remembered[topic, partition]:
                    raise ReplayFailed(
                        f"from_offset of {topic}/{partition} is older than what rows remember, which only asks for;"
                        f" begin at {remembered[topic, partition]}, or leave only out"
                    )
        return asked

    # -- reading and sending

    async def _read(self) -> None:
        unread = {tp: at for tp, at in self._next.items() if at < self._until[tp]}
        if not unread:
            return
        async with aclosing(self._deps.log.read(unread, {tp: self._until[tp] for tp in unread})) as blocks:
            async for records in blocks:
                self.progress.waits_for = None
                self._look_at_webhook()
                await self._take(records)
        for tp in unread:
            # What lies behind its last record is no record.
            self._reached(tp, self._until[tp])

    async def _take(self, records: Sequence[LogRecord]) -> None:
        chunk: list[ReplayIntent] = []
        behind: dict[TP, int] = {}
        for record in records:
            behind[record.topic, record.partition] = record.offset + 1
            if (intent := self._intent(record)) is not None:
                chunk.append(intent)
            if len(chunk) >= self._chunk:
                await self._flush(chunk, behind)
                chunk, behind = [], {}
            await self._breathe()
        await self._flush(chunk, behind)

    async def _breathe(self) -> None:
        """Leave half of the loop's time to others at least: the live events are on it, too."""
        self._worked += 1
        if self._worked % YIELD_EVERY_RECORDS == 0:
            now_s = self._deps.timing.monotonic_s()
            await self._deps.timing.sleep(min(now_s - self._breathed_at_s, BREATH_MAX_S))
            self._breathed_at_s = self._deps.timing.monotonic_s()

    def _intent(self, record: LogRecord) -> ReplayIntent | None:
        try:
            intent = self._aim.intent(record)
        except InvalidEvent:
            self.progress.malformed += 1
            return None
        self.progress.matched += intent is not None
        return intent

    def _reached(self, tp: TP, position: int) -> None:
        self.progress.scanned += position - self._next[tp]
        self._next[tp] = position

    async def _flush(self, chunk: Sequence[ReplayIntent], behind: Mapping[TP, int]) -> None:
        """Send what is selected of a chunk; once the broker has it, its records are behind us."""
        if chunk:
            await self._send(chunk)
        for tp, position in behind.items():
            self._reached(tp, position)

    async def _send(self, chunk: Sequence[ReplayIntent]) -> None:
        chosen = await self._choose(chunk)
        self.progress.skipped += len(chunk) - len(chosen)
        if chosen:
            await self._in_time(len(chosen))
            self._look_at_webhook()
            await self._patiently(lambda: self._deps.send(chosen))
            self._note_sent(chosen)

    async def _choose(self, chunk: Sequence[ReplayIntent]) -> list[ReplayIntent]:
        """Those that are asked for, each delivery once, without what was sent under the same request id before.

        Their owner would do nothing with those; but then they would be counted as if it had.
        """
        rows = await self._rows_of([intent.delivery_id for intent in chunk])
        chosen: dict[str, ReplayIntent] = {}
        for intent, row in zip(chunk, rows, strict=True):
            known = intent.delivery_id in self._lately or (row is not None and row.request_id == intent.request_id)
            if not known and self._selection.takes(row, intent.at_ms):
                first = chosen.get(intent.delivery_id)
                if first is None or not fits_a_row(first.value):
                    chosen[intent.delivery_id] = intent
        return list(chosen.values())

    async def _rows_of(self, delivery_ids: Sequence[str]) -> Sequence[DeliveryRow | None]:
        if self._selection.needs_rows:
            return await self._patiently(lambda: self._deps.rows.read(delivery_ids))
        try:
            return await self._deps.rows.read(delivery_ids)
        except (Moved, Unavailable):
            # They only say what need not be counted; a number that does not open holds up nothing that needs no row.
            return [None] * len(delivery_ids)

    def _note_sent(self, intents: Sequence[ReplayIntent]) -> None:
        fitting = [intent for intent in intents if fits_a_row(intent.value)]
        self.progress.sent += len(fitting)
        self.progress.skipped += len(intents) - len(fitting)
        self._lately.add(fitting)

    async def _in_time(self, count: int) -> None:
        """Wait for the turn of so many intents; what was not used of a rate is not made up for."""
        timing = self._deps.timing
        now_s = timing.monotonic_s()
        at_s = max(self._send_at_s, now_s)
        self._send_at_s = at_s + count / self._request.rate_per_s
        if at_s > now_s:
            await timing.sleep(at_s - now_s)

    def _look_at_webhook(self) -> None:
        if self.progress.state.ended:
            # A client library may swallow the cancellation.
            raise ReplayFailed("it was cancelled")
        row = self._deps.webhook()
        if row is None or row.deleting:
            raise ReplayFailed("the webhook was deleted")
        if not row.enabled:
            raise ReplayFailed("the webhook is disabled; enable it, and ask again with the same request_id")
        self._aim.use(row)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call until it succeeds; a broker that is away is waited for."""
        delay_s = RETRY_MIN_S
        before = self.progress.scanned
        while True:
            try:
                result = await call()
            except Unavailable as error:
                if self.progress.scanned > before:
                    before, delay_s = self.progress.scanned, RETRY_MIN_S
                self.progress.waits_for = str(error)
                log.warning("a replay goes on in %.1f s: %s (%s)", delay_s, error, error.__cause__)
                await self._deps.timing.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MAX_S)
                self._look_at_webhook()
            else:
                self.progress.waits_for = None
                return result
