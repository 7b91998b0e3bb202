"""A number: opened, fenced, restored, worked, checkpointed and closed as one thing, over all agents.

```
opening ──► open ──► closing ──► gone
   ▲          │ checkpoint failed: drop everything, read the log again
   └──────────┘
refused: a position that only an operator may decide; the other numbers go on
```
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from aiokafka import errors as kafka_errors

from app.brokers import REFUSALS
from app.engine import faults
from app.engine.agent import Agent
from app.engine.cancellation import cancelled
from app.engine.checkpoint import PATIENCE_S, AgentState, Checkpointer
from app.engine.errors import (
    CheckpointFailed,
    EngineError,
    NotMember,
    PositionLost,
    PositionRefused,
    ProducerTaken,
    Revoked,
    StartRefused,
    StoreError,
    StoreFailed,
)
from app.engine.late_outputs import LateOutputs
from app.engine.number_restore import restore_number
from app.engine.positions import META_KEY, POSITIONS_KEY, Bounds, Meta, decode_positions, start_of
from app.engine.runner import Runner
from app.engine.services import Services, State
from app.engine.staging import Staging
from app.engine.table import ROW_VERSION, Table
from app.engine.tracker import Tracker
from app.engine.unit import Scope

__all__ = ["Number", "State"]

log = logging.getLogger("app.engine.number")

TP = tuple[str, int]

REOPEN_MIN_S = 0.2
REOPEN_MAX_S = 5.0
REFUSED_RETRY_S = 30.0
OPEN_DEADLINE_S = 30.0
CHECKPOINT_BYTES = 1 << 20
# Revoke: the whole group stands while we are here; 3 + 5 s is below the rebalance timeout.
CHECKPOINT_ON_CLOSE_S = 5.0
LATE_ON_CLOSE_S = 3.0
_EXPECTED = (EngineError, kafka_errors.KafkaError, TimeoutError, OSError, faults.FaultInjected)


class Number:
    """One number, for one assignment."""

    def __init__(self, services: Services, number: int) -> None:
        self.number = number
        self.clock = services.clock
        self.state = State.OPENING
        self.reason = ""
        self._reopen_for: EngineError | None = None
        self.epoch = object()
        self.trackers: dict[TP, Tracker] = {}
        self.runners: dict[str, Runner] = {}
        self._services = services
        self._changelog = services.new_changelog(number)
        self._scopes: list[Scope] = []
        self._closing = False
        # Only an opening that logged something was worth its while: one that fails at its first checkpoint, again and
        # again, must not repeat its outputs every 0.2 s.
        self._proven = False
        self._dirty = asyncio.Event()
        self._urgent = asyncio.Event()
        self._waiters: list[tuple[str, asyncio.Future[None]]] = []
        self._gaps: list[tuple[str, int, int, int]] = []
        self._dropping: asyncio.Task[None] | None = None
        self._late = LateOutputs(number, services.outputs, services.clock, self._still_ours, services.lease_valid)
        self._checkpointer = self._new_checkpointer()
        self._task = asyncio.create_task(self._run(), name=f"number-{number}")
        self._task.add_done_callback(self._ended)

    def _new_checkpointer(self) -> Checkpointer:
        services = self._services
        return Checkpointer(
            self.number,
            services.numbers_count,
            self._changelog,
            services.changelog_topic,
            services.commit_offsets,
            self._still_ours,
            self._late,
            self._dirty.set,
        )

    def _still_ours(self) -> bool:
        return self.state in (State.OPEN, State.CLOSING)

    def problems(self) -> list[str]:
        """Why it does not go on, for readiness; empty when it does."""
        found = [self._late.problem(), *(runner.problem() for runner in self.runners.values())]
        return [problem for problem in found if problem is not None]

    # -- Host of the runners

    def may_act(self) -> bool:
        """See `services.Host.may_act`."""
        return self._services.lease_valid()

    def fresh(self, tables: Sequence[Table[Any]]) -> bool:
        """See `services.Host.fresh`."""
        return self._services.fresh(tables)

    def late_outputs_stand(self) -> bool:
        """See `services.Host.late_outputs_stand`."""
        return self._late.stand

    async def checkpoint_now(self, agent: str) -> None:
        """See `services.Host.checkpoint_now`."""
        if self.state is not State.OPEN:
            raise Revoked(f"number {self.number} is not open")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((agent, waiter))
        self._dirty.set()
        self._urgent.set()
        await waiter

    def pass_by(self, tp: TP, offset: int) -> None:
        """Up to that offset there is no record of a partition that was not delivered."""
        if self.trackers[tp].pass_by(offset):
            self._dirty.set()

    def reopen(self, why: str) -> None:
        """Drop everything that is not in the log, and open again: what was fetched cannot be trusted."""
        self._reopen(PositionLost(why))

    def store_failed(self, error: StoreError) -> None:
        """See `services.Host.store_failed`."""
        self._reopen(error)

    def _reopen(self, why: EngineError) -> None:
        if self.state is State.OPEN and self._reopen_for is None:
            self._reopen_for = why
            self._dirty.set()
            self._urgent.set()

    def room(self) -> None:
        """See `services.Host.room`."""
        self._services.room()

    def runner_died(self, agent: str) -> None:
        """See `services.Host.runner_died`."""
        self._services.die(f"the runner {agent}/{self.number} ended without being closed", 70)

    def _touched(self) -> None:
        self._dirty.set()
        if any(scope.staging.overlay_bytes >= CHECKPOINT_BYTES for scope in self._scopes):
            self._urgent.set()

    # -- life

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._closing:
            return
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.critical("number %s died", self.number, exc_info=error)
        self._services.die(f"number {self.number} ended without being closed: {error!r}", 70)

    async def _run(self) -> None:
        delay_s = REOPEN_MIN_S
        while not self._closing:
            try:
                async with asyncio.timeout(OPEN_DEADLINE_S) as deadline:
                    await self._open(deadline)
                await self._work()
            except PositionRefused as refused:
                self.state, self.reason = State.REFUSED, str(refused)
                log.error("number %s is not opened: %s", self.number, refused)  # noqa: TRY400  # no stack: it is for an operator
                # A truncated log may grow again, and an operator may have decided.
                delay_s = REFUSED_RETRY_S
            except StartRefused as refused:
                self._services.die(str(refused), 1)
                return
            except StoreFailed as failed:
                # Other workers have room; a supervisor that starts us again shows the line until somebody reads it.
                self._services.die(str(failed), 70)
                return
            except _EXPECTED as error:
                line = REFUSALS.met(error, "Write" if isinstance(error, CheckpointFailed) else None)
                self.state, self.reason = State.OPENING, line or repr(error)
                level = logging.INFO if isinstance(error, NotMember) else logging.WARNING
                if isinstance(error, ProducerTaken):
                    # The next opening takes the id plainly, so there is nothing to wait for.
                    delay_s = REOPEN_MIN_S
                log.log(
                    logging.DEBUG if line else level,
                    "number %s: opened again in %.1f s: %r",
                    self.number,
                    delay_s,
                    error,
                )
            if self._proven:
                # Once: the openings that fail after it had their own reasons.
                delay_s, self._proven = REOPEN_MIN_S, False
            await self._drop()
            await asyncio.sleep(delay_s)
            delay_s = REOPEN_MIN_S if self.state is State.REFUSED else min(delay_s * 2, REOPEN_MAX_S)

    async def _open(self, deadline: asyncio.Timeout) -> None:
        services = self._services
        if not await services.confirm():
            raise NotMember("the group did not confirm us")
        faults.point("open:confirmed")
        await self._changelog.open(services.confirm)
        faults.point("restore:fenced")
        if not await services.confirm():
            raise NotMember("the group did not confirm us after the producer was opened")
        # However long a restore takes, it is not a hang: records keep coming.
        deadline.reschedule(None)
        await restore_number(services, self.number)
        for replica in services.replicas:
            ends = {tp: end for tp, (_, end) in (await services.reader.bounds(replica.partitions)).items()}
            while not await replica.caught_up(ends, REOPEN_MAX_S):
                log.info("number %s waits for the replica of %s", self.number, replica.table.name)
        faults.point("restore:done")
        await self._start()

    async def _start(self) -> None:
        """Positions, trackers, runners; then the number may be fetched."""
        services = self._services
        stagings = {agent.name: Staging(services.store(agent, self.number)) for agent in services.agents}
        partitions = {agent.name: services.partitions_of(self.number, agent) for agent in services.agents}
        bounds = await services.bounds([tp for tps in partitions.values() for tp in tps])
        if not await services.confirm():
            # An heir has moved the group's offsets on, beside our old rows; nothing was lost.
            raise NotMember("the group did not confirm us after the restore")
        self._gaps = []
        states = [
            self._state_of(agent, stagings[agent.name], partitions[agent.name], bounds) for agent in services.agents
        ]
        for gap in self._gaps:
            await services.gap(*gap)
        if self._closing:
            # Its cancellation was swallowed on the way.
            raise Revoked(f"number {self.number} is closing")
        self._reopen_for = None
        self._checkpointer = self._new_checkpointer()
        self._checkpointer.states = states
        self.epoch = object()
        self.state = State.OPEN
        for state in states:
            scope = Scope(state.agent.name, state.staging, services.outputs, services.quarantine_topic, self._touched)
            self._scopes.append(scope)
            runner = Runner(state.agent, self, scope, state.trackers)
            # The same program would quarantine as many again after each reopening and rebalance.
            runner.stopped_reason = services.stopped.get((state.agent.name, self.number))
            self.runners[state.agent.name] = runner
        self.trackers = {tp: tracker for state in states for tp, tracker in state.trackers.items()}
        self.reason = ""
        self._dirty.set()
        services.room()
        log.debug("number %s is open", self.number)

    def _state_of(
        self, agent: Agent, staging: Staging, partitions: Sequence[TP], bounds: Mapping[TP, Bounds]
    ) -> AgentState:
        name = agent.name.encode()
        meta_row = staging.store.get(META_KEY + name)
        if meta_row is not None:
            meta = msgspec.msgpack.decode(meta_row, type=Meta)
            if meta.numbers != self._services.numbers_count or meta.row_version != ROW_VERSION:
                raise StartRefused(
                    f"the data of {agent.name} was laid out for PARTITIONS={meta.numbers} (rows version"
                    f" {meta.row_version}), not {self._services.numbers_count} ({ROW_VERSION});"
                    " set it back, or use another APP_ID"
                )
        logged = decode_positions(staging.store.get(POSITIONS_KEY + name))
        trackers: dict[TP, Tracker] = {}
        for tp in partitions:
            row = logged.get(tp)
            start = start_of(*tp, row, bounds[tp])
            if start.gap and row is not None:
                self._gaps.append((*tp, row.offset, start.offset))
            trackers[tp] = Tracker(start.offset)
        topic_ids = {tp[0]: bounds[tp].topic_id for tp in partitions}
        return AgentState(agent, staging, trackers, topic_ids, logged, meta_row is not None)

    async def _work(self) -> None:
        while True:
            await self._dirty.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._services.checkpoint_interval_s):
                    await self._urgent.wait()
            self._dirty.clear()
            self._urgent.clear()
            if self._reopen_for is not None:
                raise self._reopen_for
            await self._checkpoint()

    async def _checkpoint(self, patience_s: float = PATIENCE_S) -> None:
        waiters, self._waiters = self._waiters, []
        # What it has merged since it was frozen is not in the checkpoint that logs it at last.
        left_out = self._checkpointer.unsent
        try:
            self._proven |= await self._checkpointer.run(patience_s)
        except BaseException as error:
            _refuse(waiters, Revoked(f"number {self.number}: {error!r}"))
            raise
        left_out |= self._checkpointer.unsent
        for agent, waiter in waiters:
            if agent in left_out:
                self._waiters.append((agent, waiter))
                self._dirty.set()
            elif not waiter.done():
                waiter.set_result(None)

    async def close(self, drain_s: float, *, lost: bool) -> None:
        """End this assignment of the number.

        Args:
            drain_s: How long running work may take to end; what is left has an unknown outcome, and is counted.
            lost: The session is over, somebody else may own it: no drain, no checkpoint.
        """
        self._closing = True
        try:
            if self.state is State.OPEN and not lost:
                await self._drain(drain_s)
            if self.state is State.OPEN and not lost:
                self.state = State.CLOSING
                async with asyncio.timeout(CHECKPOINT_ON_CLOSE_S):
                    await self._checkpoint(LATE_ON_CLOSE_S)
                faults.point("revoke:checkpointed")
        except _EXPECTED as error:
            log.warning("number %s: no checkpoint at close: %r", self.number, error)
        finally:
            self.state = State.OPENING
            await cancelled(self._task)
            await self._drop()
            faults.point("revoke:dropped")

    def skip_drain(self) -> None:
        """Do not wait for work under way any longer."""
        for runner in self.runners.values():
            runner.skip_drain()

    @property
    def ready(self) -> bool:
        """Open, and every processor has read its tables."""
        return self.state is State.OPEN and all(runner.opened.is_set() for runner in self.runners.values())

    async def _drain(self, drain_s: float) -> None:
        faults.point("revoke:draining")
        drained = await asyncio.gather(*(runner.drain(drain_s) for runner in self.runners.values()))
        if not all(drained):
            log.warning("number %s: work under way was abandoned, its outcome is unknown", self.number)
        faults.point("revoke:drained")

    async def _drop(self) -> None:
        """Forget everything that is not in the log; whoever is cancelled while waiting, it goes on to its end."""
        if self._dropping is None or self._dropping.done():
            self._dropping = asyncio.create_task(self._drop_now())
        await asyncio.shield(self._dropping)

    async def _drop_now(self) -> None:
        for scope in self._scopes:
            scope.valid = False
        runners, self.runners = self.runners, {}
        self._scopes = []
        self.trackers = {}
        self.epoch = object()
        for name, runner in runners.items():
            if runner.stopped_by_poison and runner.stopped_reason is not None:
                self._services.stopped[name, self.number] = runner.stopped_reason
        closed = await asyncio.gather(*(runner.close() for runner in runners.values()), return_exceptions=True)
        for error in closed:
            if isinstance(error, BaseException):
                log.error("number %s: a runner did not close cleanly", self.number, exc_info=error)
        await self._checkpointer.close()
        await self._changelog.drop()
        _refuse(self._waiters, Revoked(f"number {self.number} was dropped"))
        self._waiters = []


def _refuse(waiters: Iterable[tuple[str, asyncio.Future[None]]], error: Revoked) -> None:
    for _, waiter in waiters:
        if not waiter.done():
            waiter.set_exception(error)
