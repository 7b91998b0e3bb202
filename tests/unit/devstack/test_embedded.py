from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from app.devstack.broker import RunningBroker, running_broker
from app.devstack.embedded import EMBEDDED_PARTITIONS
from app.topics import TopicAdmin, Topics, check, client_config, plan

TOPICS = Topics("vault", "app")
SPECS = plan(TOPICS, partitions=EMBEDDED_PARTITIONS, replication=1)


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    with running_broker("embedded", Path("unused")) as running:
        yield running


def test_it_speaks_the_real_protocol(broker: RunningBroker) -> None:
    errors: list[object] = []
    producer = Producer({"bootstrap.servers": broker.bootstrap, "enable.idempotence": True, "log_level": 0})
    producer.produce("greeting", b"hello", on_delivery=lambda error, _message: errors.append(error))
    assert producer.flush(15) == 0
    assert errors == [None]


def test_it_creates_the_topics_of_the_plan_with_its_own_four_partitions(broker: RunningBroker) -> None:
    broker.create_topics(SPECS)
    admin = TopicAdmin(client_config(broker.bootstrap))
    assert check(SPECS, admin) == ()
    found = admin.existing([spec.name for spec in SPECS])
    assert {topic.partitions for topic in found.values()} == {EMBEDDED_PARTITIONS}


def test_it_can_be_told_from_a_real_broker(broker: RunningBroker) -> None:
    assert TopicAdmin(client_config(broker.bootstrap)).embedded
