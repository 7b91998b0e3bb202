"""`vault-stream positions`: where each partition stands, and the way out when one cannot be trusted.

Positions are rows of the changelogs, not offsets of the consumer group. A reset fences whoever owned the number, so it
is refused while the group has members.
"""

from __future__ import annotations

import uuid
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from app.cli.broker import Broker, broker_of
from app.cli.output import json_option, print_json, print_table
from app.cli.topic_reader import BROKER_TIMEOUT_S, TopicReader
from app.engine.positions import POSITIONS_KEY, Position, decode_positions, encode_positions
from app.events import STRUCTURED_HEADERS, AdminEventType, new_event
from app.settings import load_settings
from app.topics import Topics

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
    topics = Topics(settings.topic_prefix, settings.app_id)
    with broker_of(settings) as broker, closing(TopicReader(broker)) as reader:
        rows = _all(reader, topics)
    if as_json:
        print_json({"items": rows})
    elif not rows:
        click.echo("no positions yet: no worker has run with these settings")
    else:
        columns = ("agent", "topic", "partition", "position", "end", "lag", "topic_id")
        print_table(columns, [[row[column] for column in columns] for row in rows])


class _Where(click.ParamType):
    """`beginning`, `end` or an offset."""

    name = "where"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | int:
        text = str(value)
        if text in {"beginning", "end"}:
            return text
        if not (text.isascii() and text.isdigit()):
            self.fail(f"{text!r} is neither beginning, end, nor an offset", param, ctx)
        return int(text)


@positions.command()
@click.argument("target", metavar="TOPIC/P")
@click.option("--to", "where", required=True, type=_Where(), metavar="beginning|end|OFFSET", help="Where to go on.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def reset(target: str, where: str | int, *, yes: bool, as_json: bool) -> None:
    """Say where a partition goes on; only while no worker runs.

    Going back repeats what was done (under the same ids); going forward skips records for ever.

    Example: vault-stream positions reset vault.events/3 --to beginning --yes
    """
    settings = load_settings()
    topic, _, number = target.rpartition("/")
    if not (topic and number.isascii() and number.isdigit()):
        raise click.UsageError(f"{target!r} is not TOPIC/PARTITION, such as vault.events/3")
    if not yes:
        click.confirm(f"move the position of {target} to {where}?", abort=True, err=True)
    with broker_of(settings) as broker:
        done = _reset(settings, broker, topic, int(number), where)
    if as_json:
        print_json(done)
    else:
        click.echo(f"{target}: {'no position' if done['from'] is None else done['from']} → {done['to']}")


def _read(reader: TopicReader, topics: Topics) -> _Rows:
    """Positions by (agent, number)."""
    found: _Rows = {}
    for table in sorted({home.table for home in _homes(topics)}):
        for message in reader.records(topics.changelog(table), f"reading {table}"):
            key, value = message.key(), message.value()
            if isinstance(key, bytes) and key.startswith(POSITIONS_KEY):
                agent = key.removeprefix(POSITIONS_KEY).decode()
                data = value if isinstance(value, bytes) else None
                found[agent, message.partition() or 0] = decode_positions(data)
    return found


def _all(reader: TopicReader, topics: Topics) -> list[dict[str, Any]]:
    rows = []
    for (agent, _), found in sorted(_read(reader, topics).items()):
        for (topic, partition), position in sorted(found.items()):
            end = reader.bounds(topic, partition)[1]
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
    return rows


def _reset(settings: Settings, broker: Broker, topic: str, partition: int, where: str | int) -> dict[str, Any]:
    topics = Topics(settings.topic_prefix, settings.app_id)
    home = next((home for home in _homes(topics) if topic in home.topics), None)
    if home is None:
        raise click.ClickException(f"no agent reads {topic}; `vault-stream positions show` lists what is read")
    _refuse_while_workers_run(broker.config, settings.app_id)
    number = partition % settings.partitions
    with closing(TopicReader(broker)) as reader:
        if partition not in reader.partitions(topic):
            raise click.ClickException(f"{topic} has no partition {partition}")
        offset = _offset(where, *reader.bounds(topic, partition))
        kept = _read(reader, topics).get((home.agent, number), {})
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
    _write(broker.config, settings, topics, home, number, encode_positions(changed), event.posted)
    return {"topic": topic, "partition": partition, "from": None if before is None else before.offset, "to": offset}


def _offset(where: str | int, begin: int, end: int) -> int:
    if isinstance(where, str):
        return begin if where == "beginning" else end
    if not begin <= where <= end:
        raise click.ClickException(f"--to {where}: beginning, end, or an offset from {begin} to {end}")
    return where


def _refuse_while_workers_run(config: dict[str, str | int], group: str) -> None:
    admin = AdminClient(config)
    described = admin.describe_consumer_groups([group], request_timeout=BROKER_TIMEOUT_S)[group]
    try:
        members = described.result().members
    except KafkaException as error:
        if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
            raise
        return
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
