"""The development broker, on the real Apache Kafka."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource

from app.devstack.kafka import KafkaServer, KafkaServerError, free_port, port_is_free
from app.topics import QUARANTINE_MAX_BYTES, TopicAdmin, Topics, TopicSpec, apply, check, client_config, plan

pytestmark = pytest.mark.kafka


def create(server: KafkaServer, name: str, partitions: int = 1) -> None:
    TopicAdmin(client_config(server.bootstrap)).create([TopicSpec(name, partitions, 1, {})])


def produce(server: KafkaServer, topic: str, value: bytes, **config: str) -> None:
    producer = Producer({"bootstrap.servers": server.bootstrap, "log_level": 0, "message.timeout.ms": 10_000, **config})
    failures = []
    producer.produce(topic, value, on_delivery=lambda error, _message: failures.append(error) if error else None)
    assert producer.flush(15) == 0
    if failures:
        raise AssertionError(failures[0])


def first_record(server: KafkaServer, topic: str) -> bytes:
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": "reader", "log_level": 0})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        message = consumer.poll(15)
        assert message is not None
        assert message.error() is None
        return bytes(message.value())
    finally:
        consumer.close()


def test_it_serves_and_creates_no_topic_unasked(kafka: KafkaServer, unique: Callable[[str], str]) -> None:
    name = unique("unasked")
    client = AdminClient(client_config(kafka.bootstrap))
    assert client.list_topics(name, timeout=10).topics[name].error is not None
    assert name not in client.list_topics(timeout=10).topics


def test_what_was_acknowledged_survives_kill_9_and_a_restart_on_the_same_disk(
    own_kafka: KafkaServer, unique: Callable[[str], str]
) -> None:
    # given an acknowledged record
    bootstrap, kept = own_kafka.bootstrap, unique("kept")
    create(own_kafka, kept)
    produce(own_kafka, kept, b"first")
    # when the broker is killed and started again
    own_kafka.kill()
    assert own_kafka.status().running is False
    own_kafka.start()
    # then the record is there, at the same address
    assert own_kafka.bootstrap == bootstrap
    assert first_record(own_kafka, kept) == b"first"


def test_transactions_work_on_one_node(kafka: KafkaServer, unique: Callable[[str], str]) -> None:
    topic = unique("transactional")
    create(kafka, topic)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": unique("tx"), "log_level": 0})
    producer.init_transactions(15)
    producer.begin_transaction()
    producer.produce(topic, b"committed")
    producer.commit_transaction(15)
    assert first_record(kafka, topic) == b"committed"


def test_a_taken_port_is_one_clear_error(kafka: KafkaServer, tmp_path: Path) -> None:
    taken = int(kafka.bootstrap.rpartition(":")[2])
    with pytest.raises(KafkaServerError, match=f"port {taken} is in use"):
        KafkaServer(tmp_path, taken).start()


def test_apply_creates_the_whole_plan_and_then_nothing_is_to_do(
    kafka: KafkaServer, unique: Callable[[str], str]
) -> None:
    # given the topics of a fresh deployment
    topics = Topics(unique("vault"), unique("app"))
    specs = plan(topics, partitions=3, replication=1)
    admin = TopicAdmin(client_config(kafka.bootstrap))
    assert all(difference.missing for difference in check(specs, admin))
    # when they are applied
    assert apply(specs, admin) == ()
    # then the broker agrees with the plan, and a second run changes nothing
    assert check(specs, admin) == ()
    assert apply(specs, admin) == ()


def test_apply_leaves_a_topic_that_differs_alone_and_says_so(kafka: KafkaServer, unique: Callable[[str], str]) -> None:
    topics = Topics(unique("vault"), unique("app"))
    specs = plan(topics, partitions=3, replication=1)
    admin = TopicAdmin(client_config(kafka.bootstrap))
    create(kafka, topics.deliveries, partitions=5)
    remaining = apply(specs, admin)
    assert [str(difference) for difference in remaining] == [f"{topics.deliveries}: partitions is 5, wanted 3"]
    assert admin.existing([topics.deliveries])[topics.deliveries].partitions == 5


def test_quarantine_takes_a_record_of_a_mebibyte_with_our_headers(
    kafka: KafkaServer, unique: Callable[[str], str]
) -> None:
    topics = Topics(unique("vault"), unique("app"))
    apply(plan(topics, partitions=1, replication=1), TopicAdmin(client_config(kafka.bootstrap)))
    produce(kafka, topics.quarantine, b"x" * (1024 * 1024 + 4096), **{"message.max.bytes": str(QUARANTINE_MAX_BYTES)})


def test_commands_carry_the_brokers_clock(kafka: KafkaServer, unique: Callable[[str], str]) -> None:
    topics = Topics(unique("vault"), unique("app"))
    admin = AdminClient(client_config(kafka.bootstrap))
    apply(plan(topics, partitions=1, replication=1), TopicAdmin(client_config(kafka.bootstrap)))
    for name in (topics.commands, topics.invalidations):
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        config = admin.describe_configs([resource])[resource].result(10)
        assert config["message.timestamp.type"].value == "LogAppendTime"


def run_cli(*arguments: str) -> dict[str, object]:
    result = subprocess.run(
        [sys.executable, "-m", "app", "kafka", *arguments, "--json"], capture_output=True, text=True, check=True
    )
    answer = json.loads(result.stdout)
    assert isinstance(answer, dict)
    return answer


def test_the_command_starts_a_broker_that_outlives_it_and_stops_it(kafka: KafkaServer, tmp_path: Path) -> None:
    data, port = str(tmp_path / "broker"), free_port()
    try:
        started = run_cli("start", "--data", data, "--port", str(port))
        assert started["running"] is True
        assert started["bootstrap"] == f"127.0.0.1:{port}"
        status = run_cli("status", "--data", data)
        assert status["pid"] == started["pid"]
    finally:
        stopped = run_cli("stop", "--data", data)
    assert stopped["running"] is False
    assert port_is_free(port)


def test_the_shipped_pom_names_no_address() -> None:
    pom = (Path(__file__).parents[2] / "app" / "devstack" / "kafka-pom.xml").read_text()
    assert "://" not in pom
