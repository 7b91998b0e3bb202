"""One test for each private name of Faust and aiokafka that the engine uses, so that an upgrade fails here."""

import asyncio
import inspect
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path

import aiokafka.consumer.fetcher as aiokafka_fetcher
import faust
import faust.transport.drivers.aiokafka as driver
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.codec import zstd_encode
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState, TopicPartitionState
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator, MessageBatch
from aiokafka.producer.sender import Sender
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import _DefaultRecordBatchPy
from faust.tables import TableManager
from faust.transport.consumer import Consumer as FaustConsumer
from faust.transport.consumer import Fetcher, ThreadDelegateConsumer
from mode import Service

from app.engine.producer import _SENDER_COROUTINES
from tests.unit.engine.private_names import ENGINE, private_names

FILES = ("consumer", "fetch_sessions", "fetching", "header_names", "leaving", "producer", "taking")
STANDARD_LIBRARY = {"_exit"}
HEAD_BYTES = 61
ZSTD = 4


def method(owner: type, name: str, *parameters: str) -> tuple[str, Callable[[], None]]:
    """It is there, with these parameters."""

    def check() -> None:
        assert tuple(inspect.signature(getattr(owner, name)).parameters) == ("self", *parameters)

    return name, check


def attribute(name: str, *owners: type) -> tuple[str, Callable[[], None]]:
    """Each of these classes sets it."""

    def check() -> None:
        for owner in owners:
            assert re.search(rf"self\.{name}(: [^=]+)? = ", inspect.getsource(owner)), owner

    return name, check


