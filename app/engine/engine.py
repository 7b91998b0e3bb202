"""The engine of one process: which numbers it has, what they share, and how it begins and ends."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.brokers import Connection
from app.engine.agent import Agent, Clock
from app.engine.assignor import MAX_REJOINS, Assigned
from app.engine.cancellation import cancelled
from app.engine.changelog import Changelog, FencedChangelog, PlainChangelog
from app.engine.checkpoint import stretched_interval_s
from app.engine.errors import NotMember
from app.engine.fetch_pace import FetchPace
from app.engine.intake import Intake
from app.engine.membership import DataDir, Membership, leave_group
from app.engine.number import Number
from app.engine.offset_copies import OffsetCopies
from app.engine.outputs import Outputs
from app.engine.ownership import Ownership
from app.engine.positions import Bounds
from app.engine.readers import LogReaders
from app.engine.recovery import Recovery
from app.engine.restore import Replica
from app.engine.status import Status
from app.engine.store import Store, close_all
from app.engine.topic_ids import topic_ids
from app.observability import metrics

if TYPE_CHECKING:
    from app.engine.consumer import SliceConsumer
    from app.engine.table import Table

__all__ = ["Engine", "EngineConfig"]

log = logging.getLogger("app.engine")

TP = tuple[str, int]
GapListener = Callable[[str, int, int, int], Awaitable[None]]

DRAIN_ON_REVOKE_S = 3.0
DRAIN_ON_SHUTDOWN_S = 15.0
OFFSETS_DEADLINE_S = 5.0
TOPIC_IDS_S = 2.0
# A coordinator error that repeats for this long will not heal by waiting; the supervisor starts us again.
COORDINATOR_ERROR_LIMIT_S = 60.0
EXIT_STUCK = 70


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What the engine is told.

    Attributes:
        numbers: N.
        instance: The worker's name.
        url: How other workers reach it.
        store_stale_after_s: A local copy that was not up to date for longer is restored from nothing: less than the
            changelogs' `delete.retention.ms`, by more than a restore and a difference of clocks take.
    """

    app_id: str
    connection: Connection
    numbers: int
    data_dir: Path
    instance: str
    url: str
    quarantine_topic: str
    session_timeout_s: float = 10.0
    checkpoint_interval_s: float = 0.2
    store_stale_after_s: float = 6 * 86_400.0


