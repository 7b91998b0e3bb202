"""The router: each vault event becomes its deliveries, its audit record, and what policy and registry need of it.

It keeps nothing: every output is a function of the record and of the webhooks that there are, with ids that are the
same when a slice is routed twice. What is not an event of the catalogue goes to quarantine, and the next record is
routed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import orjson

from app.engine import Agent, slice_handler
from app.events import (
    STRUCTURED_HEADERS,
    CloudEvent,
    InvalidEvent,
    OperatorEventType,
    Payload,
    VaultEventType,
    decode_payload,
    decode_record,
    delivery_id,
    derived_event,
    format_time,
    traceparent_of,
)
from app.events.payloads import PAYLOADS, AccessGranted, AccessRevoked, PolicyViolation
from app.integrations.audit import audit_event
from app.integrations.policy import violation_report
from app.integrations.vault_figures import FIGURES
from app.observability import metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from app.engine import Record, Slice, Table, Unit
    from app.observability.tracing import Messages, Passage
    from app.topics import Topics

__all__ = ["Matcher", "route_handler", "router_agent"]

log = logging.getLogger("agents.router")

_YIELD_EVERY_RECORDS: Final = 32
_DELIVERED_TYPES: Final = frozenset(map(str, (*VaultEventType, *OperatorEventType)))
_DATASET_TYPES: Final = frozenset(
    str(type_)
    for type_ in VaultEventType
    if type_.startswith(
        ("llm.data-vault.dataset.", "llm.data-vault.version.", "llm.data-vault.branch.", "llm.data-vault.records.")
    )
)
_Permission = AccessGranted | AccessRevoked | PolicyViolation
_REASON: Final = ("vs-reason", b"event")
_consumed = cache(lambda type_, outcome: metrics.EVENTS_CONSUMED.labels(type=type_, outcome=outcome))


class Matcher(Protocol):
    """Knows the webhooks."""

    def match(self, event: CloudEvent) -> Iterable[str]:
        """Ids of all webhooks that the event is for, disabled ones included: their owner records what they missed."""


def route_handler(
    topics: Topics, matcher: Matcher, traces: Messages | None = None
) -> Callable[[Slice, Unit], Awaitable[None]]:
    """The handler of one slice: adds the outputs of every record to the unit, in order."""
    return _Router(topics, matcher, traces).route


def router_agent(
    topics: Topics,
    matcher: Matcher,
    home: Table[Any],
    follows: tuple[Table[Any], ...] = (),
    traces: Messages | None = None,
) -> Agent:
    """The agent that reads all vault topics; ``home`` carries its positions, the matcher knows what it ``follows``."""
    return Agent(
        name="router",
        topics=topics.vault,
        processor=slice_handler(route_handler(topics, matcher, traces)),
        home=home,
        tables=(home,),
        follows=follows,
        # Its outputs spread over many partitions: with twice the usual slice the batches are larger, a tenth less work.
        slice_records=512,
        room_records=1536,
    )


class _Plan(NamedTuple):
    """What becomes of the events of one type.

    Attributes:
        routed: The type and the outcome, for the metric.
        figure: Counts what its payload says of the vault's work.
        permission: Whether it changes or violates one.
        dataset: Whether the registry hears of it.
    """

    type: str
    routed: tuple[str, str]
    delivered: bool = False
    figure: Callable[[Any], None] | None = None
    permission: bool = False
    dataset: bool = False


def _plan(type_: str, payload: type[Payload]) -> _Plan:
    return _Plan(
        type_,
        (type_, "routed"),
        delivered=type_ in _DELIVERED_TYPES,
        figure=FIGURES.get(payload),
        permission=issubclass(payload, _Permission),
        dataset=type_ in _DATASET_TYPES,
    )


_PLANS: Final = {str(type_): _plan(str(type_), payload) for type_, payload in PAYLOADS.items()}
# Nothing is routed of it, for its payload is refused.
_UNKNOWN: Final = _Plan("unknown", ("unknown", "routed"))


class _Router:
    def __init__(self, topics: Topics, matcher: Matcher, traces: Messages | None) -> None:
        self._topics = topics
        self._match = matcher.match
        self._traces = traces
        self._measured = True

    async def route(self, slice_: Slice, unit: Unit) -> None:
        outcomes = []
        for count, record in enumerate(slice_.records, 1):
            outcomes.append(self._route(record, unit))
            if count % _YIELD_EVERY_RECORDS == 0:
                await asyncio.sleep(0)
        unit.on_done(partial(self._measure, partial(_count, Counter(outcomes))))

    def _route(self, record: Record, unit: Unit) -> tuple[str, str]:
        """Add the outputs of one record; the type (of a closed list) and the outcome, for the metric."""
        plan = _UNKNOWN
        try:
            event = decode_record(record.value, record.headers)
            recorded_at = _time_of(record)
            plan = _PLANS.get(event.type, _UNKNOWN)
            payload = decode_payload(event)
        except InvalidEvent as error:
            self._refuse(record, error, unit)
            return plan.type, error.reason
        if plan.figure is not None:
            unit.on_done(partial(self._measure, partial(plan.figure, payload)))
        trace, passage = traceparent_of(record.headers, event.extensions), None
        if self._traces is not None:
            passage = self._traces.passage(record, trace, id_=event.id, source=event.source, type_=plan.type)
            if passage is not None:
                unit.on_done(partial(self._measure, passage.end))
        if plan.delivered:
            self._deliver(record, event, unit, trace, passage)
        self._audit(record, recorded_at, event, unit, passage)
        if plan.permission:
            self._permit(record, recorded_at, event, payload, unit, passage)
        if plan.dataset:
            self._register(record, event, unit, trace, passage)
        return plan.routed

    def _refuse(self, record: Record, error: InvalidEvent, unit: Unit) -> None:
        unit.quarantine(record, error.reason, error.detail)
        if self._traces is not None and (passage := self._traces.passage(record, traceparent_of(record.headers, {}))):
            passage.refuse(error.reason)

    def _measure(self, measure: Callable[[], None]) -> None:
        """Count or trace what was routed: where that fails, the figures are wrong, and events go on all the same."""
        try:
            measure()
        except Exception:
            if self._measured:
                log.exception("what was routed cannot be counted or traced: figures and traces are not whole")
            self._measured = False

    def _deliver(
        self, record: Record, event: CloudEvent, unit: Unit, trace: str | None, passage: Passage | None
    ) -> None:
        """One intent for each webhook that matches (contracts 9.2)."""
        topic = self._topics.deliveries
        shared: tuple[tuple[str, bytes], ...] = ()
        for webhook_id in self._match(event):
            if not shared:
                origin = f"{record.topic}/{record.partition}/{record.offset}".encode()
                shared = (_REASON, ("vs-origin", origin))
                if trace is not None or passage is not None:
                    shared += _trace_header(topic, trace, passage)
            elif passage is not None:
                passage.header(topic)
            key = webhook_id.encode()
            delivery = delivery_id(webhook_id, event.source, event.id).encode()
            unit.send(topic, key, event.posted, (("vs-delivery-id", delivery), ("vs-webhook-id", key), *shared))

    def _audit(self, record: Record, recorded_at: str, event: CloudEvent, unit: Unit, passage: Passage | None) -> None:
        audit = audit_event(event, record.timestamp)
        key: str = audit["resource"]["id"]
        value = _derived("audit.recorded", key, audit, recorded_at, event)
        unit.send(self._topics.audit, key.encode(), value, _derived_headers(self._topics.audit, passage))

    def _permit(
        self,
        record: Record,
        recorded_at: str,
        event: CloudEvent,
        payload: Payload,
        unit: Unit,
        passage: Passage | None,
    ) -> None:
        """What the policy engine is told, and what its decisions of before are worth."""
        if isinstance(payload, PolicyViolation):
            report = violation_report(event, record.timestamp)
            topic, key = self._topics.violations, payload.resource_id
            value = _derived("violation.raised", key, report, recorded_at, event)
            unit.send(topic, key.encode(), value, _derived_headers(topic, passage))
        if isinstance(payload, _Permission):
            self._invalidate(event, payload, unit)

    def _invalidate(self, event: CloudEvent, payload: _Permission, unit: Unit) -> None:
        """What was decided about this principal and this resource counts no longer, from the broker's time on."""
        value = orjson.dumps({"event_type": event.type, "event_source": event.source, "event_id": event.id})
        if payload.principal_id:
            unit.send(self._topics.invalidations, f"p:{payload.principal_id}".encode(), value)
        unit.send(self._topics.invalidations, f"r:{payload.resource_id}".encode(), value)

    def _register(
        self, record: Record, event: CloudEvent, unit: Unit, trace: str | None, passage: Passage | None
    ) -> None:
        """The event for whoever owns the dataset: the types that get here require a ``dataset_id``."""
        dataset_id: str = event.data["dataset_id"]
        topic = self._topics.registry_datasets
        headers = (("vs-timestamp", b"%d" % record.timestamp), *_trace_header(topic, trace, passage))
        unit.send(topic, dataset_id.encode(), event.posted, headers)


