"""Publish vault events (contracts 1.3): the package that vault services import.

It imports neither Faust nor RocksDB, and starts nothing until a publisher is started::

    from app.publishing import KafkaConfig, KafkaEventPublisher, VaultEvent, VaultEventType

    async with KafkaEventPublisher(KafkaConfig(brokers=["localhost:9092"])) as publisher:
        event = VaultEvent.new(VaultEventType.DATASET_DELETED, "/vault/datasets", {"dataset_id": "ds-1"})
        await publisher.publish(event)

Errors: ``EventError`` and, under it, ``ConfigurationError``, ``SerializationError``, ``PublishFailed`` and
``BrokerConnectionError``.
"""

from app.events import VaultEventType
from app.publishing.errors import (
    BrokerConnectionError,
    ConfigurationError,
    EventError,
    PublishFailed,
    SerializationError,
)
from app.publishing.event import VaultEvent, checked
from app.publishing.kafka import KafkaAcks, KafkaConfig, KafkaEventPublisher, KafkaSecurity
from app.publishing.metrics import EventMetrics
from app.publishing.publisher import (
    BatchPublishResult,
    EventPublisher,
    InMemoryEventPublisher,
    PublishedRecord,
    PublishError,
)

__all__ = [
    "BatchPublishResult",
    "BrokerConnectionError",
    "ConfigurationError",
    "EventError",
    "EventMetrics",
    "EventPublisher",
    "InMemoryEventPublisher",
    "KafkaAcks",
    "KafkaConfig",
    "KafkaEventPublisher",
    "KafkaSecurity",
    "PublishError",
    "PublishFailed",
    "PublishedRecord",
    "SerializationError",
    "VaultEvent",
    "VaultEventType",
    "checked",
]
