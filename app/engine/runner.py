"""Runs one number of one agent: slices, ticks and jobs, strictly one after another.

It retries what is retriable, runs a failed slice again record by record and quarantines the poison; but a long run of
poison stops it, because a bad deploy must not quarantine everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from app.engine import faults
from app.engine.agent import Agent, Clock
from app.engine.errors import OutputFailed, Retriable, Revoked
from app.engine.records import Slice
from app.engine.tracker import Tracker
from app.engine.unit import Scope, Unit

__all__ = ["Host", "Runner"]

log = logging.getLogger("app.engine.runner")

T = TypeVar("T")

JOBS_A_UNIT = 500
RETRY_MIN_S = 0.05
RETRY_MAX_S = 30.0
FLUSH_RETRY_MAX_S = 5.0
LEASE_POLL_S = 0.05
# In a row; more is a bad deploy or a changed upstream, not poison.
POISON_LIMITS = {"handler_error": 100, "rejected_upstream": 20}


class Host(Protocol):
    """What a runner needs of its number."""

    clock: Clock
    number: int

    def may_act(self) -> bool:
        """Whether something visible outside may start."""

    async def checkpoint_now(self) -> None:
        """Log everything merged so far."""

    def room(self) -> None:
        """Records were finished: the number may be fetched again."""

    def runner_died(self, agent: str) -> None:
        """A bug of ours; the process must not go on pretending."""


class Runner:
    """One coroutine, and the `Context` of its processor."""

    def __init__(self, agent: Agent, host: Host, scope: Scope, trackers: dict[tuple[str, int], Tracker]) -> None:
        self.spec = agent
        self.trackers = trackers
        self.stopped_reason: str | None = None
        self._host = host
        self._scope = scope
        self._slices: deque[Slice] = deque()
        self._jobs: deque[tuple[Callable[[Unit], Any], asyncio.Future[Any]]] = deque()
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._tick_at: float | None = None
        self._draining = False
        self._poison: Counter[str] = Counter()
        self._spawned: set[asyncio.Task[None]] = set()
        self.opened = asyncio.Event()
        self.processor = agent.processor(self)
        self.task = asyncio.create_task(self._main(), name=f"{agent.name}-{host.number}")

    # -- what the processor sees (Context)

    @property
    def number(self) -> int:
        """The number."""
        return self._host.number

    @property
    def agent(self) -> str:
        """The agent's name."""
        return self.spec.name

    @property
    def clock(self) -> Clock:
        """The clocks."""
        return self._host.clock

    async def submit(self, job: Callable[[Unit], T]) -> T:
        """Run a job between slices; see `Context.submit`."""
        if not self._scope.valid or self.task.done():
            raise Revoked(f"{self.agent}: number {self.number} is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.append((job, future))
        self._wake.set()
        return await future

    def tick_at(self, monotonic_s: float) -> None:
        """See `Context.tick_at`."""
        if self._tick_at is None or monotonic_s < self._tick_at:
            self._tick_at = monotonic_s
            self._wake.set()

    def tick_now(self) -> None:
        """See `Context.tick_now`."""
        self.tick_at(0.0)

    async def checkpoint(self) -> None:
        """See `Context.checkpoint`."""
        await self._host.checkpoint_now()

    def may_act(self) -> bool:
        """See `Context.may_act`."""
        return self._scope.valid and not self._draining and self._host.may_act()

    async def until_may_act(self) -> None:
        """See `Context.until_may_act`."""
        while not self.may_act():
            if not self._scope.valid or self._draining:
                raise Revoked(f"{self.agent}: number {self.number} is closing")
            await asyncio.sleep(LEASE_POLL_S)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """See `Context.spawn`."""
        task = asyncio.create_task(self._supervised(work))
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)
        return task

    async def _supervised(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Revoked:
            return
        except Exception:
            log.exception("a task of %s/%s died", self.agent, self.number)
            self._host.runner_died(self.agent)
        finally:
            self._wake.set()

    # -- what the number sees

    def accept(self, slice_: Slice) -> None:
        """Take a slice of this opening; never blocks, never raises."""
        self._slices.append(slice_)
        self._wake.set()

    def has_room(self) -> bool:
        """Whether more records may be fetched for it."""
        if self.stopped_reason is not None or self._draining:
            return False
        records = sum(t.unfinished for t in self.trackers.values())
        size = sum(t.unfinished_bytes for t in self.trackers.values())
        return records < self.spec.room_records and size < self.spec.room_bytes

    def oldest_unfinished_s(self) -> float:
        """Age of the oldest record that was handed over and is not done."""
        ages = [t.oldest_at for t in self.trackers.values() if t.oldest_at is not None]
        return self.clock.monotonic_s() - min(ages) if ages else 0.0

    async def drain(self, timeout_s: float) -> bool:
        """Begin nothing new; True when nothing was under way within the time."""
        self._draining = True
        self.processor.begin_drain()
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._drained.wait()
        return self._drained.is_set()

    def skip_drain(self) -> None:
        """Do not wait for what is under way."""
        self._drained.set()

    async def close(self) -> None:
        """End at once; everything that is not merged is forgotten."""
        self.task.cancel()
        for task in list(self._spawned):
            task.cancel()
        await asyncio.gather(self.task, *self._spawned, return_exceptions=True)
        for _, future in self._jobs:
            if not future.done():
                future.set_exception(Revoked(f"{self.agent}: number {self.number} is closed"))
        self._jobs.clear()
        await self.processor.closed()

    # -- the coroutine

    async def _main(self) -> None:
        try:
            unit = Unit(self._scope)
            await self.processor.opened(unit)
            await self._commit(unit)
            self.opened.set()
            while True:
                await self._turn()
        except Revoked:
            pass
        except Exception:
            log.exception("runner %s/%s died", self.agent, self.number)
            self._host.runner_died(self.agent)
        finally:
            self._drained.set()

    async def _turn(self) -> None:
        worked = False
        if self._jobs:
            await self._run_jobs()
            worked = True
        if self._tick_at is not None and self._tick_at <= self.clock.monotonic_s():
            self._tick_at = None
            unit = Unit(self._scope)
            await self.processor.tick(unit)
            await self._commit(unit)
            worked = True
        if self._slices and not self._draining and self.stopped_reason is None:
            await self._until_member()
            await self._run_slice(self._slices[0])
            self._slices.popleft()
            self._host.room()
            worked = True
        if not worked:
            await self._rest()

    async def _rest(self) -> None:
        self._wake.clear()
        if self._draining and not self._jobs and not self.processor.busy():
            self._drained.set()
        timeout_s = None if self._tick_at is None else max(0.0, self._tick_at - self.clock.monotonic_s())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()

    async def _run_jobs(self) -> None:
        unit = Unit(self._scope)
        succeeded: list[tuple[asyncio.Future[Any], Any]] = []
        while self._jobs and len(succeeded) < JOBS_A_UNIT:
            job, future = self._jobs.popleft()
            child = unit.child()
            try:
                result = job(child)
            except Exception as error:  # noqa: BLE001  # it is the caller's, who awaits the job
                if not future.done():
                    future.set_exception(error)
                continue
            unit.absorb(child)
            succeeded.append((future, result))
        try:
            await self._commit(unit)
        except BaseException:
            for future, _ in succeeded:
                if not future.done():
                    future.set_exception(Revoked(f"{self.agent}: number {self.number} is closed"))
            raise
        self._host.room()
        for future, result in succeeded:
            if not future.done():
                future.set_result(result)

    async def _run_slice(self, slice_: Slice) -> None:
        unit = Unit(self._scope, slice_)
        try:
            unit = await self._attempt(slice_, whole=True)
        except Revoked:
            raise
        except Exception as error:  # noqa: BLE001  # whatever an agent throws must not lose or stop anything
            log.warning("%s/%s: a slice failed, running it record by record: %r", self.agent, self.number, error)
            await self._one_by_one(slice_)
        else:
            await self._commit(unit)

    async def _one_by_one(self, slice_: Slice) -> None:
        for record in slice_.records:
            tp = (record.topic, record.partition)
            single = Slice(slice_.number, [record], slice_.epoch, {tp: slice_.parts[tp]})
            try:
                unit = await self._attempt(single, whole=False)
            except Revoked:
                raise
            except Exception as error:
                log.exception("%s: %s/%d/%d is quarantined", self.agent, *tp, record.offset)
                unit = Unit(self._scope, single, whole=False)
                unit.quarantine(record, "handler_error", _where(error))
            await self._commit(unit)
            if self.stopped_reason is not None:
                raise Revoked(self.stopped_reason)

    async def _attempt(self, slice_: Slice, *, whole: bool) -> Unit:
        """Run the handler until it does not ask for another run."""
        delay_s = RETRY_MIN_S
        while True:
            unit = Unit(self._scope, slice_, whole=whole)
            try:
                await self.processor.process(slice_, unit)
            except Retriable as again:
                log.info("%s/%s: again in %.1f s: %s", self.agent, self.number, max(delay_s, again.after_s), again)
                await self._pause(max(delay_s, again.after_s))
                delay_s = min(delay_s * 2, RETRY_MAX_S)
            else:
                faults.point("unit:processed")
                return unit

    async def _commit(self, unit: Unit) -> None:
        """Flush, with back-off for as long as the number is ours; then done."""
        delay_s = RETRY_MIN_S
        while True:
            await self._until_member()
            try:
                await unit.flush()
                break
            except OutputFailed as error:
                log.warning("%s/%s: outputs again in %.1f s: %s", self.agent, self.number, delay_s, error)
                await self._pause(delay_s)
                delay_s = min(delay_s * 2, FLUSH_RETRY_MAX_S)
        faults.point("unit:flushed")
        unit.done()
        faults.point("unit:done")
        self._judge(unit)

    def _judge(self, unit: Unit) -> None:
        if not unit.quarantined:
            if unit.progressed:
                self._poison.clear()
            return
        for reason in unit.quarantined:
            self._poison[reason] += 1
            limit = POISON_LIMITS.get(reason)
            if limit is not None and self._poison[reason] > limit and self.stopped_reason is None:
                self.stopped_reason = f"{self.agent}: more than {limit} records in a row quarantined as {reason}"
                log.critical(
                    "%s; number %s of it stands until the worker is restarted", self.stopped_reason, self.number
                )

    async def _until_member(self) -> None:
        while not self._host.may_act():
            if not self._scope.valid:
                raise Revoked(f"{self.agent}: number {self.number} is closed")
            await asyncio.sleep(LEASE_POLL_S)

    async def _pause(self, delay_s: float) -> None:
        deadline = self.clock.monotonic_s() + delay_s
        while (left := deadline - self.clock.monotonic_s()) > 0:
            if self._draining or not self._scope.valid:
                raise Revoked(f"{self.agent}: number {self.number} is closing")
            await asyncio.sleep(min(left, 0.2))


def _where(error: Exception) -> str:
    """Class and place of an exception; its text may hold values of fields."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
