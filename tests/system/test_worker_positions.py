"""Positions that no worker may trust: refused by name or announced; an operator decides, and auditors hear of it."""

import asyncio
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from app.engine.positions import POSITIONS_KEY, Position, decode_positions, encode_positions
from app.events import VaultEventType, partition_for, topic_of
from app.publishing import VaultEvent
from app.redrive.operator import Transactions
from app.topics import client_config
from tests.support.cli import Cli
from tests.support.report import report
from tests.support.workers import Deployment, Hook, RunningWorker, until

pytestmark = pytest.mark.kafka

NUMBERS = 4
MADE_AGAIN, BEYOND, GAP, SOUND = (
    VaultEventType.DATASET_CREATED,
    VaultEventType.RECORDS_INGESTED,
    VaultEventType.RECORDS_DELETED,
    VaultEventType.DATASET_ARCHIVED,
)


NUMBER_OF = {MADE_AGAIN: 0, BEYOND: 1, GAP: 2, SOUND: 3}


def events(type_: VaultEventType, count: int) -> list[VaultEvent]:
    """Of one dataset, whose number is that of its type."""
    ids = (f"ds-{n}" for n in range(1000))
    dataset = next(id_ for id_ in ids if partition_for(id_.encode(), NUMBERS) == NUMBER_OF[type_])
    data = {"dataset_id": dataset, "name": "n"}
    return [VaultEvent.new(type_, "/vault", {**data, "record_count": n}) for n in range(count)]


class Positions:
    """The command, and what a test does to the topics behind its back."""

    def __init__(self, deployment: Deployment, folder: Path) -> None:
        self.deployment, self.topics = deployment, deployment.topics
        self.config = client_config(deployment.brokers)
        self.admin = AdminClient(self.config)
        self.cli = Cli(
            {
                "BROKERS": deployment.brokers,
                "APP_ID": deployment.app_id,
                "TOPIC_PREFIX": self.topics.prefix,
                "PARTITIONS": str(NUMBERS),
            },
            folder,
        )

    def topic(self, type_: VaultEventType) -> str:
        return topic_of(type_, self.topics.prefix)

    async def show(self) -> dict[str, dict[str, Any]]:
        """Rows by `topic/partition`."""
        items = (await asyncio.to_thread(self.cli.json, "positions", "show"))["items"]
        return {f"{row['topic']}/{row['partition']}": row for row in items}

    async def reset(self, place: str, where: str, *more: str, **settings: str) -> tuple[int, str]:
        """Exit code and what it says."""
        command = ("positions", "reset", place, "--to", where, "--yes", *more)
        done = await asyncio.to_thread(self.cli.run, *command, **settings)
        return done.returncode, done.stdout + done.stderr

    def make(self, topic: str, partitions: int) -> None:
        self.admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(20)

    async def make_again(self, topic: str, partitions: int) -> None:
        await asyncio.to_thread(self.admin.delete_topics([topic])[topic].result, 20)

        async def made() -> bool:
            try:
                await asyncio.to_thread(self.make, topic, partitions)
            except KafkaException:
                # The broker deletes a topic a little later than it says.
                return False
            return True

        await until(made, f"{topic} is made again")

    async def move(self, topic: str, partition: int, offset: int) -> None:
        """Write a position that no broker has; what an unclean election of a leader leaves behind."""
        number, changelog = partition % NUMBERS, self.topics.changelog("positions")
        logged = [
            m for m in await self.deployment.read(changelog)
            if m.partition() == number and m.key() == POSITIONS_KEY + b"router"
        ]  # fmt: skip
        rows = decode_positions(logged[-1].value())
        rows[topic, partition] = Position(rows[topic, partition].topic_id, offset)

        def write() -> None:
            with Transactions(self.config, f"{self.topics.app_id}-{number}", embedded=False).begin() as unit:
                unit.send(changelog, POSITIONS_KEY + b"router", encode_positions(rows), partition=number)

        await asyncio.to_thread(write)

    async def delete_before(self, topic: str, partition: int, offset: int) -> None:
        place = TopicPartition(topic, partition, offset)
        await asyncio.to_thread(self.admin.delete_records([place])[place].result, 20)


async def not_ready_for(worker: RunningWorker, *places: str) -> str:
    """What readiness says once it names all these places."""

    async def named() -> str:
        status, health = await worker.get("/health/ready")
        said = str(health)
        return said if status == 503 and all(place in said for place in places) else ""

    return await until(named, f"not ready for {places}")


async def delivered(deployment: Deployment, hook: Hook, published: Sequence[VaultEvent]) -> None:
    await deployment.publish(published)
    expected = hook.expected(published)
    await deployment.observed(lambda: expected <= hook.receiver.accepted, "delivered")


