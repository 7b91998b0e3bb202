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
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import msgspec
from aiokafka import errors as kafka_errors

from app.engine import faults
from app.engine.agent import Agent, Clock
from app.engine.changelog import Changelog
from app.engine.checkpoint import AgentState, Checkpointer
from app.engine.errors import EngineError, NotMember, PositionRefused, Revoked, StartRefused
from app.engine.positions import META_KEY, POSITIONS_KEY, Bounds, Meta, decode_positions, start_of
from app.engine.restore import LogReader, Replica, apply_records
from app.engine.runner import Runner
from app.engine.staging import Staging
from app.engine.store import Store
from app.engine.table import ROW_VERSION
from app.engine.tracker import Tracker
from app.engine.unit import Scope
from app.observability import metrics

if TYPE_CHECKING:
    from typing import Any

    from app.engine.outputs import Outputs
    from app.engine.records import Record

__all__ = ["Number", "Services", "State"]

log = logging.getLogger("app.engine.number")

TP = tuple[str, int]

REOPEN_MIN_S = 0.2
REOPEN_MAX_S = 5.0
OPEN_DEADLINE_S = 30.0
CHECKPOINT_BYTES = 1 << 20
# Revoke: the whole group stands while we are here; 3 + 5 s is below the rebalance timeout.
CHECKPOINT_ON_CLOSE_S = 5.0
_EXPECTED = (EngineError, kafka_errors.KafkaError, TimeoutError, OSError, faults.FaultInjected)


class State(StrEnum):
    """What a number is doing."""

    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    REFUSED = "refused"


class Services(Protocol):
    """What numbers share; the engine gives it."""

    clock: Clock
    numbers_count: int
    agents: tuple[Agent, ...]
    outputs: Outputs
    reader: LogReader
    replicas: list[Replica[Any]]
    quarantine_topic: str
    checkpoint_interval_s: float

    def changelog_topic(self, table: str) -> str:
        """The changelog of a table."""

    def new_changelog(self, number: int) -> Changelog:
        """A writer for one number."""

    def store(self, agent: Agent, number: int) -> Store:
        """The open store of an agent's number."""

    def partitions_of(self, number: int, agent: Agent) -> list[TP]:
        """The assigned source partitions."""

    async def confirm(self) -> bool:
        """Does the group still know our generation, asked now?"""

    def lease_valid(self) -> bool:
        """Was a heartbeat answered within the session timeout?"""

    async def bounds(self, partitions: Sequence[TP]) -> dict[TP, Bounds]:
        """What the broker says of source partitions."""

    async def commit_offsets(self, offsets: Mapping[TP, int]) -> None:
        """Copy positions to the group."""

    async def gap(self, topic: str, partition: int, first: int, next_: int) -> None:
        """Retention took `[first, next_)` before it was read."""

    def room(self) -> None:
        """Look again at what may be fetched."""

    def die(self, why: str, code: int) -> None:
        """End the process."""


