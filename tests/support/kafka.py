"""The real brokers of a test run: one for all and one to be rough with, started by the first test that asks for it."""

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from app.devstack.jars import JarsError, missing_for_kafka
from app.devstack.kafka import READY_TIMEOUT_S, KafkaServer


def require_kafka() -> None:
    """Skips without Java or Maven; under CI=true that is a failure, for a skipped proof proves nothing."""
    missing = missing_for_kafka()
    if missing is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A running Apache Kafka, shared by the whole run: use topic, group and application ids of your own."""
    require_kafka()
    server = _started(tmp_path_factory)
    yield server
    server.kill()


@pytest.fixture(scope="session")
def _second_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    require_kafka()
    server = _started(tmp_path_factory)
    yield server
    server.kill()


@pytest.fixture
def own_kafka(_second_kafka: KafkaServer) -> Iterator[KafkaServer]:
    """A running Apache Kafka that one test at a time has for itself, to stop, freeze or kill it.

    Others had it before: use topic, group and application ids of your own.
    """
    _second_kafka.start()
    _wait_until_it_makes_topics(_second_kafka)
    yield _second_kafka
    pid = _second_kafka.pid
    if pid is not None:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Makes names that no other test of the run uses: `unique("orders")`."""
    return lambda name: f"{name}-{uuid.uuid4().hex[:12]}"


def _wait_until_it_makes_topics(server: KafkaServer) -> None:
    """Its controller takes a broker that was frozen for dead, until that one has spoken again."""
    ends_s = time.monotonic() + READY_TIMEOUT_S
    client = AdminClient({"bootstrap.servers": server.bootstrap, "log_level": 0})
    while True:
        name = f"probe-{uuid.uuid4().hex}"
        try:
            client.create_topics([NewTopic(name, 1, 1)], request_timeout=10)[name].result(20)
        except KafkaException:
            if time.monotonic() > ends_s:
                raise
            time.sleep(0.1)
        else:
            return


def _started(factory: pytest.TempPathFactory) -> KafkaServer:
    server = KafkaServer(factory.mktemp("kafka"), leash=True)
    try:
        server.start()
    except JarsError as error:
        server.kill()
        pytest.fail(str(error))
    return server
