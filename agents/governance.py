"""Agent `governance`: seals audit records into hash-chained batches and posts them until the dashboard has them.

Lag is the queue: a dashboard that does not answer costs lag on this agent's own topic, never a record. A batch is
posted only after its range is in the changelog, so after a crash exactly that range goes out again under the same id.

A record of the topic that is no AuditEvent goes to quarantine and has no entry; the chain goes on around it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from app.engine import Agent, Processor
from app.events import traceparent_of
from app.integrations.audit import UnreadableAudit, read_audit_record
from app.integrations.governance import Fate, Flush, Line, Reply, Seal, Step
from app.integrations.upstream import Rejected, Unavailable, UpstreamError, backoff_s, draw_jitter
from app.observability import metrics
from tables.audit import AUDIT, AuditRow, audit_lines, batch_key, forget_batches, head_key
from tables.audit_queries import AuditReaders, LineState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.engine import Clock, Context, Record, Slice, Unit
    from app.integrations.governance import Part
    from app.integrations.upstream import Answer, Upstream
    from app.observability.tracing import Messages
    from app.topics import Topics

__all__ = ["GovernanceOptions", "governance_agent"]

T = TypeVar("T")

log = logging.getLogger("app.agents.governance")

_DUPLICATE: Final = 409
_REFUSING: Final = frozenset({400, 413, 422})
# Success for a part of it at most.
_PARTIAL: Final = frozenset({206, 207})
_ROOM_RECORDS: Final = 768
_ROOM_BYTES: Final = 16 << 20
_DAY_MS: Final = 24 * 60 * 60 * 1000
# A topic keeps a record for as long as its segment: up to a week beyond the retention.
_SEGMENT_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class GovernanceOptions:
    """How batches are made and where they go.

    Attributes:
        flush: When a batch is sealed.
        path: Of the batch route, below the dashboard's endpoint.
        retention_days: Of the audit topic; batch rows are kept as long.
    """

    flush: Flush = field(default_factory=Flush)
    path: str = "/api/v1/audit/events/batch"
    retention_days: int = 365


def governance_agent(
    topics: Topics,
    dashboard: Upstream,
    options: GovernanceOptions | None = None,
    *,
    readers: AuditReaders | None = None,
    jitter: Callable[[], float] = draw_jitter,
    traces: Messages | None = None,
) -> Agent:
    """The agent; register it only if the dashboard has an endpoint.

    Args:
        topics: Their names.
        dashboard: The governance dashboard.
        options: How batches are made; the defaults of the settings.
        readers: Where the API finds the numbers that are open here.
        jitter: 0 to 1, for back-offs.
        traces: Makes the spans of batches; None: tracing is off.
    """
    chosen = options or GovernanceOptions()
    ages = _Ages()
    known = readers or AuditReaders()

    def processor(context: Context) -> Processor:
        return _Governance(context, dashboard, chosen, jitter, ages, known, traces)

    return Agent(
        name="governance",
        topics=(topics.audit,),
        processor=processor,
        home=AUDIT,
        tables=(AUDIT,),
        # Room for the batch that is under way and for the next one.
        room_records=max(_ROOM_RECORDS, 2 * chosen.flush.size),
        room_bytes=max(_ROOM_BYTES, 2 * chosen.flush.limit_bytes),
    )


class _Ages:
    """The oldest record of each partition that the dashboard has not accepted, for the metric."""

    def __init__(self) -> None:
        self._oldest_ms: dict[int, int] = {}

    def watch(self, clock: Clock) -> None:
        metrics.AUDIT_OLDEST_UNACCEPTED_SECONDS.set_function(lambda: self._age_s(clock))

    def note(self, partition: int, oldest_ms: int | None) -> None:
        if oldest_ms is None:
            self._oldest_ms.pop(partition, None)
        else:
            self._oldest_ms[partition] = oldest_ms

    def _age_s(self, clock: Clock) -> float:
        oldest_ms = min(self._oldest_ms.values(), default=None)
        return 0.0 if oldest_ms is None else max(0.0, (clock.now_ms() - oldest_ms) / 1000)


@dataclass(slots=True, eq=False)
class _Way:
    """A partition's line, with its records and what is under way for it."""

    line: Line
    records: dict[int, Record] = field(default_factory=dict)
    failures: int = 0
    not_before_s: float = 0.0
    running: bool = False
    told_broken: bool = False
    next_offset: int = 0

    def state(self, now_ms: int) -> LineState:
        """For whoever asks how far it is."""
        line, oldest_ms = self.line, self.line.oldest_ms()
        return LineState(
            head=line.head,
            waiting=line.waiting,
            sealed=line.batch.count if line.batch else 0,
            next_offset=self.next_offset,
            oldest_unaccepted_s=None if oldest_ms is None else max(0.0, (now_ms - oldest_ms) / 1000),
            broken=line.broken,
        )


