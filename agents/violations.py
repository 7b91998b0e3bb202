"""Agent `violations`: reports policy violations to the policy engine until it has them.

Lag is the queue: at most 32 reports of a number are under way, each keeps its place until the engine took or rejected
it, and the position stands at the oldest one. The outcome is a record of another type on the same topic, which is read
back and never reported.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from app.engine import Agent, Processor
from app.events import STRUCTURED_HEADERS, InvalidEvent, canonical_json, decode_derived, derived_event, format_time
from app.integrations.policy import idempotency_key
from app.integrations.upstream import Rejected, Unavailable, backoff_s, draw_jitter, trace_headers
from tables.positions import POSITIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.engine import Context, Record, Slice, Unit
    from app.events import CloudEvent
    from app.integrations.upstream import Upstream
    from app.topics import Topics

__all__ = ["violations_agent"]

log = logging.getLogger("app.agents.violations")

WINDOW: Final = 32
_RAISED: Final = "llm.vault-stream.violation.raised"
_REPORTED: Final = "llm.vault-stream.violation.reported"
_DUPLICATE: Final = 409


def violations_agent(
    topics: Topics,
    engine: Upstream,
    *,
    path: str = "/api/v1/violations",
    jitter: Callable[[], float] = draw_jitter,
) -> Agent:
    """The agent; register it only if the policy engine has an endpoint.

    Args:
        topics: Their names.
        engine: The policy engine.
        path: Of its violations route.
        jitter: 0 to 1, for back-offs.
    """

    def processor(context: Context) -> Processor:
        return _Violations(context, topics, engine, path, jitter)

    return Agent(
        name="violations", topics=(topics.violations,), processor=processor, home=POSITIONS, tables=(POSITIONS,)
    )


@dataclass(slots=True, eq=False)
class _Report:
    """One violation on its way."""

    record: Record
    event: CloudEvent
    body: bytes
    attempts: int = 0
    not_before_s: float = 0.0
    running: bool = False


class _Violations(Processor):
    def __init__(
        self, context: Context, topics: Topics, engine: Upstream, path: str, jitter: Callable[[], float]
    ) -> None:
        super().__init__(context)
        self._topics = topics
        self._engine = engine
        self._path = path
        self._jitter = jitter
        self._known: set[tuple[int, int]] = set()
        self._queue: deque[_Report] = deque()
        self._window: list[_Report] = []
        self._draining = False

    async def process(self, slice_: Slice, unit: Unit) -> None:
        for record in slice_.records:
            try:
                event = _read(record)
            except InvalidEvent as error:
                unit.quarantine(record, error.reason, error.detail)
                continue
            if event is None:
                continue
            unit.hold(record)
            place = (record.partition, record.offset)
            if place not in self._known:
                # First what may fail: a record that is known without being queued would be held for ever.
                self._queue.append(_Report(record, event, canonical_json(event.data)))
                self._known.add(place)
        self._go_on()

    async def tick(self, unit: Unit) -> None:  # noqa: ARG002  (a timer's unit; outcomes are jobs of their own)
        self._go_on()

    def begin_drain(self) -> None:
        self._draining = True

    def busy(self) -> bool:
        return any(report.running for report in self._window)

    def _go_on(self) -> None:
        """Fill the window, start what is due, and ask to be woken for the rest."""
        if self._draining:
            return
        while self._queue and len(self._window) < WINDOW:
            self._window.append(self._queue.popleft())
        now_s = self.context.clock.monotonic_s()
        for report in self._window:
            if report.running:
                continue
            if report.not_before_s <= now_s:
                report.running = True
                self.context.spawn(self._report(report))
            else:
                self.context.tick_at(report.not_before_s)

    async def _report(self, report: _Report) -> None:
        """One attempt."""
        try:
            await self.context.until_may_act()
            report.attempts += 1
            await self._attempt(report)
        finally:
            report.running = False
        self._go_on()

    async def _attempt(self, report: _Report) -> None:
        event = report.event
        headers = {
            "Idempotency-Key": idempotency_key(event.source, event.id),
            **trace_headers(event.extensions, report.record.headers),
        }
        try:
            answer = await self._engine.send("POST", self._path, report.body, headers=headers, accept={_DUPLICATE})
        except Unavailable as error:
            wait_s = backoff_s(report.attempts, self._jitter(), error.retry_after_s)
            report.not_before_s = self.context.clock.monotonic_s() + wait_s
            log.warning("a violation report waits %.1f s: the policy engine %s", wait_s, error)
            return
        except Rejected as error:
            await self._end(report, "rejected", error.status or 0)
            return
        await self._end(report, "duplicate" if answer.status == _DUPLICATE else "accepted", answer.status)

    async def _end(self, report: _Report, outcome: str, status: int) -> None:
        now_ms = self.context.clock.now_ms()

        def job(unit: Unit) -> None:
            if outcome == "rejected":
                unit.quarantine(report.record, "rejected_upstream", f"the policy engine answered {status}")
            self._send_outcome(unit, report, outcome, status, now_ms)
            unit.finish(report.record)

        await self.context.submit(job)
        self._window.remove(report)
        self._known.discard((report.record.partition, report.record.offset))

    def _send_outcome(self, unit: Unit, report: _Report, outcome: str, status: int, now_ms: int) -> None:
        event = report.event
        key = report.record.key
        subject = key.decode("utf-8", "replace") if key else event.subject or event.id
        data = canonical_json(
            {"violation_id": event.id, "outcome": outcome, "status_code": status, "attempts": report.attempts}
        )
        value = derived_event(
            "violation.reported",
            id_=f"{event.id}-reported",
            source=event.source,
            subject=subject,
            time=format_time(now_ms),
            data=data,
            cause=event,
        )
        unit.send(self._topics.violations, key, value, STRUCTURED_HEADERS)


def _read(record: Record) -> CloudEvent | None:
    """The violation in a record; None if the record is the outcome of a report.

    Raises:
        InvalidEvent: It is neither.
    """
    event = decode_derived(record.value)
    if event.type == _REPORTED:
        return None
    if event.type != _RAISED:
        raise InvalidEvent("unknown_type", "type is neither violation.raised nor violation.reported")
    if not isinstance(event.data, dict):
        raise InvalidEvent("invalid_data", "data is not an object")
    return event
