"""The checkpoint of a number, in six steps.

1. Leave out what is not ours any more.
2. Freeze rows and positions together, without an await.
3. What their units sent late is acknowledged. An agent of which it is not stays frozen until it is; the others go on.
4. Changelog: one transaction over all its tables, rows, then positions.
5. One RocksDB write batch a store: rows, derived index, applied offsets.
6. Hand the positions to the copy that the group keeps for tools.

Any failure of step 4 has an unknown outcome: nothing is retried here; the number is dropped and read from the log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from app.engine import faults
from app.engine.agent import Agent
from app.engine.cancellation import cancelled
from app.engine.changelog import Changelog, Write
from app.engine.errors import Revoked
from app.engine.late_outputs import LateOutputs
from app.engine.positions import META_KEY, POSITIONS_KEY, Meta, Position, encode_positions
from app.engine.staging import Changes, Staging
from app.engine.table import ROW_VERSION
from app.engine.tracker import Tracker
from app.observability import metrics, storage

__all__ = ["AgentState", "Checkpointer", "stretched_interval_s"]

log = logging.getLogger("app.engine.checkpoint")

TP = tuple[str, int]
# Group offsets are a copy, so a coordinator that is away must not hold the next checkpoint for long.
OFFSETS_DEADLINE_S = 5.0
PATIENCE_S = 1.0


# A transaction costs about 1 ms of processor time: 12 numbers at 0.2 s are 6 % of a core, 48 would be a quarter.
CHECKPOINTS_PER_S = 40
LONGEST_STRETCH_S = 1.0


def stretched_interval_s(configured_s: float, numbers: int) -> float:
    """The pause between two checkpoints of a number, on a worker that has so many of them.

    Longer than what is configured, up to a second, where the worker would make more than 40 checkpoints a second.
    """
    return max(configured_s, min(LONGEST_STRETCH_S, numbers / CHECKPOINTS_PER_S))


@dataclass(slots=True, eq=False)
class AgentState:
    """One agent of an open number: its rows, and where it stands."""

    agent: Agent
    staging: Staging
    trackers: dict[TP, Tracker]
    topic_ids: Mapping[str, str]
    logged: dict[TP, Position]
    meta_logged: bool = False

    def positions(self) -> dict[TP, Position]:
        """All positions: of partitions read now, and of those remembered from before."""
        now = {tp: Position(self.topic_ids.get(tp[0], ""), t.position) for tp, t in self.trackers.items()}
        return {**self.logged, **now}

    def dirty(self) -> bool:
        """Whether a checkpoint would log anything."""
        moved = any(tp not in self.logged or self.logged[tp].offset != t.position for tp, t in self.trackers.items())
        return bool(self.staging.overlay or self.staging.late) or moved


@dataclass(slots=True, eq=False)
class _Frozen:
    state: AgentState
    rows: Changes
    positions: dict[TP, Position]
    engine_rows: Changes = field(default_factory=dict)
    sending: asyncio.Task[None] | None = None


class Checkpointer:
    """Runs the six steps, one at a time a number.

    Args:
        changelog_topic: `{app id}-{table}-changelog` of a table name.
        commit_offsets: Step 6; its failure is logged and changes nothing.
        still_ours: Step 1.
        late: Step 3.
        wake: Called when there may be something to log that had to be left out.
    """

    def __init__(
        self,
        number: int,
        numbers: int,
        changelog: Changelog,
        changelog_topic: Callable[[str], str],
        commit_offsets: Callable[[Mapping[TP, int]], Awaitable[None]],
        still_ours: Callable[[], bool],
        late: LateOutputs,
        wake: Callable[[], None],
    ) -> None:
        self._number = number
        self._numbers = numbers
        self._changelog = changelog
        self._topic = changelog_topic
        self._commit_offsets = commit_offsets
        self._still_ours = still_ours
        self._late = late
        self._wake = wake
        self._unsent: list[_Frozen] = []
        self._lock = asyncio.Lock()
        self._broken = False
        self.states: list[AgentState] = []

    def dirty(self) -> bool:
        """Whether there is anything to log."""
        return any(state.dirty() for state in self.states)

    @property
    def unsent(self) -> set[str]:
        """Agents of which nothing is logged, as what they sent late is not acknowledged yet."""
        return {part.state.agent.name for part in self._unsent}

    async def close(self) -> None:
        """Send nothing any more."""
        await cancelled(*(part.sending for part in self._unsent if part.sending is not None))

    async def run(self, patience_s: float = PATIENCE_S) -> bool:
        """One checkpoint.

        Args:
            patience_s: How long the others wait for an agent of which something is not acknowledged.

        Returns:
            False when there was nothing to do.

        Raises:
            Revoked: Not ours any more.
            CheckpointFailed: Outcome unknown.
        """
        async with self._lock:
            if self._broken or not self._still_ours():
                raise Revoked(f"number {self._number} was taken away, or its last checkpoint has no known outcome")
            unsent = self.unsent
            fresh = [state for state in self.states if state.agent.name not in unsent and state.dirty()]
            frozen = self._unsent + [self._freeze(state) for state in fresh]
            if not frozen:
                return False
            began_s = time.perf_counter()
            try:
                faults.point("checkpoint:frozen")
                frozen = await self._sent(frozen, patience_s)
                if not frozen:
                    return False
                with metrics.CHECKPOINT_SECONDS.time():
                    offsets = await self._changelog.write(self._writes(frozen))
                faults.point("checkpoint:committed")
                self._store(frozen, offsets)
            except BaseException:
                # Frozen rows are neither surely logged nor on disk: nothing may be frozen over them.
                self._broken = True
                metrics.CHECKPOINTS.labels(outcome="failed").inc()
                storage.CHECKPOINTS.failed()
                raise
            metrics.CHECKPOINTS.labels(outcome="committed").inc()
            storage.CHECKPOINTS.add(time.perf_counter() - began_s)
            faults.point("checkpoint:stored")
            await self._copy_offsets(frozen)
            faults.point("checkpoint:offsets")
            return True

    async def _sent(self, frozen: list[_Frozen], patience_s: float) -> list[_Frozen]:
        """Those that have nothing unacknowledged; the others are kept."""
        self._unsent = frozen
        for part in frozen:
            if part.sending is None and part.state.staging.frozen_late:
                part.sending = asyncio.create_task(self._late.send(part.state.staging.frozen_late))
                part.sending.add_done_callback(lambda _: self._wake())
        sending = [part.sending for part in frozen if part.sending is not None]
        if sending:
            await asyncio.wait(sending, timeout=patience_s)
        self._unsent = [part for part in frozen if part.sending is not None and not part.sending.done()]
        sent = [part for part in frozen if part not in self._unsent]
        for part in sent:
            if part.sending is not None:
                part.sending.result()
        return sent

    def _freeze(self, state: AgentState) -> _Frozen:
        positions = state.positions()
        frozen = _Frozen(state, state.staging.freeze(), positions)
        name = state.agent.name.encode()
        if not state.meta_logged:
            frozen.engine_rows[META_KEY + name] = msgspec.msgpack.encode(Meta(self._numbers, ROW_VERSION))
        frozen.engine_rows[POSITIONS_KEY + name] = encode_positions(positions)
        return frozen

    def _writes(self, frozen: list[_Frozen]) -> list[Write]:
        writes: list[Write] = []
        homes: dict[str, list[tuple[bytes, bytes | None]]] = {}
        for part in frozen:
            agent = part.state.agent
            for table in agent.tables:
                items = [(key[1:], value) for key, value in part.rows.items() if key[0] == table.prefix]
                if table is agent.home:
                    homes.setdefault(self._topic(table.name), []).extend(items)
                elif items:
                    writes.append(Write(self._topic(table.name), self._number, items))
        for part in frozen:
            homes[self._topic(part.state.agent.home.name)] += part.engine_rows.items()
        return writes + [Write(topic, self._number, items) for topic, items in homes.items()]

    def _store(self, frozen: list[_Frozen], offsets: Mapping[str, int]) -> None:
        for part in frozen:
            state = part.state
            topics = {self._topic(table.name) for table in state.agent.tables}
            applied = {topic: offset for topic, offset in offsets.items() if topic in topics}
            state.staging.store.write(part.rows | part.engine_rows, applied, index=state.staging.frozen_index)
            state.staging.thaw()
            state.logged = part.positions
            state.meta_logged = True

    async def _copy_offsets(self, frozen: list[_Frozen]) -> None:
        offsets = {tp: p.offset for part in frozen for tp, p in part.positions.items() if tp in part.state.trackers}
        try:
            async with asyncio.timeout(OFFSETS_DEADLINE_S):
                await self._commit_offsets(offsets)
        except Exception as error:  # noqa: BLE001  # a copy for tools; the positions are in the changelog
            log.warning("number %s: group offsets were not copied: %r", self._number, error)