def _count(outcomes: Counter[tuple[str, str]]) -> None:
    for (type_, outcome), count in outcomes.items():
        _consumed(type_, outcome).inc(count)


def _time_of(record: Record) -> str:
    """A record that claims a time of no calendar (microseconds, mostly) has none to pass on.

    Raises:
        InvalidEvent: It has none.
    """
    try:
        return format_time(record.timestamp)
    except ValueError:
        detail = "the record's timestamp is outside the years 1 to 9999: it must be in milliseconds"
        raise InvalidEvent("invalid_envelope", detail) from None


def _derived(type_: str, key: str, data: dict[str, Any], recorded_at: str, cause: CloudEvent) -> bytes:
    """A derived event under the vault event's own source and id (contracts 9.1).

    It says where the trace began, and is the same each time; the hop that it comes from is in its header.
    """
    return derived_event(
        type_, id_=cause.id, source=cause.source, subject=key, time=recorded_at, data=data, cause=cause
    )


def _derived_headers(topic: str, passage: Passage | None) -> Sequence[tuple[str, bytes]]:
    return STRUCTURED_HEADERS if passage is None else (*STRUCTURED_HEADERS, passage.header(topic))


def _trace_header(topic: str, trace: str | None, passage: Passage | None) -> tuple[tuple[str, bytes], ...]:
    """What a record of that topic follows from: its span here; what is not kept is passed on as it came."""
    if passage is not None:
        return (passage.header(topic),)
    return () if trace is None else (("traceparent", trace.encode()),)
