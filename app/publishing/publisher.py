"""The publisher that vault services program against, and one in memory for their tests (contracts 1.3)."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry

from app.events import CloudEvent, TopicLayout, record_key, topic_of
from app.publishing.errors import EventError
from app.publishing.event import VaultEvent, checked
from app.publishing.metrics import EventMetrics


@dataclass(frozen=True, slots=True)
class PublishError:
    """One event of a batch that failed.

    Attributes:
        index: Its place in the batch.
        event_id: Its id.
        error: Why.
    """

    index: int
    event_id: str
    error: EventError

    def __str__(self) -> str:
        return f"{self.event_id}: {self.error}"


@dataclass(frozen=True, slots=True)
class BatchPublishResult:
    """What became of a batch; the caller may resend exactly the events in ``errors``."""

    successful: int
    failed: int
    errors: tuple[PublishError, ...]


class EventPublisher(ABC):
    """Publishes events; use it as an async context manager.

    An event is refused before it is sent if the processor would put it into quarantine.

    Args:
        registry: Where to count; nothing is registered without one.
    """

    def __init__(self, *, registry: CollectorRegistry | None = None) -> None:
        self._metrics = None if registry is None else EventMetrics(registry, self.publisher_type)

    @property
    @abstractmethod
    def publisher_type(self) -> str:
        """A short name of the kind of publisher."""

    @abstractmethod
    async def _send(self, events: Sequence[CloudEvent]) -> list[EventError | None]:
        """Send checked events side by side; for each, None once it is acknowledged, else the error."""

    async def start(self) -> None:  # noqa: B027  (optional: not every publisher has something to open)
        """Connect.

        Raises:
            ConfigurationError: The settings do not work.
            BrokerConnectionError: No broker could be reached.
        """

    async def stop(self) -> None:  # noqa: B027  (optional: not every publisher has something to close)
        """Send what is under way, and disconnect."""

    async def publish(self, event: VaultEvent | CloudEvent) -> None:
        """Publish one event and wait until the broker has it.

        Raises:
            SerializationError: The event breaks the rules.
            PublishFailed: The broker did not acknowledge it.
            BrokerConnectionError: No broker could be reached.
        """
        result = await self.publish_batch([event])
        for failure in result.errors:
            raise failure.error

    async def publish_batch(self, events: Sequence[VaultEvent | CloudEvent]) -> BatchPublishResult:
        """Publish events, all of them in flight together.

        An event that fails does not stop the others.
        """
        began_s = time.monotonic()
        failures: dict[int, EventError] = {}
        ready: dict[int, CloudEvent] = {}
        for index, event in enumerate(events):
            try:
                ready[index] = checked(event)
            except EventError as error:
                failures[index] = error
        outcomes = zip(ready, await self._send(list(ready.values())), strict=True)
        failures |= {index: outcome for index, outcome in outcomes if outcome is not None}
        if self._metrics is not None:
            for index, event in enumerate(events):
                (self._metrics.failed if index in failures else self._metrics.published)(event.type)
            self._metrics.took(time.monotonic() - began_s)
        errors = tuple(PublishError(index, events[index].id, failures[index]) for index in sorted(failures))
        return BatchPublishResult(len(events) - len(errors), len(errors), errors)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()


@dataclass(frozen=True, slots=True)
class PublishedRecord:
    """An event as the in-memory publisher keeps it, with the topic and key that Kafka would see."""

    topic: str
    key: bytes
    event: CloudEvent


class InMemoryEventPublisher(EventPublisher):
    """Keeps what was published, for the tests of vault services; refuses what the others refuse.

    Attributes:
        records: Everything published, in order.
    """

    def __init__(
        self,
        *,
        topic_prefix: str = "vault",
        topic_layout: TopicLayout = "per_type",
        registry: CollectorRegistry | None = None,
    ) -> None:
        super().__init__(registry=registry)
        self._prefix = topic_prefix
        self._layout = topic_layout
        self.records: list[PublishedRecord] = []

    @property
    def publisher_type(self) -> str:
        """``memory``."""
        return "memory"

    @property
    def events(self) -> list[CloudEvent]:
        """The events alone."""
        return [record.event for record in self.records]

    async def _send(self, events: Sequence[CloudEvent]) -> list[EventError | None]:
        self.records += [
            PublishedRecord(topic_of(event.type, self._prefix, self._layout), record_key(event), event)
            for event in events
        ]
        return [None] * len(events)