class Number:
    """One number, for one assignment."""

    def __init__(self, services: Services, number: int) -> None:
        self.number = number
        self.clock = services.clock
        self.state = State.OPENING
        self.reason = ""
        self.epoch = object()
        self.trackers: dict[TP, Tracker] = {}
        self.runners: dict[str, Runner] = {}
        self._services = services
        self._changelog = services.new_changelog(number)
        self._scopes: list[Scope] = []
        self._closing = False
        self._dirty = asyncio.Event()
        self._urgent = asyncio.Event()
        self._waiters: list[asyncio.Future[None]] = []
        self._checkpointer = self._new_checkpointer()
        self._task = asyncio.create_task(self._run(), name=f"number-{number}")

    def _new_checkpointer(self) -> Checkpointer:
        services = self._services
        return Checkpointer(
            self.number,
            services.numbers_count,
            self._changelog,
            services.changelog_topic,
            services.commit_offsets,
            lambda: self.state in (State.OPEN, State.CLOSING),
        )

    # -- Host of the runners

    def may_act(self) -> bool:
        """See `runner.Host.may_act`."""
        return self._services.lease_valid()

    async def checkpoint_now(self) -> None:
        """See `runner.Host.checkpoint_now`."""
        if self.state not in (State.OPEN, State.OPENING):
            raise Revoked(f"number {self.number} is closing")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._urgent.set()
        await waiter

    def room(self) -> None:
        """See `runner.Host.room`."""
        self._services.room()

    def runner_died(self, agent: str) -> None:
        """See `runner.Host.runner_died`."""
        self._services.die(f"the runner {agent}/{self.number} ended without being closed", 70)

    def _touched(self) -> None:
        self._dirty.set()
        if any(scope.staging.overlay_bytes >= CHECKPOINT_BYTES for scope in self._scopes):
            self._urgent.set()

    # -- life

    async def _run(self) -> None:
        delay_s = REOPEN_MIN_S
        while not self._closing:
            try:
                async with asyncio.timeout(OPEN_DEADLINE_S) as deadline:
                    await self._open(deadline)
                delay_s = REOPEN_MIN_S
                await self._work()
            except PositionRefused as refused:
                self.state, self.reason = State.REFUSED, str(refused)
                log.error("number %s is not opened: %s", self.number, refused)  # noqa: TRY400  # no stack: it is for an operator
                await self._drop()
                return
            except StartRefused as refused:
                self._services.die(str(refused), 1)
                return
            except _EXPECTED as error:
                self.reason = repr(error)
                level = logging.INFO if isinstance(error, NotMember) else logging.WARNING
                log.log(level, "number %s: opened again in %.1f s: %r", self.number, delay_s, error)
            except Exception:
                log.exception("number %s died", self.number)
                self._services.die(f"number {self.number} died", 70)
                return
            self.state = State.OPENING
            await self._drop()
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, REOPEN_MAX_S)

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
        await self._restore()
        for replica in services.replicas:
            ends = {tp: end for tp, (_, end) in (await services.reader.bounds(replica.partitions)).items()}
            while not await replica.caught_up(ends, REOPEN_MAX_S):
                log.info("number %s waits for the replica of %s", self.number, replica.table.name)
        faults.point("restore:done")
        await self._start()

    async def _restore(self) -> None:
        services = self._services
        start: dict[TP, int] = {}
        targets: dict[TP, list[tuple[Agent, int]]] = {}
        for agent in services.agents:
            for at, table in enumerate(agent.tables):
                targets.setdefault((services.changelog_topic(table.name), self.number), []).append((agent, at))
        ends = {tp: end for tp, (_, end) in (await services.reader.bounds(list(targets))).items()}
        for agent in services.agents:
            store = services.store(agent, self.number)
            logs = [services.changelog_topic(table.name) for table in agent.tables]
            if any(store.applied(topic) > ends[topic, self.number] for topic in logs):
                log.error("number %s of %s is beyond its changelog; restoring from the log", self.number, agent.name)
                store.wipe()
        for (topic, partition), users in targets.items():
            start[topic, partition] = min(services.store(agent, partition).applied(topic) for agent, _ in users)

        remaining = sum(ends[tp] - at for tp, at in start.items())

        async def sink(tp: TP, records: Sequence[Record], position: int) -> None:
            nonlocal remaining
            for agent, at in targets[tp]:
                store = services.store(agent, self.number)
                await apply_records(store, agent.name, agent.tables[at], tp[0], records, position)
                metrics.RESTORED_ROWS.labels(table=agent.tables[at].name).inc(len(records))
            remaining -= len(records)
            metrics.RESTORE_REMAINING_ROWS.dec(len(records))

        metrics.RESTORE_REMAINING_ROWS.inc(remaining)
        try:
            await services.reader.read(start, ends, sink)
        finally:
            # Control records and compacted rows were counted and never came.
            metrics.RESTORE_REMAINING_ROWS.dec(remaining)

    async def _start(self) -> None:
        """Positions, trackers, runners; then the number may be fetched."""
        services = self._services
        stagings = {agent.name: Staging(services.store(agent, self.number)) for agent in services.agents}
        partitions = {agent.name: services.partitions_of(self.number, agent) for agent in services.agents}
        bounds = await services.bounds([tp for tps in partitions.values() for tp in tps])
        states = [
            await self._state_of(agent, stagings[agent.name], partitions[agent.name], bounds)
            for agent in services.agents
        ]
        self._checkpointer = self._new_checkpointer()
        self._checkpointer.states = states
        self.epoch = object()
        self.state = State.OPEN
        for state in states:
            scope = Scope(state.agent.name, state.staging, services.outputs, services.quarantine_topic, self._touched)
            self._scopes.append(scope)
            self.runners[state.agent.name] = Runner(state.agent, self, scope, state.trackers)
        self.trackers = {tp: tracker for state in states for tp, tracker in state.trackers.items()}
        self.reason = ""
        self._dirty.set()
        services.room()
        log.info("number %s is open", self.number)

    async def _state_of(
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
                await self._services.gap(*tp, row.offset, start.offset)
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
            await self._checkpoint()
            if self._waiters:
                self._dirty.set()
                self._urgent.set()

    async def _checkpoint(self) -> None:
        waiters, self._waiters = self._waiters, []
        try:
            await self._checkpointer.run()
        except BaseException as error:
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(Revoked(f"number {self.number}: {error!r}"))
            raise
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def close(self, drain_s: float, *, lost: bool) -> None:
        """End this assignment of the number.

        Args:
            drain_s: How long running work may take to end; what is left has an unknown outcome, and is counted.
            lost: The session is over, somebody else may own it: no drain, no checkpoint.
        """
        self._closing = True
        if self.state is State.OPEN and not lost:
            await self._drain(drain_s)
        self.state = State.CLOSING if self.state is State.OPEN and not lost else State.OPENING
        if self.state is State.CLOSING:
            try:
                async with asyncio.timeout(CHECKPOINT_ON_CLOSE_S):
                    await self._checkpoint()
            except (*_EXPECTED,) as error:
                log.warning("number %s: no checkpoint at close: %r", self.number, error)
            faults.point("revoke:checkpointed")
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._drop()

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
        """Forget everything that is not in the log."""
        for scope in self._scopes:
            scope.valid = False
        runners, self.runners = self.runners, {}
        self._scopes = []
        self.trackers = {}
        self.epoch = object()
        for runner in runners.values():
            await runner.close()
        await self._changelog.drop()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(Revoked(f"number {self.number} was dropped"))
        self._waiters = []
