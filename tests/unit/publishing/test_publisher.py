import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry

import app.publishing
from app.events import VaultEventType
from app.publishing import EventError, InMemoryEventPublisher, SerializationError, VaultEvent

GOOD = VaultEvent.new(VaultEventType.DATASET_DELETED, "/vault", {"dataset_id": "ds-1"})
BAD = VaultEvent.new(VaultEventType.DATASET_DELETED, "/vault", {})


async def test_an_event_is_kept_with_the_topic_and_key_that_kafka_would_see() -> None:
    async with InMemoryEventPublisher(topic_prefix="acme") as publisher:
        await publisher.publish(GOOD)
    (record,) = publisher.records
    assert (record.topic, record.key) == ("acme.llm-data-vault-dataset-deleted", b"ds-1")
    assert publisher.events[0].id == GOOD.id
    assert publisher.publisher_type == "memory"


async def test_the_single_layout_puts_all_on_one_topic() -> None:
    publisher = InMemoryEventPublisher(topic_layout="single")
    await publisher.publish(GOOD)
    assert publisher.records[0].topic == "vault.events"


async def test_an_event_that_breaks_the_rules_is_refused() -> None:
    publisher = InMemoryEventPublisher()
    with pytest.raises(SerializationError, match="dataset_id"):
        await publisher.publish(BAD)
    assert publisher.records == []


async def test_a_batch_reports_each_failure_with_its_event_and_sends_the_rest() -> None:
    publisher = InMemoryEventPublisher()
    result = await publisher.publish_batch([GOOD, BAD, GOOD])
    assert (result.successful, result.failed) == (2, 1)
    (failure,) = result.errors
    assert (failure.index, failure.event_id) == (1, BAD.id)
    assert isinstance(failure.error, SerializationError)
    assert str(failure).startswith(BAD.id)
    assert len(publisher.records) == 2


async def test_an_empty_batch_is_a_success_of_nothing() -> None:
    result = await InMemoryEventPublisher().publish_batch([])
    assert (result.successful, result.failed, result.errors) == (0, 0, ())


async def test_published_and_failed_are_counted_by_type_on_the_registry_that_was_passed() -> None:
    registry = CollectorRegistry()
    publisher = InMemoryEventPublisher(registry=registry)
    await publisher.publish_batch([GOOD, BAD, GOOD])
    labels = {"publisher": "memory", "type": GOOD.type}
    assert registry.get_sample_value("vault_events_published_total", labels) == 2
    assert registry.get_sample_value("vault_events_failed_total", labels) == 1
    assert registry.get_sample_value("vault_events_publish_seconds_count", {"publisher": "memory"}) == 1


async def test_two_publishers_of_a_service_share_its_registry() -> None:
    registry = CollectorRegistry()
    for _ in range(2):
        await InMemoryEventPublisher(registry=registry).publish(GOOD)
    labels = {"publisher": "memory", "type": GOOD.type}
    assert registry.get_sample_value("vault_events_published_total", labels) == 2


def test_there_are_four_errors_under_one() -> None:
    names = {"ConfigurationError", "SerializationError", "PublishFailed", "BrokerConnectionError"}
    assert {error.__name__ for error in EventError.__subclasses__()} == names
    assert names < set(app.publishing.__all__)


def test_importing_the_publisher_imports_neither_faust_nor_rocksdb_and_registers_no_metric() -> None:
    code = (
        "import sys, app.publishing, prometheus_client as p\n"
        "print(sorted({'faust', 'mode', 'rocksdict', 'app.engine', 'app.settings'} & set(sys.modules)))\n"
        "print([m.name for m in p.REGISTRY.collect() if m.name.startswith('vault')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]


def test_every_public_name_is_there_once() -> None:
    assert all(hasattr(app.publishing, name) for name in app.publishing.__all__)
    assert len(app.publishing.__all__) == len(set(app.publishing.__all__))
