import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from app.events import VaultEventType, decode_record
from app.publishing import (
    BrokerConnectionError,
    ConfigurationError,
    KafkaAcks,
    KafkaConfig,
    KafkaEventPublisher,
    KafkaSecurity,
    PublishFailed,
    VaultEvent,
)

CONFIG = KafkaConfig(brokers=["broker:9092"], retries=0)


class FakeProducer:
    """A client whose futures the test resolves, or which fails as told."""

    def __init__(self, *, automatic: bool = True) -> None:
        self.sent: list[dict[str, Any]] = []
        self.futures: list[asyncio.Future[None]] = []
        self.refuse_start: KafkaError | None = None
        self.refuse_send: dict[str, list[KafkaError]] = {}
        self.fail: list[KafkaError | None] = []
        self.running = False
        self._automatic = automatic
        self.all_sent = asyncio.Event()
        self.awaited = 0

    async def start(self) -> None:
        if self.refuse_start is not None:
            raise self.refuse_start
        self.running = True

    async def stop(self) -> None:
        self.running = False

    async def send(
        self, topic: str, *, value: bytes, key: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> "asyncio.Future[None]":
        if self.refuse_send.get(topic):
            raise self.refuse_send[topic].pop(0)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent.append({"topic": topic, "value": value, "key": key, "headers": headers})
        self.futures.append(future)
        if self._automatic:
            error = self.fail.pop(0) if self.fail else None
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
        if len(self.sent) == self.awaited:
            self.all_sent.set()
        return future


def publisher(producer: FakeProducer, config: KafkaConfig = CONFIG) -> KafkaEventPublisher:
    return KafkaEventPublisher(config, producer=lambda _: producer)


def deleted(dataset: str = "ds-1") -> VaultEvent:
    return VaultEvent.new(VaultEventType.DATASET_DELETED, "/vault", {"dataset_id": dataset})


def degraded() -> VaultEvent:
    return VaultEvent.new(VaultEventType.HEALTH_DEGRADED, "/vault", {"component": "storage"})


async def test_an_event_goes_structured_to_its_topic_under_its_key() -> None:
    producer = FakeProducer()
    event = deleted()
    async with publisher(producer) as kafka:
        await kafka.publish(event)
        assert kafka.publisher_type == "kafka"
    (sent,) = producer.sent
    assert (sent["topic"], sent["key"]) == ("vault.llm-data-vault-dataset-deleted", b"ds-1")
    back = decode_record(sent["value"], sent["headers"])
    assert (back.id, back.subject) == (event.id, "ds-1")
    assert not producer.running


async def test_all_records_of_a_batch_are_in_flight_before_the_first_acknowledgement() -> None:
    producer = FakeProducer(automatic=False)
    producer.awaited = 50
    events = [deleted() if number % 2 else degraded() for number in range(50)]
    async with publisher(producer) as kafka:
        batch = asyncio.create_task(kafka.publish_batch(events))
        await asyncio.wait_for(producer.all_sent.wait(), 5)
        assert not batch.done()
        for future in reversed(producer.futures):
            future.set_result(None)
        assert (await batch).successful == 50


async def test_events_of_one_topic_keep_their_order() -> None:
    producer = FakeProducer()
    events = [deleted(f"ds-{number}") for number in range(20)]
    async with publisher(producer) as kafka:
        await kafka.publish_batch(events)
    assert [sent["key"] for sent in producer.sent] == [f"ds-{number}".encode() for number in range(20)]


async def test_each_failure_is_reported_with_its_event_so_that_just_those_can_be_sent_again() -> None:
    producer = FakeProducer()
    producer.fail = [None, TopicAuthorizationFailedError(), None]
    events = [deleted("a"), deleted("b"), deleted("c")]
    async with publisher(producer) as kafka:
        result = await kafka.publish_batch(events)
        assert (result.successful, result.failed) == (2, 1)
        (failure,) = result.errors
        assert (failure.index, failure.event_id) == (1, events[1].id)
        assert isinstance(failure.error, PublishFailed)
        assert not failure.error.retriable
        again = await kafka.publish_batch([events[failure.index] for failure in result.errors])
    assert again.failed == 0
    assert [sent["key"] for sent in producer.sent] == [b"a", b"b", b"c", b"b"]


async def test_an_error_that_may_pass_is_tried_again_as_often_as_configured() -> None:
    producer = FakeProducer()
    producer.fail = [NotLeaderForPartitionError(), None, NotLeaderForPartitionError()]
    events = [deleted("a"), deleted("b")]
    async with publisher(producer, KafkaConfig(brokers=["b:1"], retries=2)) as kafka:
        result = await kafka.publish_batch(events)
    assert result.failed == 0
    assert [sent["key"] for sent in producer.sent] == [b"a", b"b", b"a", b"a"]


async def test_a_topic_that_cannot_be_reached_fails_its_own_events_only() -> None:
    producer = FakeProducer()
    producer.refuse_send["vault.llm-data-vault-dataset-deleted"] = [UnknownTopicOrPartitionError()]
    async with publisher(producer) as kafka:
        result = await kafka.publish_batch([deleted(), degraded(), deleted()])
    assert (result.successful, result.failed) == (1, 2)
    assert [failure.index for failure in result.errors] == [0, 2]
    assert all("topics apply" in str(failure.error) for failure in result.errors)


async def test_a_record_that_the_client_finds_too_large_fails_alone() -> None:
    producer = FakeProducer()
    producer.refuse_send["vault.llm-data-vault-dataset-deleted"] = [MessageSizeTooLargeError()]
    async with publisher(producer) as kafka:
        result = await kafka.publish_batch([deleted(), deleted()])
    assert [failure.index for failure in result.errors] == [0]


@pytest.mark.parametrize(
    ("error", "kind", "retriable"),
    [
        (KafkaConnectionError("gone"), BrokerConnectionError, True),
        (KafkaTimeoutError(), PublishFailed, True),
        (NotLeaderForPartitionError(), PublishFailed, True),
        (TopicAuthorizationFailedError(), PublishFailed, False),
    ],
)
async def test_a_client_error_becomes_one_of_ours(error: KafkaError, kind: type[Exception], retriable: bool) -> None:
    producer = FakeProducer()
    producer.fail = [error]
    async with publisher(producer) as kafka:
        with pytest.raises(kind) as caught:
            await kafka.publish(deleted())
    assert caught.value.retriable is retriable  # type: ignore[attr-defined]  # all of ours have it


async def test_a_broker_that_is_not_there_is_a_connection_error_that_names_it() -> None:
    producer = FakeProducer()
    producer.refuse_start = KafkaConnectionError("refused")
    with pytest.raises(BrokerConnectionError, match="broker:9092"):
        await publisher(producer).start()


async def test_a_real_client_without_a_broker_is_a_connection_error_and_leaks_nothing() -> None:
    with pytest.raises(BrokerConnectionError, match=r"127\.0\.0\.1:9"):
        await KafkaEventPublisher(KafkaConfig(brokers=["127.0.0.1:9"], delivery_timeout_s=1)).start()


async def test_a_publisher_that_was_not_started_says_so() -> None:
    with pytest.raises(ConfigurationError, match="not started"):
        await publisher(FakeProducer()).publish(deleted())


def test_by_default_the_producer_is_idempotent_acknowledged_by_all_and_compressed() -> None:
    options = KafkaConfig(brokers=["b:1"]).client_options()
    assert options["enable_idempotence"] is True
    assert options["acks"] == "all"
    assert options["compression_type"] == "lz4"


@pytest.mark.parametrize(("acks", "client"), [(KafkaAcks.NONE, 0), (KafkaAcks.LEADER, 1)])
def test_below_all_the_producer_is_not_idempotent(acks: KafkaAcks, client: int) -> None:
    options = KafkaConfig(brokers=["b:1"], acks=acks, compression="none").client_options()
    assert (options["acks"], options["enable_idempotence"], options["compression_type"]) == (client, False, None)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"brokers": []}, "brokers"),
        ({"brokers": "b:1"}, "brokers"),
        ({"brokers": ["b:1"], "retries": -1}, "retries"),
        ({"brokers": ["b:1"], "topic_layout": "many"}, "topic_layout"),
        ({"brokers": ["b:1"], "delivery_timeout_s": 0}, "delivery_timeout_s"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        KafkaConfig(**settings)


def test_credentials_reach_the_client_and_never_a_repr() -> None:
    security = KafkaSecurity(protocol="SASL_PLAINTEXT", sasl_username="u", sasl_password="hidden")
    config = KafkaConfig(brokers=["b:1"], security=security)
    assert config.client_options()["sasl_plain_password"] == "hidden"
    assert "hidden" not in repr(config)


def test_a_certificate_that_cannot_be_read_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="ssl_ca"):
        KafkaSecurity(protocol="SSL", ssl_ca="/nowhere/ca.pem").client_options()