async def test_positions_that_cannot_be_trusted_are_refused_or_announced_and_reset_by_an_operator(
    deployment: Deployment, tmp_path: Path
) -> None:
    positions = Positions(deployment, tmp_path)
    positions.make(positions.topic(MADE_AGAIN), 1)
    (worker,) = await deployment.start("w1")
    hook = await deployment.hook("*")
    first = [event for type_ in (MADE_AGAIN, BEYOND, GAP, SOUND) for event in events(type_, 20)]
    await delivered(deployment, hook, first)
    await deployment.idle()
    refused = await positions.reset(f"{positions.topic(SOUND)}/0", "beginning")
    assert refused == (1, f"error: 1 worker(s) of {deployment.app_id} run; stop them first\n")
    assert await worker.stop() == 0
    shown = await positions.show()
    assert {row["state"] for row in shown.values()} == {"ok"}
    assert {row["lag"] for row in shown.values()} == {0}

    places = await damage(deployment, positions)
    shown = await positions.show()
    assert {place: row["state"] for place, row in shown.items() if row["state"] != "ok"} == {
        places[MADE_AGAIN]: "refused",
        places[BEYOND]: "refused",
        places[GAP]: "gap",
    }
    await worker.start()
    said = await not_ready_for(worker, places[MADE_AGAIN], places[BEYOND])
    assert f"{places[MADE_AGAIN]}: the topic was deleted and made again" in said
    assert f"{places[BEYOND]}: position 1020 is beyond the end" in said
    assert f"vault-stream positions reset {places[BEYOND]} --to beginning|end|OFFSET --yes" in said
    assert (await worker.get("/health/live"))[0] == 200
    # Nobody else pays for it, and what retention took is told to whoever asks.
    await gap_is_announced(worker, positions.topic(GAP))
    other = events(SOUND, 5)
    await deployment.publish(other)
    # The webhook itself may live in a number that is refused.
    await deployment.observed(lambda: hook.expected(other) <= deployment.upstreams.dashboard.events, "audited")
    assert (await positions.reset(places[BEYOND], "end"))[0] == 1

    assert await worker.stop() == 0
    assert (await positions.reset(places[BEYOND], "end", PARTITIONS="8"))[0] == 1
    assert (await positions.reset(places[BEYOND], "1000"))[0] == 1
    assert await positions.reset(places[BEYOND], "end") == (0, f"{places[BEYOND]}: 1020 → 20\n")
    assert await positions.reset(places[MADE_AGAIN], "beginning") == (0, f"{places[MADE_AGAIN]}: 20 → 0\n")
    latter = events(MADE_AGAIN, 7)
    await deployment.publish(latter)
    await worker.start()
    await deployment.ready(worker)
    await delivered(deployment, hook, [event for type_ in (BEYOND, GAP) for event in events(type_, 5)])
    expected = hook.expected(latter)
    await deployment.observed(
        lambda: expected <= hook.receiver.accepted, "what was published before the reset took effect"
    )
    await resets_and_the_gap_are_audited(deployment, {places[BEYOND]: 20, places[MADE_AGAIN]: 0})
    await deployment.idle()
    began = time.monotonic()
    assert {row["state"] for row in (await positions.show()).values()} == {"ok"}
    report("Positions", {"`positions show` of a running worker": f"{time.monotonic() - began:.1f} s"})


async def damage(deployment: Deployment, positions: Positions) -> dict[VaultEventType, str]:
    """Each in another number; where."""
    await positions.make_again(positions.topic(MADE_AGAIN), 1)
    await positions.move(positions.topic(BEYOND), NUMBER_OF[BEYOND], 1020)
    await deployment.publish(events(GAP, 10))
    await positions.delete_before(positions.topic(GAP), NUMBER_OF[GAP], 24)
    return {type_: f"{positions.topic(type_)}/{number}" for type_, number in NUMBER_OF.items()}


async def gap_is_announced(worker: RunningWorker, topic: str) -> None:
    async def counted() -> bool:
        return await worker.metric("vault_stream_gap_records_total", topic=topic) == 4

    await until(counted, "counted")
    assert re.search(r"retention took the records 20 to 23 before they were read", worker.log.read_text())


async def resets_and_the_gap_are_audited(deployment: Deployment, moved: dict[str, int]) -> None:
    def audited(type_: str) -> list[dict[str, Any]]:
        entries = deployment.upstreams.dashboard.entries.values()
        return [entry for entry in entries if entry["event_type"] == f"llm.data-vault.{type_}"]

    async def told() -> bool:
        resets = audited("operator.positions-reset")
        assert all(entry["actor"]["id"] == "operator" for entry in resets)
        gaps = {(entry["details"]["from"], entry["details"]["to"]) for entry in audited("stream.gap")}
        return gaps == {(20, 24)} and {e["resource"]["id"]: e["details"].get("to") for e in resets} == moved

    await until(told, "told to the auditors")


async def test_another_n_is_refused_with_one_line(deployment: Deployment) -> None:
    (worker,) = await deployment.start("w1")
    hook = await deployment.hook("*")
    await delivered(deployment, hook, events(SOUND, 5))
    await deployment.idle()
    assert await worker.stop() == 0

    other = deployment.worker("w2", PARTITIONS="8")
    await other.start()

    assert await other.exit_code(60) == 1
    assert "another VAULT_STREAM_APP_ID" in other.log.read_text().splitlines()[-1]
