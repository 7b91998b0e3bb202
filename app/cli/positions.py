"""`vault-stream positions`: where each partition stands, and the way out when one cannot be trusted.

Positions are rows of the changelogs, not offsets of the consumer group. A reset fences whoever owned the number, so it
is refused while the group has members.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
import msgspec
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from app.cli.broker import Broker, broker_of
from app.cli.options import require_consent
from app.cli.output import json_option, print_json, print_table
from app.cli.topic_reader import BROKER_TIMEOUT_S, TopicReader
from app.engine import PositionRefused
from app.engine.positions import (
    META_KEY,
    POSITIONS_KEY,
    Bounds,
    Meta,
    Position,
    decode_positions,
    encode_positions,
    start_of,
)
from app.events import AdminEventType
from app.redrive.operator import Transactions, operator_event
from app.settings import load_settings
from app.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.settings import Settings

__all__ = ["positions"]

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
        _Home("decisions", "decisions", (topics.decisions,)),
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
    """The position of every partition that was ever read, and what a worker will refuse.

    STATE is `ok`; `gap` where retention took records before they were read (a worker counts them and goes on);
    `refused` where only you may decide (see `positions reset`); `missing` where there is no such partition any more.

    Example: vault-stream positions show --json
    """
    settings = load_settings()
    topics = Topics(settings.topic_prefix, settings.app_id)
    with broker_of(settings) as broker, closing(TopicReader(broker)) as reader:
        rows = _all(settings, broker, reader, topics)
    if as_json:
        print_json({"items": rows})
        return
    if not rows:
        click.echo("no positions yet: no worker has run with these settings")
        return
    columns = ("agent", "topic", "partition", "position", "begin", "end", "lag", "state")
    print_table(columns, [[row[column] for column in columns] for row in rows])
    for problem in [row["problem"] for row in rows if row["problem"] is not None]:
        click.echo(problem, err=True)


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
        require_consent(f"move the position of {target} to {where}?")
    with broker_of(settings) as broker:
        done = _reset(settings, broker, topic, int(number), where)
    if as_json:
        print_json(done)
    else:
        click.echo(f"{target}: {'no position' if done['from'] is None else done['from']} → {done['to']}")


@dataclass(frozen=True, slots=True)
class _Logged:
    """What the changelogs say.

    Attributes:
        rows: Positions, by agent and number.
        numbers: N, by agent.
    """

    rows: _Rows
    numbers: dict[str, int]


def _read(reader: TopicReader, topics: Topics, tables: Iterable[str]) -> _Logged:
    logged = _Logged({}, {})
    for table in sorted(set(tables)):
        for message in reader.records(topics.changelog(table), f"reading {table}"):
            key, value = message.key(), message.value()
            if not isinstance(key, bytes):
                continue
            data = value if isinstance(value, bytes) else None
            if key.startswith(POSITIONS_KEY):
                agent = key.removeprefix(POSITIONS_KEY).decode()
                logged.rows[agent, message.partition() or 0] = decode_positions(data)
            elif key.startswith(META_KEY) and data is not None:
                logged.numbers[key.removeprefix(META_KEY).decode()] = msgspec.msgpack.decode(data, type=Meta).numbers
    return logged


def _all(settings: Settings, broker: Broker, reader: TopicReader, topics: Topics) -> list[dict[str, Any]]:
    homes = _homes(topics)
    logged = _read(reader, topics, (home.table for home in homes)).rows
    agent_of = {topic: home.agent for home in homes for topic in home.topics}
    admin = AdminClient(broker.config)
    committed = {} if broker.embedded else _committed(admin, settings.app_id)
    found: dict[tuple[str, str, int], Position | None] = {
        (agent_of[topic], topic, partition): None for topic, partition in committed if topic in agent_of
    }
    for (agent, _), positions in logged.items():
        found |= {(agent, *tp): position for tp, position in positions.items()}
    there = admin.list_topics(timeout=BROKER_TIMEOUT_S).topics
    ids = {} if broker.embedded else _ids(admin, sorted({topic for _, topic, _ in found} & there.keys()))
    rows = []
    for (agent, topic, partition), position in sorted(found.items(), key=lambda item: item[0]):
        bounds = None
        if topic in there and partition in there[topic].partitions:
            begin, end = reader.bounds(topic, partition)
            bounds = Bounds(begin, end, committed.get((topic, partition)), ids.get(topic, ""))
        rows.append(_row(agent, topic, partition, position, bounds))
    return rows


def _row(agent: str, topic: str, partition: int, position: Position | None, bounds: Bounds | None) -> dict[str, Any]:
    offset = None if position is None else position.offset
    state, problem = _judged(topic, partition, position, bounds)
    return {
        "agent": agent,
        "topic": topic,
        "partition": partition,
        "position": offset,
        "begin": None if bounds is None else bounds.begin,
        "end": None if bounds is None else bounds.end,
        "lag": None if bounds is None or offset is None else max(0, bounds.end - max(offset, bounds.begin)),
        "topic_id": None if position is None else position.topic_id,
        "state": state,
        "problem": problem,
    }


def _judged(topic: str, partition: int, position: Position | None, bounds: Bounds | None) -> tuple[str, str | None]:
    """What a worker will make of it."""
    if bounds is None:
        return "missing", f"{topic}/{partition}: there is no such partition any more"
    try:
        start = start_of(topic, partition, position, bounds)
    except PositionRefused as refused:
        return "refused", str(refused)
    if start.gap:
        return "gap", f"{topic}/{partition}: retention took {start.gap} records before they were read"
    return "ok", None


def _committed(admin: AdminClient, group: str) -> dict[tuple[str, int], int]:
    """The group's offsets, a copy of the positions; of a group that never was, none."""
    request = [ConsumerGroupTopicPartitions(group)]
    future = admin.list_consumer_group_offsets(request, request_timeout=BROKER_TIMEOUT_S)[group]
    try:
        places = future.result().topic_partitions
    except KafkaException as error:
        if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
            raise
        return {}
    return {(place.topic, place.partition): place.offset for place in places if place.offset >= 0}


def _ids(admin: AdminClient, names: list[str]) -> dict[str, str]:
    if not names:
        return {}
    described = admin.describe_topics(TopicCollection(names), request_timeout=BROKER_TIMEOUT_S)
    return {name: str(future.result().topic_id) for name, future in described.items()}


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
        logged = _read(reader, topics, [home.table])
    laid_out_for = logged.numbers.get(home.agent, settings.partitions)
    if laid_out_for != settings.partitions:
        raise click.ClickException(
            f"the data of {home.agent} was laid out for PARTITIONS={laid_out_for}, not {settings.partitions}"
        )
    kept = logged.rows.get((home.agent, number), {})
    before = kept.get((topic, partition))
    # An empty id is that of any topic: the worker remembers the present one with its next checkpoint.
    changed = {**kept, (topic, partition): Position("", offset)}
    done = {"topic": topic, "partition": partition, "from": None if before is None else before.offset, "to": offset}
    event = operator_event(
        settings.app_id, AdminEventType.OPERATOR_POSITIONS_RESET, {"id": f"{topic}/{partition}", **done}
    )
    # This fences whoever owned the number.
    with Transactions(broker.config, f"{settings.app_id}-{number}", embedded=broker.embedded).begin() as transaction:
        key = POSITIONS_KEY + home.agent.encode()
        transaction.send(topics.changelog(home.table), key, encode_positions(changed), partition=number)
        transaction.tell(topics.events, event)
    return done


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
