"""The publisher against a real broker: what it sends is what a reader gets, and where it belongs."""

import contextlib
from collections.abc import Callable

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from app.devstack.kafka import KafkaServer
from app.events import VaultEventType, decode_record, partition_for, topic_of
from app.publishing import KafkaConfig, KafkaEventPublisher, PublishFailed, VaultEvent

pytestmark = pytest.mark.kafka

PARTITIONS = 4
DELETED = VaultEventType.DATASET_DELETED


def deleted(number: int) -> VaultEvent:
    return VaultEvent.new(DELETED, "/vault", {"dataset_id": f"ds-{number % 10}", "reason": str(number)})


async def make_topic(bootstrap: str, topic: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        stack.push_async_callback(admin.close)
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])


async def test_a_batch_arrives_whole_in_order_and_on_the_partitions_of_its_keys(
    kafka: KafkaServer, unique: Callable[[str], str]
) -> None:
    prefix = unique("publish")
    topic = topic_of(DELETED, prefix)
    await make_topic(kafka.bootstrap, topic)
    events = [deleted(number) for number in range(500)]
    async with KafkaEventPublisher(KafkaConfig(brokers=[kafka.bootstrap], topic_prefix=prefix)) as publisher:
        result = await publisher.publish_batch(events)
    assert (result.successful, result.failed) == (500, 0)

    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, number) for number in range(PARTITIONS)])
        records = [await consumer.getone() for _ in events]
    finally:
        await consumer.stop()
    assert {decode_record(found.value, found.headers).id for found in records} == {event.id for event in events}
    assert all(found.partition == partition_for(found.key, PARTITIONS) for found in records)
    for number in range(PARTITIONS):
        seen = [int(decode_record(r.value, r.headers).data["reason"]) for r in records if r.partition == number]
        assert seen == sorted(seen)


async def test_a_topic_that_is_not_there_is_said_so_and_other_events_arrive(
    kafka: KafkaServer, unique: Callable[[str], str]
) -> None:
    prefix = unique("publish")
    await make_topic(kafka.bootstrap, topic_of(DELETED, prefix))
    lost = VaultEvent.new(VaultEventType.HEALTH_DEGRADED, "/vault", {"component": "storage"})
    config = KafkaConfig(brokers=[kafka.bootstrap], topic_prefix=prefix, delivery_timeout_s=2)
    async with KafkaEventPublisher(config) as publisher:
        result = await publisher.publish_batch([deleted(1), lost, deleted(2)])
    (failure,) = result.errors
    assert failure.event_id == lost.id
    assert isinstance(failure.error, PublishFailed)
    assert "there is no such topic" in str(failure.error)
