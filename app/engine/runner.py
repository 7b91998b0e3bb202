"""Runs one number of one agent: slices, ticks and jobs, strictly one after another.

It retries what is retriable, runs a failed slice again record by record and quarantines the poison; but a long run of
poison stops it, because a bad deploy must not quarantine everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, TypeVar

from app.brokers import REFUSALS
from app.engine import faults
from app.engine.agent import Agent, Clock
from app.engine.cancellation import cancelled
from app.engine.errors import OutputFailed, OutputTooLarge, Retriable, Revoked, StoreError
from app.engine.jobs import JobQueue
from app.engine.late_outputs import LATE_LIMIT_BYTES
from app.engine.obstacle import Obstacle, of_the_surroundings
from app.engine.poison import PoisonWatch, place_of, reason_of, told
from app.engine.records import Slice, fit_first
from app.engine.services import Host
from app.engine.tracker import Tracker
from app.engine.unit import Scope, Unit
from app.observability import metrics

__all__ = ["Runner"]

log = logging.getLogger("app.engine.runner")

T = TypeVar("T")

RETRY_MIN_S = 0.05
RETRY_MAX_S = 30.0
FLUSH_RETRY_MAX_S = 5.0
LEASE_POLL_S = 0.05
TICK_FAILURES = 20


class _SliceLeft(Exception):
    """The number drains, so what waits to run again is left to the next owner."""


class Runner:
    """One coroutine, and the `Context` of its processor."""

    def __init__(self, agent: Agent, host: Host, scope: Scope, trackers: dict[tuple[str, int], Tracker]) -> None:
        self.spec = agent
        self.trackers = trackers
        self.stopped_reason: str | None = None
        self.stopped_by_poison = False
        self._host = host
        self._scope = scope
        self._slices: deque[Slice] = deque()
        self._jobs = JobQueue(scope, self._commit)
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._tick_at: float | None = None
        self._draining = False
        self._poison = PoisonWatch(agent.name)
        self._tick_failures = 0
        self._obstacle = Obstacle(host.clock)
        self._spawned: set[asyncio.Task[None]] = set()
        self._acting: set[asyncio.Task[Any] | None] = set()
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
        future: asyncio.Future[T] = self._jobs.add(job)
        self._wake.set()
        result = await future
        self._acting.discard(asyncio.current_task(self._loop))
        return result

    def tick_at(self, monotonic_s: float) -> None:
        """See `Context.tick_at`."""
        if self._tick_at is None or monotonic_s < self._tick_at:
            self._tick_at = monotonic_s
            self._wake.set()

    def tick_now(self) -> None:
        """See `Context.tick_now`."""
        self.tick_at(0.0)

    async def checkpoint(self) -> None:
        """See `Context.checkpoint`; one of a later opening says nothing about what this one merged."""
        if not self._scope.valid:
            raise Revoked(f"{self.agent}: number {self.number} is closed")
        await self._host.checkpoint_now(self.agent)

    def may_act(self) -> bool:
        """See `Context.may_act`."""
        return self._going_on and self._host.may_act()

    async def until_may_act(self) -> None:
        """See `Context.until_may_act`."""
        while not self.may_act():
            if not self._going_on:
                raise Revoked(f"{self.agent}: number {self.number} is closing, or was stopped")
            await asyncio.sleep(LEASE_POLL_S)
        if (task := asyncio.current_task(self._loop)) in self._spawned:
            self._acting.add(task)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """See `Context.spawn`."""
        context = copy_context()
        task = self._loop.create_task(work, context=context)
        self._spawned.add(task)
        task.add_done_callback(self._ended, context=context)  # so that what it logs has the trace that the work has
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._spawned.discard(task)
        self._acting.discard(task)
        self._wake.set()
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Revoked):
            # Whatever it was, it would be again after a restart, and end the other numbers of this worker each time.
            log.error("a task of %s/%s failed: %s", self.agent, self.number, told(error))
            self._stop(f"{self.agent}: work of number {self.number} failed: {place_of(error)}")

    @property
    def _going_on(self) -> bool:
        return self._scope.valid and not self._draining and self.stopped_reason is None

    def _stop(self, reason: str) -> None:
        if self.stopped_reason is None:
            self.stopped_reason = reason
            log.critical("%s; number %s of it stands until the worker is started again", reason, self.number)

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

    @property
    def jobs_waiting(self) -> int:
        """Jobs that wait for their turn."""
        return len(self._jobs)

    def oldest_unfinished_s(self) -> float:
        """Age of the oldest record that was handed over and is not done."""
        ages = [t.oldest_at for t in self.trackers.values() if t.oldest_at is not None]
        return self.clock.monotonic_s() - min(ages) if ages else 0.0

    def problem(self) -> str | None:
        """Why it does not go on, for readiness; None when it does."""
        return self.stopped_reason or self._obstacle.problem()

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
        """End at once; everything that is not merged is forgotten, and the next owner does it again."""
        metrics.OUTCOME_UNKNOWN.inc(len(self._acting))
        await cancelled(self.task, *self._spawned)
        self._jobs.fail(Revoked(f"{self.agent}: number {self.number} is closed"))
        await self.processor.closed()

    # -- the coroutine

    async def _main(self) -> None:
        try:
            await self._open()
            while True:
                await self._turn()
        except StoreError as error:
            self._host.store_failed(error)
        except _SliceLeft:
            log.warning("runner %s/%s: what a job or timer sends is not taken before the end", self.agent, self.number)
        except Revoked:
            if self._scope.valid and not self._draining and self.stopped_reason is None:
                log.exception("runner %s/%s ended though its number is ours", self.agent, self.number)
                self._host.runner_died(self.agent)
        except Exception:
            log.exception("runner %s/%s died", self.agent, self.number)
            self._host.runner_died(self.agent)
        finally:
            self._drained.set()

    async def _open(self) -> None:
        unit = Unit(self._scope)
        try:
            await self.processor.opened(unit)
        except Revoked:
            raise
        except Exception as error:  # noqa: BLE001  # whatever an agent throws
            if of_the_surroundings(error):
                self._host.reopen(f"{self.agent}/{self.number} cannot begin: {error!r}")
                self._drained.set()
                await asyncio.Event().wait()
            # One bad row must not end every worker that this number moves to, with all its other numbers.
            log.error("%s/%s cannot begin: %s", self.agent, self.number, told(error))  # noqa: TRY400  # see `told`
            self._stop(f"{self.agent}: number {self.number} cannot begin: {place_of(error)}")
            return
        await self._commit(unit)
        self.opened.set()

    async def _turn(self) -> None:
        worked = False
        await self._until_sent()
        if self._jobs:
            await self._jobs.run()
            self._host.room()
            worked = True
        if self._tick_at is not None and self._tick_at <= self.clock.monotonic_s() and self.stopped_reason is None:
            await self._run_tick()
            worked = True
        if self._slices and not self._draining and self.stopped_reason is None and not self._held_back():
            await self._until_member()
            with contextlib.suppress(_SliceLeft):
                await self._until_fresh()
                fit_first(self._slices, self.processor.takes(self.spec.slice_records))
                await self._run_slice(self._slices[0])
                self._slices.popleft()
            self._host.room()
            worked = True
        if not worked:
            await self._rest()

    def _held_back(self) -> bool:
        if wait_s := self.processor.holds_back_s():
            self.tick_at(self.clock.monotonic_s() + wait_s)
        return wait_s > 0

    async def _run_tick(self) -> None:
        self._tick_at, unit = None, Unit(self._scope)
        try:
            await self.processor.tick(unit)
            await self._commit(unit)
        except (Revoked, _SliceLeft):
            raise
        except Exception as error:  # noqa: BLE001  # whatever an agent throws
            self._tick_failures += 1
            delay_s = min(RETRY_MIN_S * 2**self._tick_failures, RETRY_MAX_S)
            log.error("%s/%s: again in %.1f s: %s", self.agent, self.number, delay_s, told(error))  # noqa: TRY400  # see `told`
            self.tick_at(self.clock.monotonic_s() + delay_s)
            if self._tick_failures > TICK_FAILURES and not of_the_surroundings(error):
                self._stop(f"{self.agent}: the timer of number {self.number} fails: {place_of(error)}")
            return
        self._tick_failures = 0

    async def _rest(self) -> None:
        self._wake.clear()
        if self._draining and not self._jobs and not self.processor.busy():
            self._drained.set()
        ticks = self._tick_at is not None and self.stopped_reason is None
        timeout_s = max(0.0, (self._tick_at or 0.0) - self.clock.monotonic_s()) if ticks else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()

    async def _run_slice(self, slice_: Slice) -> None:
        try:
            await self._commit(await self._attempt(slice_, whole=True))
        except (Revoked, _SliceLeft):
            raise
        except Exception as error:  # noqa: BLE001  # whatever an agent throws must not lose or stop anything
            place = place_of(error)
            log.warning("%s/%s: a slice failed, running it record by record: %s", self.agent, self.number, place)
            await self._one_by_one(slice_)

    async def _one_by_one(self, slice_: Slice) -> None:
        for record in slice_.records:
            tp = (record.topic, record.partition)
            single = Slice(slice_.number, [record], slice_.epoch, {tp: slice_.parts[tp]})
            try:
                await self._commit(await self._attempt(single, whole=False))
            except (Revoked, _SliceLeft):
                raise
            except Exception as error:  # noqa: BLE001  # whatever an agent throws
                log.error("%s: %s/%d/%d is quarantined: %s", self.agent, *tp, record.offset, told(error))  # noqa: TRY400  # see `told`
                unit = Unit(self._scope, single, whole=False)
                unit.quarantine(record, *reason_of(error))
                await self._commit(unit)
            if self.stopped_reason is not None:
                raise _SliceLeft

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
            except Exception as error:
                if not of_the_surroundings(error):
                    raise
                self._obstacle.met(f"{self.agent}: number {self.number} cannot work: {place_of(error)}")
                delay_s = min(delay_s, FLUSH_RETRY_MAX_S)
                level = logging.WARNING if REFUSALS.met(error, "Write") is None else logging.DEBUG
                log.log(level, "%s/%s: again in %.1f s: %r", self.agent, self.number, delay_s, error)
                await self._pause(delay_s)
            else:
                faults.point("unit:processed")
                return unit
            delay_s = min(delay_s * 2, RETRY_MAX_S)

    async def _commit(self, unit: Unit) -> None:
        """Flush, with back-off for as long as the number is ours; then done."""
        delay_s = RETRY_MIN_S
        while True:
            await self._until_member()
            try:
                await unit.flush()
                break
            except OutputTooLarge:
                raise
            except OutputFailed as error:
                self._obstacle.met(f"{self.agent}: Kafka takes no outputs of number {self.number}: {error}")
                level = logging.DEBUG if error.refused else logging.WARNING
                log.log(level, "%s/%s: outputs again in %.1f s: %s", self.agent, self.number, delay_s, error)
                await self._pause(delay_s)
                delay_s = min(delay_s * 2, FLUSH_RETRY_MAX_S)
        self._obstacle.gone()
        faults.point("unit:flushed")
        failed = unit.done()
        faults.point("unit:done")
        if failed is not None:
            self._stop(f"{self.agent}: what follows the work of number {self.number} failed: {place_of(failed)}")
        if (reason := self._poison.judge(unit)) is not None:
            self.stopped_by_poison = True
            self._stop(reason)

    async def _until_member(self) -> None:
        while not self._host.may_act():
            if not self._scope.valid:
                raise Revoked(f"{self.agent}: number {self.number} is closed")
            await asyncio.sleep(LEASE_POLL_S)

    async def _until_sent(self) -> None:
        while (late := self._scope.staging.late_bytes) and (late > LATE_LIMIT_BYTES or self._host.late_outputs_stand()):
            self._obstacle.met(f"{self.agent}: Kafka takes no outputs of number {self.number}")
            await self._pause(LEASE_POLL_S)

    async def _until_fresh(self) -> None:
        """What an agent reads of others must not be old: a webhook that was made since would not be matched."""
        while not self._host.fresh(self.spec.follows):
            self._obstacle.met(f"{self.agent}: what number {self.number} reads of other agents is not up to date")
            await self._pause(LEASE_POLL_S)

    async def _pause(self, delay_s: float) -> None:
        deadline = self.clock.monotonic_s() + delay_s
        while (left := deadline - self.clock.monotonic_s()) > 0:
            if not self._scope.valid:
                raise Revoked(f"{self.agent}: number {self.number} is closed")
            if self._draining:
                raise _SliceLeft
            await asyncio.sleep(min(left, 0.2))