PRIVATE = dict([
    # Faust
    method(driver.AIOKafkaConsumerThread, "_create_worker_consumer", "transport"),
    method(driver.AIOKafkaConsumerThread, "_fetch_records", "consumer", "active_partitions", "timeout", "max_records"),
    attribute("_assignor", driver.AIOKafkaConsumerThread),
    attribute("_consumer", driver.AIOKafkaConsumerThread),
    method(driver.Consumer, "_new_consumer_thread"),
    method(driver.Producer, "_new_producer", "transactional_id"),
    attribute("_thread", ThreadDelegateConsumer),
    method(FaustConsumer, "_drain_messages", "fetcher"),
    method(FaustConsumer, "_filter_tps_with_pending_acks", "topics"),
    attribute("_unacked_messages", FaustConsumer),
    method(faust.App, "_stop_consumer"),
    method(faust.App, "_on_rebalance_when_stopped"),
    method(driver.AIOKafkaConsumerThread, "_gather_remaining_tasks"),
    attribute("_stopped", Service),
    # aiokafka's consumer
    attribute("_auto_offset_reset", AIOKafkaConsumer),
    attribute("_client", AIOKafkaConsumer),
    attribute("_closed", AIOKafkaConsumer, AIOKafkaProducer, aiokafka_fetcher.Fetcher),
    attribute("_coordinator", AIOKafkaConsumer),
    attribute("_fetch_max_wait_ms", AIOKafkaConsumer, aiokafka_fetcher.Fetcher),
    attribute("_fetcher", AIOKafkaConsumer),
    attribute("_isolation_level", AIOKafkaConsumer, aiokafka_fetcher.PartitionRecords),
    attribute("_records_iterator", aiokafka_fetcher.PartitionRecords),
    attribute("_partition_assignment_strategy", AIOKafkaConsumer),
    attribute("_subscription", AIOKafkaConsumer),
    attribute("_heartbeat_task", GroupCoordinator),
    attribute("_closing", GroupCoordinator),
    method(GroupCoordinator, "_do_heartbeat"),
    method(GroupCoordinator, "_do_rejoin_group", "subscription"),
    method(GroupCoordinator, "_maybe_leave_group"),
    method(GroupCoordinator, "_perform_assignment", "response"),
    attribute("_rejoin_needed_fut", GroupCoordinator),
    method(aiokafka_fetcher.Fetcher, "_create_fetch_waiter"),
    attribute("_records", aiokafka_fetcher.Fetcher, aiokafka_fetcher.PartitionRecords),
    method(aiokafka_fetcher.Fetcher, "_notify", "future"),
    attribute("_subscriptions", aiokafka_fetcher.Fetcher),
    attribute("_wait_consume_future", aiokafka_fetcher.Fetcher),
    attribute("_partition_records", aiokafka_fetcher.FetchResult),
    method(aiokafka_fetcher.FetchResult, "_update_position"),
    attribute("_aborted_producers", aiokafka_fetcher.PartitionRecords),
    method(aiokafka_fetcher.PartitionRecords, "_consume_aborted_up_to", "batch_offset"),
    method(aiokafka_fetcher.PartitionRecords, "_contains_abort_marker", "next_batch"),
    attribute("_tp", aiokafka_fetcher.PartitionRecords),
    attribute("_position", TopicPartitionState),
    attribute("_check_crcs", aiokafka_fetcher.Fetcher),
    attribute("_key_deserializer", aiokafka_fetcher.Fetcher),
    attribute("_value_deserializer", aiokafka_fetcher.Fetcher),
    attribute("_preferred_read_replica", aiokafka_fetcher.Fetcher),
    attribute("_prefetch_backoff", aiokafka_fetcher.Fetcher),
    attribute("_client_rack", aiokafka_fetcher.Fetcher),
    attribute("_fetch_max_bytes", aiokafka_fetcher.Fetcher),
    attribute("_fetch_min_bytes", aiokafka_fetcher.Fetcher),
    attribute("_fetcher_timeout", aiokafka_fetcher.Fetcher),
    attribute("_in_flight", aiokafka_fetcher.Fetcher),
    attribute("_max_partition_fetch_bytes", aiokafka_fetcher.Fetcher),
    attribute("_topics", FetchRequest),
    attribute("_retry_backoff", aiokafka_fetcher.Fetcher),
    method(aiokafka_fetcher.Fetcher, "_get_actions_per_node", "assignment"),
    method(aiokafka_fetcher.Fetcher, "_invalidate_preferred_read_replica_for_node", "node_id", "request"),
    method(aiokafka_fetcher.Fetcher, "_proc_fetch_request", "assignment", "node_id", "request"),
    method(aiokafka_fetcher.Fetcher, "_set_error", "tp", "error"),
    attribute("_max_bytes", FetchRequest),
    attribute("_max_wait_ms", FetchRequest),
    attribute("_min_bytes", FetchRequest),
    attribute("_rack_id", FetchRequest),
    # aiokafka's slow parser
    ("_DefaultRecordBatchPy", lambda: None),  # imported above
    attribute("_buffer", _DefaultRecordBatchPy),
    method(_DefaultRecordBatchPy, "_maybe_uncompress"),
    # aiokafka's producer
    attribute("_loop", AIOKafkaProducer),
    attribute("_message_accumulator", AIOKafkaProducer),
    attribute("_sender", AIOKafkaProducer),
    attribute("_txn_manager", AIOKafkaProducer),
    attribute("_conns", AIOKafkaClient),
    method(AIOKafkaClient, "_get_conn", "node_id", "group", "no_hint"),
    attribute("_sync_task", AIOKafkaClient),
    attribute("_writer", AIOKafkaConnection),
    attribute("_sender_task", Sender),
    method(Sender, "_coordinator_dead", "coordinator_type"),
    method(Sender, "_find_coordinator", "coordinator_type", "coordinator_key"),
    method(Sender, "_do_add_offsets_to_txn", "group_id"),
    method(Sender, "_do_add_partitions_to_txn", "tps"),
    method(Sender, "_do_txn_commit", "commit_result"),
    method(Sender, "_do_txn_offset_commit", "offsets", "group_id"),
    method(Sender, "_send_produce_req", "node_id", "batches"),
    attribute("_builder", BatchBuilder, MessageBatch),
    attribute("_relative_offset", BatchBuilder),
    attribute("_batch_size", MessageAccumulator),
    attribute("_batches", MessageAccumulator),
    attribute("_pending_batches", MessageAccumulator),
    attribute("_drain_waiter", MessageBatch),
    attribute("_requests", AIOKafkaConnection),
    attribute("_pid_and_epoch", TransactionManager),
    attribute("_transaction_waiter", TransactionManager),
])  # fmt: skip
"""Of Faust and aiokafka; one test each."""