class _Governance(Processor):
    def __init__(
        self,
        context: Context,
        dashboard: Upstream,
        options: GovernanceOptions,
        jitter: Callable[[], float],
        ages: _Ages,
        readers: AuditReaders,
        traces: Messages | None,
    ) -> None:
        super().__init__(context)
        self._dashboard = dashboard
        self._options = options
        self._jitter = jitter
        self._ages = ages
        self._readers = readers
        self._traces = traces
        self._ways: dict[int, _Way] = {}
        self._draining = False
        ages.watch(context.clock)

    async def opened(self, unit: Unit) -> None:
        for partition, (head, batch) in audit_lines(unit).items():
            self._ways[partition] = _Way(Line(partition, self._options.flush, head, batch))
        self._readers.opened(self.context.number, self)

    async def read(self, job: Callable[[Unit, Mapping[int, LineState]], T]) -> T:
        """See `tables.audit_queries.AuditReader`."""
        return await self.context.submit(lambda unit: job(unit, self._states()))

    def _states(self) -> dict[int, LineState]:
        now_ms = self.context.clock.now_ms()
        return {partition: way.state(now_ms) for partition, way in self._ways.items()}

    async def process(self, slice_: Slice, unit: Unit) -> None:
        for record in slice_.records:
            way = self._way(record.partition)
            way.next_offset = max(way.next_offset, record.offset + 1)
            try:
                audit = read_audit_record(record.value, record.timestamp)
            except UnreadableAudit as error:
                unit.quarantine(record, "invalid_envelope", str(error))
                continue
            fate = way.line.add(
                record.offset,
                record.timestamp,
                audit,
                size_bytes=len(record.value or b""),
                due_s=self._due_s(record.timestamp),
            )
            if fate is Fate.HELD:
                unit.hold(record)
                way.records[record.offset] = record
        for way in self._ways.values():
            self._go_on(way)

    async def tick(self, unit: Unit) -> None:  # noqa: ARG002  (a timer's unit; sealing is a job of its own)
        for way in self._ways.values():
            self._go_on(way)

    def begin_drain(self) -> None:
        self._draining = True

    def busy(self) -> bool:
        return any(way.running for way in self._ways.values())

    async def closed(self) -> None:
        self._readers.closed(self.context.number, self)
        for partition in self._ways:
            self._ages.note(partition, None)

    def _way(self, partition: int) -> _Way:
        way = self._ways.get(partition)
        if way is None:
            way = self._ways[partition] = _Way(Line(partition, self._options.flush))
        return way

    def _due_s(self, timestamp_ms: int) -> float:
        """When a batch that begins with this record is due: by the age of the record, if its clock can be believed."""
        clock = self.context.clock
        age_s = max(0.0, (clock.now_ms() - timestamp_ms) / 1000)
        return clock.monotonic_s() + max(0.0, self._options.flush.interval_s - age_s)

    def _go_on(self, way: _Way) -> None:
        """Start what is due, or ask to be woken when it is."""
        line = way.line
        self._ages.note(line.partition, line.oldest_ms())
        if line.broken and not way.told_broken:
            way.told_broken = True
            log.critical("audit batches of partition %d stand: %s", line.partition, line.broken)
        if way.running or self._draining:
            return
        due_s = way.not_before_s if line.sendable() else line.due_s()
        if due_s is None:
            return
        if due_s > self.context.clock.monotonic_s():
            self.context.tick_at(due_s)
            return
        way.running = True
        self.context.spawn(self._run(way))

    async def _run(self, way: _Way) -> None:
        """Seal and post, batch after batch, until nothing is due or the dashboard does not answer."""
        try:
            going = True
            while going and not self._draining:
                going = await self._post(way) if way.line.sendable() else await self._seal(way)
        finally:
            way.running = False
        self._go_on(way)

    async def _seal(self, way: _Way) -> bool:
        now_s = self.context.clock.monotonic_s()
        seal = await self.context.submit(lambda unit: self._put_seal(unit, way.line, now_s))
        if seal is not None:
            way.line.sealed(seal)
        return seal is not None

    async def _post(self, way: _Way) -> bool:
        """Post the next part; True if the dashboard gave an answer that counts."""
        part = way.line.next_part()
        # The range, or the split, is in the changelog before anybody outside sees its id.
        await self.context.checkpoint()
        await self.context.until_may_act()
        try:
            answer = await self._send(way, part)
        except Rejected as error:
            if error.status not in _REFUSING:
                return self._back_off(way, part, f"answered {error.status}", None)
            return await self._settle(way, part, Reply.REFUSED, error.status)
        except Unavailable as error:
            return self._back_off(way, part, str(error), error.retry_after_s)
        if answer.status != _DUPLICATE and (answer.is_page or answer.status in _PARTIAL):
            kind = "a web page" if answer.is_page else "of which nobody knows what was taken"
            return self._back_off(way, part, f"answered {answer.status}, {kind}", None)
        outcome = "duplicate" if answer.status == _DUPLICATE else "accepted"
        metrics.AUDIT_BATCHES.labels(outcome=outcome).inc()
        return await self._settle(way, part, Reply.ACCEPTED, answer.status)

    async def _send(self, way: _Way, part: Part) -> Answer:
        """The request, under a span that is linked with the events whose traces are kept."""
        span, headers = None, part.headers
        if self._traces is not None:
            records = [way.records[entry.sequence] for entry in part.entries]
            causes = (traceparent_of(record.headers, {}) for record in records)
            span = self._traces.batch(records[0].topic, way.line.partition, causes, len(records))
        if span is not None:
            headers["traceparent"] = span.traceparent
        error: str | None = "cancelled"
        try:
            answer = await self._dashboard.send(
                "POST", self._options.path, part.body, headers=headers, accept={_DUPLICATE}
            )
            error = None
        except UpstreamError as failure:
            error = "unavailable" if failure.status is None else str(failure.status)
            raise
        finally:
            if span is not None:
                span.end(error)
        return answer

    async def _settle(self, way: _Way, part: Part, reply: Reply, status: int | None) -> bool:
        line = way.line
        step = line.answered(part, reply)
        if reply is Reply.REFUSED:
            metrics.AUDIT_BATCHES.labels(outcome="split" if step.split else "rejected").inc()
            log.warning("audit batch %s was answered %s: %s", part.id, status, "split" if step.split else "given up")
        now_s = self.context.clock.monotonic_s()
        seal = await self.context.submit(lambda unit: self._put_step(unit, way, step, status, now_s))
        way.failures, way.not_before_s = 0, 0.0
        line.settled(step)
        if step.done:
            for entry in list(way.records):
                if entry <= step.batch.last:
                    del way.records[entry]
        if seal is not None:
            line.sealed(seal)
        self._ages.note(line.partition, line.oldest_ms())
        return True

    def _back_off(self, way: _Way, part: Part, reason: str, retry_after_s: float | None) -> bool:
        way.failures += 1
        wait_s = backoff_s(way.failures, self._jitter(), retry_after_s)
        way.not_before_s = self.context.clock.monotonic_s() + wait_s
        metrics.AUDIT_BATCHES.labels(outcome="unavailable").inc()
        log.warning("audit batch %s waits %.1f s: the dashboard %s", part.id, wait_s, reason)
        return False

    # -- jobs

    def _put_seal(self, unit: Unit, line: Line, now_s: float) -> Seal | None:
        seal = None if self._draining else line.propose(now_s)
        if seal is None:
            return None
        if seal.lost is not None:
            metrics.AUDIT_BATCHES.labels(outcome="lost").inc()
            log.error("the records of audit batch %s are gone from the topic before they were accepted", seal.lost.id)
            unit.delete(AUDIT, batch_key(line.partition, seal.lost.first))
        unit.put(AUDIT, head_key(line.partition), AuditRow(head=seal.head))
        unit.put(AUDIT, batch_key(line.partition, seal.batch.first), AuditRow(batch=seal.batch))
        keep_ms = (self._options.retention_days + _SEGMENT_DAYS) * _DAY_MS
        forget_batches(unit, line.partition, self.context.clock.now_ms() - keep_ms)
        return seal

    def _put_step(self, unit: Unit, way: _Way, step: Step, status: int | None, now_s: float) -> Seal | None:
        """The answer, and with the last one of a batch the seal of the next: one transaction for both."""
        line = way.line
        unit.put(AUDIT, batch_key(line.partition, step.batch.first), AuditRow(batch=step.batch))
        if step.rejected is not None:
            unit.quarantine(way.records[step.rejected], "rejected_upstream", f"the dashboard answered {status}")
        if not step.done:
            return None
        unit.put(AUDIT, head_key(line.partition), AuditRow(head=step.head))
        for entry in line.entries:
            unit.finish(way.records[entry.sequence])
        return self._put_seal(unit, line, now_s)
