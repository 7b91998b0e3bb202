"""Events to Kafka (contracts 1.3): idempotent, acknowledged by all replicas, compressed, truly in batches."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NodeNotReadyError,
    UnknownTopicOrPartitionError,
)
from prometheus_client import CollectorRegistry

from app.brokers import Connection, TlsFileError, explain, overhear
from app.events import STRUCTURED_HEADERS, CloudEvent, TopicLayout, record_key, topic_of
from app.publishing.errors import BrokerConnectionError, ConfigurationError, EventError, PublishFailed
from app.publishing.publisher import EventPublisher

_MAX_REQUEST_BYTES: Final = 2 * 1024 * 1024
_RETRY_BACKOFF_S: Final = 0.1
_MAX_RETRY_BACKOFF_S: Final = 2.0


class KafkaAcks(StrEnum):
    """Who must have a record before it counts as published."""

    NONE = "none"
    LEADER = "leader"
    ALL = "all"


_ACKS: Final[dict[KafkaAcks, int | str]] = {KafkaAcks.NONE: 0, KafkaAcks.LEADER: 1, KafkaAcks.ALL: "all"}


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSecurity:
    """How to be trusted by the brokers, and whom to trust.

    Attributes:
        protocol: As Kafka names it.
        ssl_ca, ssl_cert, ssl_key: PEM files; without ``ssl_ca`` the system's roots.
    """

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    ssl_ca: str | None = None
    ssl_cert: str | None = None
    ssl_key: str | None = None

    def client_options(self) -> dict[str, Any]:
        """The options of an aiokafka client.

        Raises:
            ConfigurationError: A certificate or key cannot be read.
        """
        logs_in = self.protocol.startswith("SASL")
        connection = Connection(
            "",
            self.protocol,
            (self.sasl_mechanism or "PLAIN") if logs_in else None,
            self.sasl_username if logs_in else None,
            self.sasl_password if logs_in else None,
            self.ssl_ca,
            self.ssl_cert,
            self.ssl_key,
        )
        try:
            options = connection.aiokafka()
        except TlsFileError as error:
            raise ConfigurationError(f"ssl_ca, ssl_cert or ssl_key: not a readable PEM file: {error}") from error
        return {name: value for name, value in options.items() if name != "bootstrap_servers"}


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConfig:
    """Where and how to publish.

    Attributes:
        brokers: ``host:port`` of a few brokers.
        topic_prefix: In front of every topic name.
        topic_layout: A topic for each type, or one for all, which keeps the order of a dataset across types.
        acks: Below ``all`` the producer is not idempotent.
        retries: How often an event is sent again after an error that may pass. Within an attempt the client repeats
            requests without duplicates; another attempt may publish the event twice, with the same id.
        batch_size: Bytes of a batch.
        linger_ms: How long a batch waits for more.
        compression: Of whole batches.
        delivery_timeout_s: How long an attempt may take.
    """

    brokers: Sequence[str]
    topic_prefix: str = "vault"
    topic_layout: TopicLayout = "per_type"
    client_id: str = "vault-service"
    acks: KafkaAcks = KafkaAcks.ALL
    retries: int = 2
    batch_size: int = 64 * 1024
    linger_ms: int = 5
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "lz4"
    delivery_timeout_s: float = 30.0
    security: KafkaSecurity = KafkaSecurity()

    def __post_init__(self) -> None:
        if isinstance(self.brokers, str) or not self.brokers or not all(self.brokers):
            raise ConfigurationError('brokers: expected a list of at least one "host:port"')
        if self.topic_layout not in ("per_type", "single"):
            raise ConfigurationError("topic_layout: expected per_type or single")
        if self.retries < 0:
            raise ConfigurationError("retries: expected 0 or more")
        if self.delivery_timeout_s <= 0:
            raise ConfigurationError("delivery_timeout_s: expected more than 0")

    def client_options(self) -> dict[str, Any]:
        """The options of the aiokafka producer.

        Raises:
            ConfigurationError: A certificate or key cannot be read.
        """
        return {
            "bootstrap_servers": list(self.brokers),
            "client_id": self.client_id,
            "acks": _ACKS[KafkaAcks(self.acks)],
            "enable_idempotence": self.acks == KafkaAcks.ALL,
            "max_batch_size": self.batch_size,
            "linger_ms": self.linger_ms,
            "compression_type": None if self.compression == "none" else self.compression,
            "request_timeout_ms": round(self.delivery_timeout_s * 1000),
            "max_request_size": _MAX_REQUEST_BYTES,
            **self.security.client_options(),
        }


class RecordProducer(Protocol):
    """What the publisher needs of a Kafka client."""

    async def start(self) -> None:
        """Connect."""

    async def stop(self) -> None:
        """Flush and disconnect."""

    async def send(
        self, topic: str, *, value: bytes, key: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> "asyncio.Future[Any]":
        """Put a record into a batch; the future resolves when it is acknowledged."""


def _aiokafka_producer(config: KafkaConfig) -> RecordProducer:
    try:
        producer: RecordProducer = AIOKafkaProducer(**config.client_options())
    except (ValueError, RuntimeError) as error:
        raise ConfigurationError(f"the Kafka client refuses its settings: {error}") from error
    return producer


class KafkaEventPublisher(EventPublisher):
    """Publishes events to Kafka.

    Records go out in the order of the batch within a topic, except those that are sent again after an error.

    Args:
        config: Where and how.
        registry: Where to count; nothing is registered without one.
        producer: Makes the Kafka client; called at ``start``.
    """

    def __init__(
        self,
        config: KafkaConfig,
        *,
        registry: CollectorRegistry | None = None,
        producer: Callable[[KafkaConfig], RecordProducer] = _aiokafka_producer,
    ) -> None:
        super().__init__(registry=registry)
        self._config = config
        self._make_producer = producer
        self._producer: RecordProducer | None = None

    @property
    def publisher_type(self) -> str:
        """``kafka``."""
        return "kafka"

    async def start(self) -> None:
        """Connect.

        Raises:
            ConfigurationError: The settings do not work.
            BrokerConnectionError: No broker could be reached.
        """
        producer = self._make_producer(self._config)
        refused: list[BaseException] = []
        try:
            with overhear(refused.append):
                await producer.start()
        except BaseException as error:
            await producer.stop()
            if isinstance(error, KafkaError):
                brokers = ", ".join(self._config.brokers)
                if (line := explain(refused[-1] if refused else error)) is not None:
                    raise BrokerConnectionError(f"{brokers}: {line}") from error
                reason = "is Kafka running there?" if isinstance(error, KafkaConnectionError) else str(error)
                raise BrokerConnectionError(f"no broker answers at {brokers}: {reason}") from error
            raise
        self._producer = producer

    async def stop(self) -> None:
        """Send what is under way, and disconnect."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def _send(self, events: Sequence[CloudEvent]) -> list[EventError | None]:
        if self._producer is None:
            raise ConfigurationError("the publisher is not started: use it with `async with`, or call start()")
        outcomes: list[EventError | None] = [None] * len(events)
        pending = list(range(len(events)))
        for attempt in range(self._config.retries + 1):
            if attempt:
                await asyncio.sleep(min(_RETRY_BACKOFF_S * 2 ** (attempt - 1), _MAX_RETRY_BACKOFF_S))
            errors = await self._attempt(self._producer, [events[index] for index in pending])
            for index, error in zip(pending, errors, strict=True):
                outcomes[index] = error
            pending = [index for index in pending if (error := outcomes[index]) is not None and error.retriable]
            if not pending:
                break
        return outcomes

    async def _attempt(self, producer: RecordProducer, events: Sequence[CloudEvent]) -> list[EventError | None]:
        """Send all events together: the topics side by side, in order within each."""
        by_topic: dict[str, list[int]] = {}
        for index, event in enumerate(events):
            topic = topic_of(event.type, self._config.topic_prefix, self._config.topic_layout)
            by_topic.setdefault(topic, []).append(index)
        results = await asyncio.gather(
            *(_send_in_order(producer, topic, [events[index] for index in found]) for topic, found in by_topic.items())
        )
        outcomes: list[EventError | None] = [None] * len(events)
        for found, errors in zip(by_topic.values(), results, strict=True):
            for index, error in zip(found, errors, strict=True):
                outcomes[index] = error
        return outcomes