class Engine:
    """Numbers, and everything they share. One a process.

    Raises:
        StartRefused: `DATA_DIR` is in use.
    """

    def __init__(self, config: EngineConfig, agents: Sequence[Agent]) -> None:
        self.config = config
        self.agents = tuple(agents)
        self.clock = Clock()
        self.numbers_count = config.numbers
        self.quarantine_topic = config.quarantine_topic
        self.session_s = config.session_timeout_s
        self.data_dir = DataDir(config.data_dir)
        self.instance, self.url = config.instance, config.url
        self.connection = config.connection
        self.pace = FetchPace()
        self.outputs = Outputs(config.connection, f"{config.app_id}-{self.instance}", self.pace.gather_s)
        self.readers = LogReaders(config.connection, f"{config.app_id}-{self.instance}")
        self.reader = self.readers.numbers
        self.fenced = True
        self.replicas: list[Replica[Any]] = []
        self.numbers: dict[int, Number] = {}
        self.stopped: dict[tuple[str, int], str] = {}
        self.ownership = Ownership(config.numbers, self._is_ready)
        self.status = Status(self)
        self.recovery = Recovery(self.clock.monotonic_s)
        self.intake = Intake(self)
        self._copies = OffsetCopies(self._copy_offsets)
        self.consumer: SliceConsumer | None = None
        self.draining = self.left = False
        self.assignment_seen = False
        self.problem = self.coordinator_problem = ""
        self._on_gap: GapListener | None = None
        self.agent_of = {topic: agent for agent in self.agents for topic in agent.topics}
        self._assigned: set[TP] = set()
        self._generation = -1
        self._former = self.data_dir.membership().member_id
        self._lease = 0.0
        self._error_since: float | None = None
        self._stores: dict[tuple[str, int], Store] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._topic_ids: dict[str, str] = {}
        self._ids_at = 0.0
        self._ids_lock = asyncio.Lock()
        self._closing = asyncio.Lock()
        self._leaving: list[Number] = []
        self._skip_drain = False

    @property
    def checkpoint_interval_s(self) -> float:
        """See `stretched_interval_s`."""
        return stretched_interval_s(self.config.checkpoint_interval_s, len(self.numbers))

    def reads(self, tp: TP) -> bool:
        """Whether a source partition is assigned to us."""
        return tp in self._assigned

    def fresh(self, tables: Sequence[Table[Any]]) -> bool:
        """See `services.Services.fresh`."""
        return all(replica.fresh for replica in self.replicas if replica.table in tables)

    # -- begin and end

    def replica(self, table: Table[Any]) -> Replica[Any]:
        """Keep a table in memory on this worker; call before the start."""
        replica: Replica[Any] = Replica(table, self.changelog_topic(table.name), self.numbers_count)
        self.replicas.append(replica)
        return replica

    def on_gap(self, listener: GapListener) -> None:
        """Call with topic, partition, first lost offset and next offset when retention took unread records."""
        self._on_gap = listener

    def unfence(self) -> None:
        """This is the embedded cluster, which knows no transactions; call before the start, and for nothing else."""
        log.warning("UNFENCED: no transactions on this cluster; for a first look only, with one worker")
        self.fenced = False
        self.readers.read_uncommitted()

    async def start(self) -> None:
        """Before the consumer joins: begin to follow the replicas."""
        self._loop = asyncio.get_running_loop()
        for replica in self.replicas:
            client_id = f"{self.config.app_id}-{self.instance}-{replica.table.name}"
            self._watch(replica.run(self.reader, client_id), f"the replica of {replica.table.name}")
            self._watch(replica.keep_fresh(self.readers.ends), f"the age of the replica of {replica.table.name}")
        self._watch(self._copies.run(), "the copies of the positions")
        self._watch(self.status.feed_gauges(), "the gauges")
        self._watch(self.status.follow_ends(), "the ends of the partitions")

    async def before_join(self) -> None:
        """Take our dead self out of the group; the join must follow at once.

        The others rebalance as soon as they hear of it. Whoever joins a second later has them do it twice, and moves
        our numbers to them and back.
        """
        former, self._former = self._former, ""
        if former and await leave_group(self.connection, self.config.app_id, former):
            log.info("took the former member %s out of the group", former)

    def _watch(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run for as long as the process; one that fails must not be missed in silence."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                log.critical("%s ended", name, exc_info=error)
                self.die(f"{name} ended: {error!r}")

        task = asyncio.create_task(work, name=name)
        task.add_done_callback(ended)
        self._tasks.append(task)

    async def shutdown(self, *, drain_s: float = DRAIN_ON_SHUTDOWN_S) -> None:
        """Drain, checkpoint, close the numbers; the consumer then leaves the group."""
        self.draining = True
        await self._close_numbers(drain_s, lost=False)

    async def stop(self) -> None:
        """After the consumer has left."""
        await cancelled(*self._tasks)
        if close_all(self._stores.values(), self.data_dir.path / "state"):
            self._stores.clear()
        await self.outputs.close()
        await self.readers.close()
        kept = self.data_dir.membership()  # by its id the next start takes out of the group who could not leave
        self.data_dir.remember(Membership("" if self.left else kept.member_id, self._generation, kept.held))
        self.data_dir.close()

    def die(self, why: str, code: int = EXIT_STUCK) -> None:
        """End the process now; everything that counts is in the log."""
        log.critical("exit %d: %s", code, why)
        logging.shutdown()
        os._exit(code)

    # -- the group; these three are called in the consumer's thread

    def assigned(self, got: Assigned, member_id: str) -> None:
        """A new assignment, told by the assignor; never raises, for that ends aiokafka's coordinator in silence."""
        self._lease = time.monotonic()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._learn, got)
        try:
            self.data_dir.remember(Membership(member_id, got.generation, got.numbers))
        except OSError:
            log.exception("the assignment is not remembered over a restart")

    def out_of_range(self, topic: str, partition: int, position: int | None) -> None:
        """The next offset of a partition is gone; its number is opened again, which counts the gap or refuses."""
        if self._loop is not None:
            why = f"{topic}/{partition}: offset {position} is not there any more"
            self._loop.call_soon_threadsafe(self._reopen, partition % self.numbers_count, why)

    def _reopen(self, number: int, why: str) -> None:
        if (found := self.numbers.get(number)) is not None:
            found.reopen(why)

    def lease_from(self, sent: float) -> None:
        """A heartbeat sent then was answered."""
        self._lease = max(self._lease, sent)

    def _learn(self, got: Assigned) -> None:
        self.assignment_seen = True
        metrics.REBALANCES.inc()
        self.ownership.update(got.owners)
        self.problem = got.problem
        if not got.numbers:
            self._release_stores()
        if got.hopeless:
            self.die(f"the assignment stays wrong after {MAX_REJOINS} more joins: {got.problem}")

    def lease_valid(self) -> bool:
        """See `number.Services.lease_valid`."""
        return time.monotonic() - self._lease < self.config.session_timeout_s

    async def confirm(self) -> bool:
        """See `number.Services.confirm`."""
        return self.consumer is not None and await self.consumer.confirm(self._generation)

    def coordinator_error(self, error: str | None, *, mends: bool = False) -> None:
        """Told each second what the coordinator says of itself; `mends`: it goes on by itself once it may."""
        if mends and error is not None:
            self._error_since, self.coordinator_problem = None, error
            return
        if error is None:
            self._error_since, self.coordinator_problem = None, ""
            return
        now = time.monotonic()
        if self._error_since is None:
            log.error("the group coordinator: %s", error)
        self._error_since = self._error_since or now
        self.coordinator_problem = error
        if now - self._error_since > COORDINATOR_ERROR_LIMIT_S:
            self.die(f"the group coordinator has failed for {COORDINATOR_ERROR_LIMIT_S:.0f} s: {error}")

    # -- rebalance

    async def opened(self, assigned: set[TP], generation: int) -> None:
        """The assignment stands: open its numbers, in tasks of their own."""
        if self.draining:
            return
        await self._close_numbers(0.0, lost=True)
        if self.draining:
            # The shutdown began meanwhile, and has found nothing to close.
            return
        self._assigned, self._generation = assigned, generation
        for number in sorted({partition % self.numbers_count for _, partition in assigned}):
            self.numbers[number] = Number(self, number)
        self._release_stores()

    def _release_stores(self) -> None:
        """Stores stay open over a rebalance; those of numbers that moved away are let go of."""
        for agent, number in list(self._stores):
            if number not in self.numbers:
                self._stores.pop((agent, number)).close()

    async def revoked(self) -> None:
        """The group rebalances: end everything within 8 s; lost sessions get no drain and no checkpoint."""
        if self.draining and self._loop is not None:
            # A shutdown may drain for longer than a whole group should stand.
            self._loop.call_later(DRAIN_ON_REVOKE_S, self.skip_drain)
        lost = self.consumer is None or self.consumer.generation < 0 or not self.lease_valid()
        await self._close_numbers(DRAIN_ON_REVOKE_S, lost=lost)
        self._assigned = set()

    def skip_drain(self) -> None:
        """A second signal: whatever is still under way has an unknown outcome."""
        self._skip_drain = True
        for number in self._leaving:
            number.skip_drain()

    async def _close_numbers(self, drain_s: float, *, lost: bool) -> None:
        async with self._closing:
            numbers, self.numbers = self.numbers, {}
            self._leaving = list(numbers.values())
            drain_s = 0.0 if self._skip_drain else drain_s
            results = await asyncio.gather(
                *(number.close(drain_s, lost=lost) for number in numbers.values()), return_exceptions=True
            )
        for result in results:
            if isinstance(result, BaseException):
                log.critical("a number did not close cleanly", exc_info=result)
                self.die(f"a number did not close cleanly: {result!r}")
        await self._copies.finish(lost=lost)

    # -- Services of the numbers

    def changelog_topic(self, table: str) -> str:
        """See `number.Services.changelog_topic`."""
        return f"{self.config.app_id}-{table}-changelog"

    def new_changelog(self, number: int) -> Changelog:
        """See `number.Services.new_changelog`."""
        make = FencedChangelog if self.fenced else PlainChangelog
        return make(self.connection, self.config.app_id, number)

    def store(self, agent: Agent, number: int) -> Store:
        """See `number.Services.store`."""
        key = (agent.name, number)
        if key not in self._stores:
            path = self.data_dir.path / "state" / f"{agent.name}-{number}"
            self._stores[key] = Store(path, agent.tables, self.config.store_stale_after_s)
        return self._stores[key]

    def partitions_of(self, number: int, agent: Agent) -> list[TP]:
        """See `number.Services.partitions_of`."""
        return sorted(
            tp for tp in self._assigned if tp[1] % self.numbers_count == number and self.agent_of.get(tp[0]) is agent
        )

    async def bounds(self, partitions: Sequence[TP]) -> dict[TP, Bounds]:
        """See `number.Services.bounds`."""
        if self.consumer is None:
            raise NotMember("no consumer")
        ids = await self.topic_ids(sorted({topic for topic, _ in partitions}))
        ends = await self.reader.bounds(partitions)
        committed = await self.consumer.committed(list(partitions))
        return {tp: Bounds(*ends[tp], committed[tp], ids.get(tp[0], "")) for tp in partitions}

    async def topic_ids(self, topics: list[str]) -> dict[str, str]:
        """See `services.Services.topic_ids`."""
        if not self.fenced:
            return {}
        # Numbers open side by side and ask the same; a later opening must see a topic that was made again.
        async with self._ids_lock:
            now = time.monotonic()
            if now - self._ids_at > TOPIC_IDS_S:
                self._topic_ids, self._ids_at = {}, now
            missing = [topic for topic in topics if topic not in self._topic_ids]
            if missing:
                self._topic_ids |= await topic_ids(self.connection, missing)
            return dict(self._topic_ids)

    async def commit_offsets(self, offsets: Mapping[TP, int]) -> None:
        """See `number.Services.commit_offsets`."""
        self._copies.add(offsets)

    async def _copy_offsets(self, offsets: Mapping[TP, int]) -> None:
        if self.consumer is not None:
            await self.consumer.copy_offsets(offsets, OFFSETS_DEADLINE_S)

    async def gap(self, topic: str, partition: int, first: int, next_: int) -> None:
        """See `number.Services.gap`."""
        metrics.GAP_RECORDS.labels(topic=topic).inc(next_ - first)
        log.error(
            "%s/%d: retention took the records %d to %d before they were read", topic, partition, first, next_ - 1
        )
        if self._on_gap is not None:
            await self._on_gap(topic, partition, first, next_)

    def room(self) -> None:
        """See `number.Services.room`."""
        if self.consumer is not None:
            self.consumer.poke()

    def _is_ready(self, number: int) -> bool:
        found = self.numbers.get(number)
        return found is not None and found.ready
