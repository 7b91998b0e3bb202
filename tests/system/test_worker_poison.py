"""A malformed record between two good ones: the good ones are handled, the bad one is kept as it came."""

import base64

import pytest
from confluent_kafka import Producer

from app.events import VaultEventType, encode_structured, partition_for, record_key, topic_of
from app.publishing import VaultEvent, checked
from tests.support.workers import Deployment

pytestmark = pytest.mark.kafka

TYPE = VaultEventType.RECORDS_INGESTED
MALFORMED = b'{"specversion":"1.0","id":"cut off in the mid'


async def test_a_malformed_record_is_in_quarantine_and_its_neighbours_are_delivered(deployment: Deployment) -> None:
    await deployment.start("w1")
    hook = await deployment.hook("*")
    good = [VaultEvent.new(TYPE, "/vault", {"dataset_id": "ds-1", "record_count": n}) for n in (1, 2)]
    topic, key = topic_of(TYPE, deployment.topics.prefix), record_key(checked(good[0]))
    first, second = (encode_structured(checked(event)) for event in good)

    producer = Producer({"bootstrap.servers": deployment.brokers, "partitioner": "murmur2_random", "log_level": 0})
    for value in (first, MALFORMED, second):
        producer.produce(topic, value, key, headers={"x-trace": b"abc"})
    assert producer.flush(30) == 0

    dashboard = deployment.upstreams.dashboard
    await deployment.observed(lambda: hook.receiver.accepted == hook.expected(good), "both good ones delivered")
    await deployment.observed(lambda: hook.expected(good) <= dashboard.events, "both good ones audited")
    await deployment.idle()
    (record,) = await deployment.read(deployment.topics.quarantine)
    partition = partition_for(key, 4)
    assert record.key() == f"{topic}/{partition}/1".encode()
    assert record.value() == MALFORMED
    headers = dict(record.headers())
    assert headers["x-trace"] == b"abc"
    assert headers["vs-reason"] == b"invalid_envelope"
    assert headers["vs-detail"]
    assert (headers["vs-topic"], headers["vs-partition"], headers["vs-offset"]) == (
        topic.encode(),
        b"%d" % partition,
        b"1",
    )
    assert base64.b64decode(headers["vs-key"]) == key
    assert headers["vs-agent"] == b"router"
