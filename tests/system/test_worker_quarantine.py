"""A bad deploy of the real worker, and the way back: what it quarantined is republished, and everything arrives."""

import asyncio
import os
from pathlib import Path

import pytest
from confluent_kafka import Producer

from app.devstack.processes import module_command
from app.engine.poison import POISON_LIMITS
from app.events import VaultEventType, encode_structured, record_key, topic_of
from app.publishing import VaultEvent, checked
from tests.support.cli import Cli
from tests.support.garbled import send_with_header_name
from tests.support.workers import Deployment, RunningWorker, until

pytestmark = pytest.mark.kafka

LIMIT = POISON_LIMITS["handler_error"]
NUMBERS = 4
MIB = 1 << 20


def ingested(dataset: str, count: int) -> list[VaultEvent]:
    type_ = VaultEventType.RECORDS_INGESTED
    return [VaultEvent.new(type_, "/vault", {"dataset_id": dataset, "record_count": n}) for n in range(count)]


def created(count: int) -> list[VaultEvent]:
    type_ = VaultEventType.DATASET_CREATED
    return [VaultEvent.new(type_, "/vault", {"dataset_id": f"ds-{n}", "name": "n"}) for n in range(count)]


def publish_odd_records(brokers: str, topic: str) -> list[bytes | None]:
    """Records that are no events, around them nothing else; their values."""
    values: list[bytes | None] = [os.urandom(MIB - 2000), b"", None, b"\xff\xfe", b"{}"]
    producer = Producer({"bootstrap.servers": brokers, "message.max.bytes": 4 * MIB, "log_level": 0})
    for value in values:
        producer.produce(topic, value, None, partition=0, headers=[("content-type", None), ("\t", b"\xff" * 100)])
    assert producer.flush(30) == 0
    send_with_header_name(brokers, topic, 0, b"\xff\x80ce_", key=None, value=b"garbled")
    return [*values, b"garbled"]


def same_program(worker: RunningWorker, module: str) -> None:
    worker._command = module_command(module, *(["worker"] if module == "app" else []))


async def test_what_a_bad_deploy_quarantined_arrives_once_it_is_mended_and_republished(
    deployment: Deployment, tmp_path: Path
) -> None:
    worker = deployment.worker("w1")
    same_program(worker, "tests.system.bad_deploy")
    await worker.start()
    await deployment.ready(worker)
    hook = await deployment.hook("*")
    cli = Cli({"BROKERS": deployment.brokers, "APP_ID": deployment.app_id, "TOPIC_PREFIX": deployment.topics.prefix,
               "PARTITIONS": str(NUMBERS), "API__URL": worker.url}, tmp_path)  # fmt: skip
    topic = topic_of(VaultEventType.DATASET_CREATED, deployment.topics.prefix)
    odd = await asyncio.to_thread(publish_odd_records, deployment.brokers, topic)
    fine, spoilt = created(40), ingested("ds-1", LIMIT + 50)
    await deployment.publish(fine)
    # Whatever is handled between two that throw begins a new row.
    await deployment.observed(lambda: hook.receiver.accepted == hook.expected(fine), "the others are delivered")
    await deployment.publish(spoilt)

    why = f"router: more than {LIMIT} records in a row quarantined as handler_error"

    async def stopped() -> bool:
        status, health = await worker.get("/health/ready")
        return status == 503 and why in str(health)

    await until(stopped, "stopped, and readiness says why")
    assert (await worker.get("/health/live"))[0] == 200
    kept = await deployment.read(deployment.topics.quarantine)
    thrown = [m for m in kept if dict(m.headers())["vs-reason"] == b"handler_error"]
    assert len({m.key() for m in thrown}) == LIMIT + 1

    assert await worker.stop() == 0
    same_program(worker, "app")
    await worker.start()
    await deployment.ready(worker)
    plan = await asyncio.to_thread(cli.json, "quarantine", "republish", "--reason", "handler_error", "--dry-run")
    assert plan["would_republish"] == LIMIT + 1
    done = await asyncio.to_thread(cli.json, "quarantine", "republish", "--reason", "handler_error", "--yes")
    assert (len(done["republished"]), done["refused"]) == (LIMIT + 1, {})

    expected = hook.expected([*fine, *spoilt])
    await deployment.observed(lambda: expected == hook.receiver.accepted, "everything is delivered")
    await deployment.observed(lambda: expected <= deployment.upstreams.dashboard.events, "everything is audited")
    await republished_records_are_the_same(deployment, spoilt, done["republished"])
    await told_to_the_auditors(deployment, done["republished"])
    await odd_records_are_kept(deployment, cli, topic, odd)
    assert await worker.ready()


async def republished_records_are_the_same(
    deployment: Deployment, events: list[VaultEvent], places: dict[str, str]
) -> None:
    """Key, bytes and headers, and whence they come."""
    topic = topic_of(VaultEventType.RECORDS_INGESTED, deployment.topics.prefix)
    records = {f"{m.topic()}/{m.partition()}/{m.offset()}": m for m in await deployment.read(topic)}
    back = [records[place] for place in places.values()]
    originals = [records[dict(m.headers())["vs-republished"].decode()] for m in back]
    for copy, original in zip(back, originals, strict=True):
        assert (copy.key(), copy.value()) == (original.key(), original.value())
        assert copy.headers()[:-1] == original.headers()
        assert copy.partition() == original.partition()
    values = [encode_structured(checked(event)) for event in events]
    assert [m.value() for m in originals] == values[: len(originals)]
    assert {m.key() for m in back} == {record_key(checked(events[0]))}


async def told_to_the_auditors(deployment: Deployment, places: dict[str, str]) -> None:
    async def told() -> dict[str, str]:
        entries = deployment.upstreams.dashboard.entries.values()
        told = [entry for entry in entries if entry["event_type"] == "llm.data-vault.operator.republished"]
        return {record["id"]: record["to"] for entry in told for record in entry["details"]["records"]}

    assert await until(told, "told to the auditors") == places


async def odd_records_are_kept(deployment: Deployment, cli: Cli, topic: str, values: list[bytes | None]) -> None:
    found = await asyncio.to_thread(cli.json, "quarantine", "list", "--topic", topic)
    reasons = {item["origin"]: item["reason"] for item in found["items"]}
    expected = ["too_large", *["invalid_envelope"] * (len(values) - 1)]
    assert reasons == {f"{topic}/0/{at}": reason for at, reason in enumerate(expected)}
    kept = {m.key().decode(): m for m in await deployment.read(deployment.topics.quarantine)}
    assert [kept[f"{topic}/0/{at}"].value() for at in range(len(values))] == values
    shown = await asyncio.to_thread(cli.json, "quarantine", "show", found["items"][-1]["id"])
    assert shown["origin"] in reasons
