"""One test for each private name of Faust and aiokafka that the engine uses, so that an upgrade fails here."""

import asyncio
import importlib.metadata
import inspect

import aiokafka.consumer.fetcher as aiokafka_fetcher
import faust.transport.drivers.aiokafka as driver
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.producer.message_accumulator import MessageAccumulator
from aiokafka.producer.sender import Sender
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.record.default_records import _DefaultRecordBatchPy
from faust.tables import TableManager
from faust.transport.consumer import Consumer as FaustConsumer
from faust.transport.consumer import Fetcher

from app.engine.producer import _SENDER_COROUTINES


@pytest.mark.parametrize(("package", "version"), [("faust-streaming", "0.15.3"), ("aiokafka", "0.14.0")])
def test_the_versions_are_the_ones_whose_private_names_were_read(package: str, version: str) -> None:
    assert importlib.metadata.version(package) == version


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (driver.AIOKafkaConsumerThread, "_create_worker_consumer", ["self", "transport"]),
        (driver.AIOKafkaConsumerThread, "getmany", ["self", "active_partitions", "timeout"]),
        (driver.Consumer, "_new_consumer_thread", ["self"]),
        (driver.Consumer, "_to_message", ["self", "tp", "record"]),
        (driver.Consumer, "verify_event_path", ["self", "now", "tp"]),
        (FaustConsumer, "_drain_messages", ["self", "fetcher"]),
        (FaustConsumer, "_filter_tps_with_pending_acks", ["self", "topics"]),
        (FaustConsumer, "commit", ["self", "topics", "start_new_transaction"]),
        (FaustConsumer, "ack", ["self", "message"]),
        (FaustConsumer, "on_partitions_revoked", ["self", "revoked"]),
        (FaustConsumer, "perform_seek", ["self"]),
        (GroupCoordinator, "_do_heartbeat", ["self"]),
        (GroupCoordinator, "check_errors", ["self"]),
        (GroupCoordinator, "request_rejoin", ["self"]),
        (GroupCoordinator, "ensure_coordinator_known", ["self"]),
        (GroupCoordinator, "fetch_committed_offsets", ["self", "partitions"]),
        (TableManager, "sleep", ["self", "n"]),
        (SubscriptionState, "fetch_context", ["self"]),
        (AIOKafkaClient, "_get_conn", ["self", "node_id", "group", "no_hint"]),
        (AIOKafkaClient, "bootstrap", ["self"]),
        (AIOKafkaClient, "coordinator_lookup", ["self", "coordinator_type", "coordinator_key"]),
        (AIOKafkaConnection, "close", ["self", "reason", "exc"]),
        (MessageAccumulator, "fail_all", ["self", "exception"]),
        (Sender, "start", ["self"]),
        (Sender, "_find_coordinator", ["self", "coordinator_type", "coordinator_key"]),
        (Sender, "_coordinator_dead", ["self", "coordinator_type"]),
        (TransactionManager, "set_pid_and_epoch", ["self", "pid", "epoch"]),
    ],
)
def test_a_method_is_there_with_the_parameters_we_rely_on(owner: type, name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


@pytest.mark.parametrize("name", _SENDER_COROUTINES)
def test_the_senders_children_are_coroutines_that_we_can_follow(name: str) -> None:
    assert inspect.iscoroutinefunction(getattr(Sender, name))


async def test_a_consumer_has_the_attributes_that_we_set_and_read() -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1", group_id="g")

    assert consumer._fetch_max_wait_ms == 500
    assert consumer._partition_assignment_strategy
    assert consumer._coordinator is None
    assert callable(consumer._client.cluster.partitions_for_topic)
    assert isinstance(consumer._subscription, SubscriptionState)
    consumer._closed = True


async def test_the_coordinator_keeps_generation_member_and_rejoin_under_the_names_we_read() -> None:
    source = inspect.getsource(GroupCoordinator.__init__)

    for name in ("generation", "member_id", "_rejoin_needed_fut", "_coordination_task"):
        assert f"self.{name} =" in source or f"self.{name}:" in source


async def test_a_producer_has_what_a_hard_close_takes_apart() -> None:
    producer = AIOKafkaProducer(bootstrap_servers="127.0.0.1:1", transactional_id="t")

    assert producer._closed is False
    assert producer._loop is asyncio.get_running_loop()
    assert producer._sender._sender_task is None
    assert producer.client._conns == {}
    assert producer.client._sync_task is None
    assert isinstance(producer._message_accumulator, MessageAccumulator)
    assert producer._txn_manager.transactional_id == "t"
    assert producer._txn_manager.transaction_timeout_ms == 60_000
    assert producer._txn_manager._pid_and_epoch == (-1, -1)
    assert producer._txn_manager._transaction_waiter is None
    producer._closed = True


def test_a_connection_keeps_its_writer_under_the_name_we_abort() -> None:
    assert "self._writer" in inspect.getsource(AIOKafkaConnection)


def test_aiokafkas_fetcher_parses_what_it_fetched_by_the_name_that_we_replace() -> None:
    assert "records = MemoryRecords(" in inspect.getsource(aiokafka_fetcher.Fetcher)
    assert callable(_DefaultRecordBatchPy._maybe_uncompress)
    assert '.decode("utf-8")' in inspect.getsource(_DefaultRecordBatchPy._read_msg)


def test_faust_hands_its_fetcher_to_our_drain_loop() -> None:
    assert "_drain_messages(self)" in inspect.getsource(Fetcher)