@pytest.mark.parametrize("name", sorted(PRIVATE))
def test_a_private_name_means_what_it_meant_when_it_was_read(name: str) -> None:
    PRIVATE[name]()


def test_every_private_name_that_the_engine_uses_has_a_test_and_every_test_has_a_use() -> None:
    used = set().union(*(private_names(ENGINE / f"{file}.py") for file in FILES))

    assert used == set(PRIVATE)


@pytest.mark.parametrize("file", sorted(file.stem for file in ENGINE.glob("*.py") if file.stem not in FILES))
def test_no_other_file_of_the_engine_uses_a_private_name_of_others(file: str) -> None:
    assert private_names(ENGINE / f"{file}.py") - STANDARD_LIBRARY == set()


def test_a_private_name_is_found_however_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
import faust
from aiokafka.record._somewhere import _thing
class Ours(faust.App):
    def __init__(self, client):
        self._own = client._read
        client._written = getattr(client, "_spelt")
    async def _stop_consumer(self):
        self._own, self._set_tables = 1, super()._stop_web
"""
    (tmp_path / "uses.py").write_text(source)
    module = types.ModuleType("app.engine.uses")
    module.Ours = type("Ours", (faust.App,), {"__module__": "app.engine.uses"})
    monkeypatch.setitem(sys.modules, "app.engine.uses", module)

    found = private_names(tmp_path / "uses.py")

    assert found == {"_somewhere", "_thing", "_read", "_written", "_spelt", "_stop_consumer"}


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (driver.AIOKafkaConsumerThread, "on_thread_stop", ["self"]),
        (driver.AIOKafkaConsumerThread, "getmany", ["self", "active_partitions", "timeout"]),
        (driver.Consumer, "verify_event_path", ["self", "now", "tp"]),
        (FaustConsumer, "commit", ["self", "topics", "start_new_transaction"]),
        (FaustConsumer, "ack", ["self", "message"]),
        (FaustConsumer, "on_partitions_revoked", ["self", "revoked"]),
        (FaustConsumer, "perform_seek", ["self"]),
        (GroupCoordinator, "check_errors", ["self"]),
        (GroupCoordinator, "request_rejoin", ["self"]),
        (GroupCoordinator, "ensure_coordinator_known", ["self"]),
        (GroupCoordinator, "fetch_committed_offsets", ["self", "partitions"]),
        (TableManager, "sleep", ["self", "n"]),
        (SubscriptionState, "fetch_context", ["self"]),
        (AIOKafkaClient, "bootstrap", ["self"]),
        (AIOKafkaClient, "coordinator_lookup", ["self", "coordinator_type", "coordinator_key"]),
        (AIOKafkaConnection, "close", ["self", "reason", "exc"]),
        (MessageAccumulator, "fail_all", ["self", "exception"]),
        (Sender, "start", ["self"]),
        (TransactionManager, "set_pid_and_epoch", ["self", "pid", "epoch"]),
    ],
)
def test_what_no_manual_names_is_there_with_the_parameters_we_rely_on(
    owner: type, name: str, parameters: list[str]
) -> None:
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


def test_aiokafkas_batches_are_compressed_by_the_name_that_we_replace_and_at_our_level() -> None:
    plain, packed = (BatchBuilder(100_000, codec) for codec in (0, ZSTD))
    for batch in (plain, packed):
        for count in range(1_000):
            batch.append(timestamp=count, key=b"%d" % (count * 7919), value=b"%d" % (count * 104_729))
    records = bytes(plain._build()[HEAD_BYTES:])

    assert bytes(packed._build()[HEAD_BYTES:]) == zstd_encode(records, 1) != zstd_encode(records)


def test_faust_hands_its_fetcher_to_our_drain_loop() -> None:
    assert "_drain_messages(self)" in inspect.getsource(Fetcher)
