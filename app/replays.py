"""The replays of this worker: a few at a time, the others in a queue; and what they read and write, for real.

A replay runs at the owner of its webhook, where the rows are that `only` asks about. Its progress is in memory and lost
with the worker; what it sent is in the log, and asking again under the same request id sends nothing that has had its
effect, and counts it as skipped.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from app.engine import Message, OutputFailed, Revoked
from app.engine.cancellation import cancelled
from app.engine.log_stream import LogUnreadable
from app.events import format_time
from app.webhooks.model import Status
from app.webhooks.replay import Selection
from app.webhooks.replay_request import show_request
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
from tables.deliveries import DELIVERIES, delivery_key
from tables.delivery_queries import DeliveryQuery, find_page

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.engine import Outputs, Ownership, Unit
    from app.engine.log_stream import LogStream
    from app.webhooks.model import DeliveryRow, WebhookRow
    from app.webhooks.replay import LogRecord, ReplayIntent
    from app.webhooks.replay_request import ReplayRequest
    from app.webhooks.replay_run import Log
    from tables.delivery_queries import DeliveryPage, FoundDelivery, Readers

__all__ = ["OwnedRows", "Replay", "ReplayWorld", "Replays", "TooManyReplays", "VaultLog"]

log = logging.getLogger("app.replays")

AT_ONCE: Final = 2
QUEUED_AT_MOST: Final = 100
REMEMBERED: Final = 100
MISSED_A_JOB: Final = 200

TP = tuple[str, int]
T = TypeVar("T")


class TooManyReplays(Exception):
    """The queue is full."""


@dataclass(eq=False, slots=True)
class Replay:
    """One replay that was asked for.

    Attributes:
        id: `{worker}.{uuid}`.
        actor: The name of the token.
    """

    id: str
    webhook_id: str
    request: ReplayRequest
    actor: str
    created_at_ms: int
    progress: Progress = field(default_factory=Progress)

    @property
    def place(self) -> tuple[int, str]:
        """Its place in lists, which are newest first: ids have a dot, the uuid has none."""
        return self.created_at_ms, self.id.rpartition(".")[2]

    def show(self) -> dict[str, Any]:
        """As the API shows it."""
        progress = self.progress
        optional = {
            "total": progress.total,
            "started_at": _time(progress.started_at_ms),
            "ended_at": _time(progress.ended_at_ms),
            "waits_for": progress.waits_for,
            "error": progress.error,
        }
        return {
            "id": self.id,
            "webhook_id": self.webhook_id,
            "state": progress.state.value,
            **show_request(self.request),
            "scanned": progress.scanned,
            "matched": progress.matched,
            "skipped": progress.skipped,
            "sent": progress.sent,
            "malformed": progress.malformed,
            "gone": progress.gone,
            "actor": self.actor,
            "created_at": format_time(self.created_at_ms),
            **{name: value for name, value in optional.items() if value is not None},
        }


class Replays:
    """The replays of one worker.

    Args:
        worker: Its name.
        new_run: Makes the run of a replay that begins.
        now_ms: Wall clock.
    """

    def __init__(
        self,
        worker: str,
        new_run: Callable[[Replay, Selection], ReplayRun],
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.worker = worker
        self._new_run = new_run
        self._now_ms = now_ms
        self._known: dict[str, Replay] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    def all(self) -> list[Replay]:
        """Those that run or wait, and the last ones that ended."""
        return list(self._known.values())

    def get(self, replay_id: str) -> Replay | None:
        """One of them."""
        return self._known.get(replay_id)

    def active(self, webhook_id: str, request: ReplayRequest) -> Replay | None:
        """The same replay, if it runs or waits already."""
        for replay in self._known.values():
            if replay.webhook_id == webhook_id and replay.request == request and not replay.progress.state.ended:
                return replay
        return None

    def new(self, webhook_id: str, request: ReplayRequest, actor: str) -> Replay:
        """A replay that is not started yet.

        Raises:
            TooManyReplays: Nothing more is taken at the moment.
        """
        if len(self._tasks) >= QUEUED_AT_MOST:
            raise TooManyReplays
        return Replay(f"{self.worker}.{uuid.uuid4()}", webhook_id, request, actor, self._now_ms())

    def start(self, replay: Replay, selection: Selection) -> None:
        """Run it as soon as there is a place."""
        self._known[replay.id] = replay
        task = asyncio.create_task(self._carry_out(replay, self._new_run(replay, selection)), name=replay.id)
        self._tasks[replay.id] = task
        task.add_done_callback(partial(self._ended, replay))

    async def cancel(self, replay: Replay) -> None:
        """End it; what was sent stays sent."""
        task = self._tasks.get(replay.id)
        if task is not None:
            self._end(replay, ReplayState.CANCELLED)
            await cancelled(task)

    async def close(self) -> None:
        """End all of them: the worker stops."""
        for replay in self._known.values():
            self._end(replay, ReplayState.CANCELLED, "the worker stopped; ask again with the same request_id")
        await cancelled(*self._tasks.values())

    async def _carry_out(self, replay: Replay, run: ReplayRun) -> None:
        try:
            async with self._slots:
                replay.progress.state = ReplayState.RUNNING
                replay.progress.started_at_ms = self._now_ms()
                await run.run()
            self._end(replay, ReplayState.DONE)
        except ReplayFailed as error:
            self._end(replay, ReplayState.FAILED, str(error))
        except Exception:
            log.exception("a replay failed", extra={"replay_id": replay.id})
            self._end(replay, ReplayState.FAILED, "it failed here; the log of the worker has the reason")

    def _end(self, replay: Replay, state: ReplayState, error: str | None = None) -> None:
        """The first end counts: a run that ends while it is being cancelled was cancelled."""
        progress = replay.progress
        if not progress.state.ended:
            progress.state, progress.error, progress.waits_for = state, error, None
            progress.ended_at_ms = self._now_ms()

    def _ended(self, replay: Replay, _task: asyncio.Task[None]) -> None:
        del self._tasks[replay.id]
        # A task that is cancelled before its first step never gets to say so.
        self._end(replay, ReplayState.CANCELLED)
        ended = [one for one in self._known.values() if one.progress.state.ended]
        for oldest in sorted(ended, key=lambda one: one.progress.ended_at_ms or 0)[: max(0, len(ended) - REMEMBERED)]:
            del self._known[oldest.id]


@dataclass(frozen=True, slots=True)
class VaultLog:
    """The topics that the router reads; see `replay_run.Log`."""

    stream: LogStream

    async def bounds(self) -> Mapping[TP, tuple[int, int]]:
        """See `Log.bounds`."""
        with _unavailable():
            return await self.stream.bounds()

    async def offsets_at(self, partitions: Sequence[TP], at_ms: int) -> Mapping[TP, int | None]:
        """See `Log.offsets_at`."""
        with _unavailable():
            return await self.stream.offsets_at(partitions, at_ms)

    async def read(self, start: Mapping[TP, int], until: Mapping[TP, int]) -> AsyncGenerator[Sequence[LogRecord], None]:
        """See `Log.read`."""
        with _unavailable():
            async with aclosing(self.stream.read(start, until)) as blocks:
                async for records in blocks:
                    yield records


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except LogUnreadable as error:
        raise Unavailable("the log of events cannot be read at the moment") from error


@dataclass(frozen=True, slots=True)
class ReplayWorld:
    """What all replays of a worker read and write.

    Attributes:
        worker: Its name.
        deliveries: The topic of intents.
        webhook: A webhook as this worker's copy has it.
    """

    worker: str
    deliveries: str
    log: Log
    outputs: Outputs
    readers: Readers
    ownership: Ownership
    webhook: Callable[[str], WebhookRow | None]

    def run_of(self, replay: Replay, selection: Selection) -> ReplayRun:
        """The run of a replay."""
        deps = ReplayDeps(
            log=self.log,
            rows=OwnedRows(replay.webhook_id, self.worker, self.readers, self.ownership),
            webhook=partial(self.webhook, replay.webhook_id),
            send=self._send,
            timing=Timing(lambda: time.time_ns() // 1_000_000, time.monotonic),
        )
        return ReplayRun(replay.request, selection, deps, replay.progress)

    async def _send(self, intents: Sequence[ReplayIntent]) -> None:
        messages = [Message(self.deliveries, intent.key, intent.value, intent.headers) for intent in intents]
        try:
            await self.outputs.send_many(messages)
        except OutputFailed as error:
            if not error.retriable:
                raise ReplayFailed(str(error)) from error
            raise Unavailable("the broker does not acknowledge what is sent at the moment") from error


@dataclass(frozen=True, slots=True)
class OwnedRows:
    """The rows of one webhook's deliveries, read where they are: here, at their owner."""

    webhook_id: str
    worker: str
    readers: Readers
    ownership: Ownership

    async def read(self, delivery_ids: Sequence[str]) -> Sequence[DeliveryRow | None]:
        """See `ReplayRows.read`."""

        def job(unit: Unit, held: Mapping[str, FoundDelivery]) -> list[DeliveryRow | None]:
            return [
                held[id_].row if id_ in held else unit.get(DELIVERIES, delivery_key(self.webhook_id, id_))
                for id_ in delivery_ids
            ]

        return await self._at_owner(job)

    async def origins_of_missed(self, asked: Callable[[DeliveryRow], bool]) -> Mapping[TP, int]:
        """See `ReplayRows.origins_of_missed`."""
        first: dict[TP, int] = {}
        query: DeliveryQuery | None = DeliveryQuery(webhook_id=self.webhook_id, status=Status.MISSED)
        while query is not None:
            page = await self._at_owner(partial(_missed_page, query))
            for topic, partition, offset in _origins(found.row for found in page.items if asked(found.row)):
                first[topic, partition] = min(offset, first.get((topic, partition), offset))
            reached = page.reached
            query = None if reached is None else DeliveryQuery(self.webhook_id, Status.MISSED, after=reached)
        return first

    async def _at_owner(self, job: Callable[[Unit, Mapping[str, FoundDelivery]], T]) -> T:
        number = self.ownership.number_of(self.webhook_id.encode())
        reader = self.readers.get(number)
        if reader is None or not self.ownership.is_mine(number):
            owner = self.ownership.owner(number)
            if owner is not None and owner.name != self.worker:
                raise Moved(f"the webhook moved to the worker {owner.name}; ask again with the same request_id")
            raise Unavailable("the rows of the webhook are not open yet")
        try:
            return await reader.read(job)
        except Revoked:
            raise Unavailable("the rows of the webhook were closed") from None


def _missed_page(query: DeliveryQuery, unit: Unit, held: Mapping[str, FoundDelivery]) -> DeliveryPage:
    return find_page(unit, held, query, MISSED_A_JOB)


def _origins(rows: Iterable[DeliveryRow]) -> Iterable[tuple[str, int, int]]:
    for row in rows:
        topic, _, rest = row.origin.partition("/")
        partition, _, offset = rest.partition("/")
        if partition.isdecimal() and offset.isdecimal():
            yield topic, int(partition), int(offset)


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else format_time(at_ms)
