"""Spans of records: one `process` for each, and a `send` for each topic that it becomes records of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from app.observability.tracing.spans import Span, SpanKind, Tracer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.observability.tracing.spans import Value

__all__ = ["Messages", "Passage"]

_SYSTEM: Final = "kafka"


class Place(Protocol):
    """Where a record is."""

    @property
    def topic(self) -> str:
        """Its topic."""

    @property
    def partition(self) -> int:
        """Its partition."""

    @property
    def offset(self) -> int:
        """Its offset."""


class Messages:
    """Makes the spans of what a consumer group reads.

    Args:
        group: Its name.
    """

    def __init__(self, tracer: Tracer, group: str) -> None:
        self._tracer = tracer
        self._group = group

    def passage(
        self,
        record: Place,
        traceparent: str | None,
        *,
        id_: str | None = None,
        source: str | None = None,
        type_: str | None = None,
    ) -> Passage | None:
        """A record that begins to be processed, as the first thing that happens to it here.

        Args:
            traceparent: That it came with.
            id_, source, type_: Of the CloudEvent.

        Returns:
            None if its trace is not kept.
        """
        place = self._tracer.place(traceparent, begins=True)
        if place is None:
            return None
        attributes: dict[str, Value | None] = {
            "messaging.system": _SYSTEM,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": record.topic,
            "messaging.destination.partition.id": str(record.partition),
            "messaging.kafka.offset": record.offset,
            "messaging.consumer.group.name": self._group,
            "cloudevents.event_id": id_,
            "cloudevents.event_source": None if source is None else _without_secrets(source),
            "cloudevents.event_type": type_,
        }
        return Passage(Span(self._tracer, *place, f"process {record.topic}", SpanKind.CONSUMER, attributes))

    def batch(self, topic: str, partition: int, causes: Iterable[str | None], count: int) -> Span | None:
        """Many records that are processed as one, which is linked with what they follow from.

        Args:
            causes: The `traceparent` that each came with.
            count: How many they are.

        Returns:
            None if the trace of none of them is kept.
        """
        attributes: dict[str, Value | None] = {
            "messaging.system": _SYSTEM,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": topic,
            "messaging.destination.partition.id": str(partition),
            "messaging.consumer.group.name": self._group,
            "messaging.batch.message_count": count,
        }
        return self._tracer.begin_linked(f"process {topic}", SpanKind.CONSUMER, attributes, causes)


class Passage:
    """One record on its way through an agent."""

    __slots__ = ("_counts", "_headers", "_sends", "_span")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._sends: dict[str, Span] = {}
        self._headers: dict[str, tuple[str, bytes]] = {}
        self._counts: dict[str, int] = {}

    def header(self, topic: str) -> tuple[str, bytes]:
        """The header of a record of that topic which follows from this one."""
        header = self._headers.get(topic)
        if header is not None:
            self._counts[topic] += 1
            return header
        send = self._sends[topic] = self._span.child(
            f"send {topic}",
            SpanKind.PRODUCER,
            {
                "messaging.system": _SYSTEM,
                "messaging.operation.name": "send",
                "messaging.operation.type": "send",
                "messaging.destination.name": topic,
            },
        )
        self._counts[topic] = 1
        header = self._headers[topic] = ("traceparent", send.traceparent.encode())
        return header

    def refuse(self, reason: str) -> None:
        """The record is not what it should be."""
        self._span.end(reason)

    def end(self) -> None:
        """All that follows from it is acknowledged."""
        for topic, send in self._sends.items():
            if self._counts[topic] > 1:
                send.set("messaging.batch.message_count", self._counts[topic])
            send.end()
        self._span.end()


def _without_secrets(source: str) -> str:
    """A source is a URI reference, and may be the address of somebody with their password in it."""
    head = source.partition("?")[0].partition("#")[0]
    scheme, slashes, rest = head.partition("//")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{authority.rpartition('@')[2]}{slash}{path}" if slashes else head
