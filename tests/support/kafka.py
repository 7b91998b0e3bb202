"""The real broker of a test run: one, started by the first test that asks for it, gone with the run."""

import os
import uuid
from collections.abc import Callable, Iterator

import pytest

from app.devstack.jars import JarsError, missing_for_kafka
from app.devstack.kafka import KafkaServer


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


@pytest.fixture
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A running Apache Kafka of one test, which may stop, freeze or kill it."""
    require_kafka()
    server = _started(tmp_path_factory)
    yield server
    server.kill()


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Makes names that no other test of the run uses: `unique("orders")`."""
    return lambda name: f"{name}-{uuid.uuid4().hex[:12]}"


def _started(factory: pytest.TempPathFactory) -> KafkaServer:
    server = KafkaServer(factory.mktemp("kafka"), leash=True)
    try:
        server.start()
    except JarsError as error:
        server.kill()
        pytest.fail(str(error))
    return server