async def _send_in_order(producer: RecordProducer, topic: str, events: Sequence[CloudEvent]) -> list[EventError | None]:
    waiting: list[asyncio.Future[Any]] = []
    refused: dict[int, EventError] = {}
    for index, event in enumerate(events):
        try:
            future = await producer.send(
                topic, value=event.posted, key=record_key(event), headers=list(STRUCTURED_HEADERS)
            )
            waiting.append(future)
        except KafkaError as error:
            failure = _event_error(error, topic)
            if isinstance(error, MessageSizeTooLargeError):
                refused[index] = failure
                continue
            # The topic cannot be reached: the rest of it would wait as long, one event after another.
            refused.update((rest, failure) for rest in range(index, len(events)))
            break
    acknowledgements = iter(await asyncio.gather(*waiting, return_exceptions=True))
    return [
        refused[index] if index in refused else _outcome(next(acknowledgements), topic) for index in range(len(events))
    ]


def _outcome(result: Any, topic: str) -> EventError | None:
    if isinstance(result, KafkaError):
        return _event_error(result, topic)
    if isinstance(result, BaseException):
        raise result
    return None


def _event_error(error: KafkaError, topic: str) -> EventError:
    if isinstance(error, KafkaConnectionError | NodeNotReadyError):
        return BrokerConnectionError(f"the broker of {topic} cannot be reached: {error}")
    if isinstance(error, UnknownTopicOrPartitionError):
        return PublishFailed(f"{topic}: there is no such topic: create it (`vault-stream topics apply`)")
    if (line := explain(error, "Write", topic)) is not None:
        return PublishFailed(line)
    if isinstance(error, KafkaTimeoutError):
        return PublishFailed(f"{topic}: no acknowledgement in time", retriable=True)
    return PublishFailed(f"{topic}: {error}", retriable=bool(error.retriable))
