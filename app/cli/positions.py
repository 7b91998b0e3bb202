"""`vault-stream positions`: where each partition stands, and the way out when one cannot be trusted.

Positions are rows of the changelogs, not offsets of the consumer group. A reset fences whoever owned the number, so it
is refused while the group has members.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from app.cli.output import json_option, print_json, print_table
from app.cli.topic_reader import BROKER_TIMEOUT_S, TopicReader
from app.engine.positions import POSITIONS_KEY, Position, decode_positions, encode_positions
from app.events import STRUCTURED_HEADERS, AdminEventType, new_event
from app.settings import load_settings
from app.topics import TopicAdmin, TopicError, Topics, client_config

if TYPE_CHECKING:
    from app.settings import Settings

__all__ = ["positions"]

_TRANSACTION_S: Final = 30.0
_Rows = dict[tuple[str, int], dict[tuple[str, int], Position]]


@dataclass(frozen=True, slots=True)
class _Home:
    """Where an agent keeps its positions."""

    agent: str
    table: str
    topics: tuple[str, ...]


def _homes(topics: Topics) -> tuple[_Home, ...]:
    return (
        _Home("router", "positions", topics.vault),
        _Home("webhooks", "deliveries", (topics.deliveries, topics.commands)),
        _Home("governance", "audit", (topics.audit,)),
        _Home("violations", "positions", (topics.violations,)),
        _Home("registry", "datasets", (topics.registry_datasets,)),
    )


@click.group()
def positions() -> None:
    """Where each partition stands.

    Example: vault-stream positions show
    """


@positions.command("show")
@json_option
def show_positions(*, as_json: bool) -> None:
    """The position and the end of every partition that was ever read.

    Example: vault-stream positions show --json
    """
    settings = load_settings()
    rows = _guarded(settings, _all)
    if as_json:
        print_json({"items": rows})
    elif not rows:
        click.echo("no positions yet: no worker has run with these settings")
    else:
        columns = ("agent", "topic", "partition", "position", "end", "lag", "topic_id")
        print_table(columns, [[row[column] for column in columns] for row in rows])


@positions.command()
@click.argument("target", metavar="TOPIC/P")
@click.option("--to", "where", required=True, metavar="beginning|end|OFFSET", help="Where to go on.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def reset(target: str, where: str, *, yes: bool, as_json: bool) -> None:
    """Say where a partition goes on; only while no worker runs.

    Going back repeats what was done (under the same ids); going forward skips records for ever.

    Example: vault-stream positions reset vault.events/3 --to beginning --yes
    """
    settings = load_settings()
    topic, _, number = target.rpartition("/")
    if not topic or not number.isdigit():
        raise click.UsageError(f"{target!r} is not TOPIC/PARTITION, such as vault.events/3")
    if not yes:
        click.confirm(f"move the position of {target} to {where}?", abort=True)
    done = _guarded(settings, lambda s: _reset(s, topic, int(number), where))
    if as_json:
        print_json(done)
    else:
        click.echo(f"{target}: {done['from']} → {done['to']}")


def _guarded(settings: Settings, work: Any) -> Any:
    try:
        return work(settings)
    except (TopicError, KafkaException) as error:
        raise click.ClickException(f"the broker did not do it: {error}") from None


def _read(settings: Settings, topics: Topics) -> _Rows:
    """Positions by (agent, number)."""
    config = client_config(settings.brokers, settings.kafka)
    reader = TopicReader(config, embedded=TopicAdmin(config).embedded)
    found: _Rows = {}
    try:
        for table in sorted({home.table for home in _homes(topics)}):
            for message in reader.records(topics.changelog(table), f"reading {table}"):
                key, value = message.key(), message.value()
                if isinstance(key, bytes) and key.startswith(POSITIONS_KEY):
                    agent = key.removeprefix(POSITIONS_KEY).decode()
                    data = value if isinstance(value, bytes) else None
                    found[agent, message.partition() or 0] = decode_positions(data)
    finally:
        reader.close()
    return found


def _all(settings: Settings) -> list[dict[str, Any]]:
    topics = Topics(settings.topic_prefix, settings.app_id)
    consumer = Consumer({**client_config(settings.brokers, settings.kafka), "group.id": settings.app_id})
    rows = []
    try:
        for (agent, _), found in sorted(_read(settings, topics).items()):
            for (topic, partition), position in sorted(found.items()):
                end = _bounds(consumer, topic, partition)[1]
                rows.append(
                    {
                        "agent": agent,
                        "topic": topic,
                        "partition": partition,
                        "position": position.offset,
                        "end": end,
                        "lag": max(0, end - position.offset),
                        "topic_id": position.topic_id,
                    }
                )
    finally:
        consumer.close()
    return rows


def _bounds(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), BROKER_TIMEOUT_S)
    return int(low), int(high)


def _reset(settings: Settings, topic: str, partition: int, where: str) -> dict[str, Any]:
    topics = Topics(settings.topic_prefix, settings.app_id)
    home = next((home for home in _homes(topics) if topic in home.topics), None)
    if home is None:
        raise click.ClickException(f"no agent reads {topic}; `vault-stream positions show` lists what is read")
    config = client_config(settings.brokers, settings.kafka)
    _refuse_while_workers_run(config, settings.app_id)
    consumer = Consumer({**config, "group.id": settings.app_id})
    try:
        offset = _offset(where, *_bounds(consumer, topic, partition))
    finally:
        consumer.close()
    number = partition % settings.partitions
    kept = _read(settings, topics).get((home.agent, number), {})
    before = kept.get((topic, partition))
    # An empty id is that of any topic: the worker remembers the present one with its next checkpoint.
    changed = {**kept, (topic, partition): Position("", offset)}
    event = new_event(
        id=str(uuid.uuid4()),
        source=f"/vault-stream/{settings.app_id}",
        type=str(AdminEventType.OPERATOR_POSITIONS_RESET),
        subject=topic,
        data={
            "id": f"{topic}/{partition}",
            "topic": topic,
            "partition": partition,
            "from": None if before is None else before.offset,
            "to": offset,
            "actor": "operator",
        },
    )
    _write(config, settings, topics, home, number, encode_positions(changed), event.posted)
    return {"topic": topic, "partition": partition, "from": None if before is None else before.offset, "to": offset}


def _offset(where: str, begin: int, end: int) -> int:
    if where in {"beginning", "end"}:
        return begin if where == "beginning" else end
    if not where.isdigit() or not begin <= int(where) <= end:
        raise click.ClickException(f"--to {where}: beginning, end, or an offset from {begin} to {end}")
    return int(where)


def _refuse_while_workers_run(config: dict[str, str | int], group: str) -> None:
    admin = AdminClient(config)
    described = admin.describe_consumer_groups([group], request_timeout=BROKER_TIMEOUT_S)[group]
    try:
        members = described.result().members
    except KafkaException:
        return  # there is no such group, so nobody is in it
    if members:
        raise click.ClickException(f"{len(members)} worker(s) of {group} run; stop them first")


def _write(
    config: dict[str, str | int],
    settings: Settings,
    topics: Topics,
    home: _Home,
    number: int,
    row: bytes,
    event: bytes,
) -> None:
    """The row and the audited event in one transaction, which fences whoever owned the number."""
    producer = Producer({**config, "transactional.id": f"{settings.app_id}-{number}", "partitioner": "murmur2_random"})
    producer.init_transactions(_TRANSACTION_S)
    producer.begin_transaction()
    key = POSITIONS_KEY + home.agent.encode()
    producer.produce(topics.changelog(home.table), row, key, partition=number)
    producer.produce(topics.events, event, topics.events.encode(), headers=list(STRUCTURED_HEADERS))
    producer.commit_transaction(_TRANSACTION_S)
