"""`vault-stream quarantine`: what could not be processed, and putting it back. Needs the broker alone, no worker."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from functools import cache
from typing import TYPE_CHECKING, Any

import click

from app.cli.broker import broker_of
from app.cli.output import json_option, print_json, print_table
from app.cli.quarantined import entry_of, filtered, newest_of_each_origin, whole
from app.cli.topic_reader import TopicReader, progress_bar
from app.redrive.entries import Entry, Filter, show_entry
from app.redrive.operator import Transactions
from app.redrive.republish import Redriven, redrive
from app.settings import load_settings
from app.topics import Topics

if TYPE_CHECKING:
    from app.cli.broker import Broker
    from app.settings import Settings

__all__ = ["quarantine"]


@click.group()
def quarantine() -> None:
    """Records that could not be processed, as they came, with the reason.

    Example: vault-stream quarantine list --reason handler_error
    """


class _Id(click.ParamType):
    """`{partition}-{offset}` in the quarantine topic."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        partition, _, offset = str(value).partition("-")
        if not (partition.isascii() and partition.isdigit() and offset.isascii() and offset.isdigit()):
            self.fail(f"{value!r} is no id of quarantine, such as 0-41", param, ctx)
        return f"{int(partition)}-{int(offset)}"


@quarantine.command("list")
@filtered
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many, newest first.")
@json_option
def list_quarantine(only: Filter, limit: int, *, as_json: bool) -> None:
    """Quarantined records, newest first; of each record, however often it failed, the last time.

    Example: vault-stream quarantine list --agent router --since 2026-03-01T00:00:00Z
    """
    settings = load_settings()
    with broker_of(settings) as broker, closing(TopicReader(broker)) as reader:
        found = newest_of_each_origin(reader, _topics(settings).quarantine, only)
    rows = [show_entry(entry) for entry in found[:limit]]
    if as_json:
        print_json({"items": rows, "total": len(found)})
    elif not rows:
        click.echo("nothing in quarantine" if only.empty else "nothing such in quarantine")
    else:
        columns = ("id", "quarantined_at", "reason", "agent", "type", "origin", "detail")
        print_table(columns, [[row[column] for column in columns] for row in rows])
        if len(found) > limit:
            click.echo(f"{len(found) - limit} more; see --limit", err=True)


@quarantine.command()
@click.argument("id_", metavar="ID", type=_Id())
@json_option
def show(id_: str, *, as_json: bool) -> None:
    """One quarantined record, with its key, headers and bytes.

    Example: vault-stream quarantine show 0-41
    """
    settings = load_settings()
    with broker_of(settings) as broker, closing(TopicReader(broker)) as reader:
        entry = _one(reader, _topics(settings).quarantine, id_)
    shown = {
        **show_entry(entry),
        "key": _bytes(entry.record.key),
        "headers": [{"name": name, "value": _bytes(value)} for name, value in entry.record.headers],
        "value": _bytes(entry.record.value),
    }
    if as_json:
        print_json(shown)
    else:
        print_table(("field", "value"), list(shown.items()))


@quarantine.command()
@click.argument("ids", metavar="[ID]...", nargs=-1, type=_Id())
@filtered
@click.option("--all", "everything", is_flag=True, help="Everything in quarantine.")
@click.option("--dry-run", is_flag=True, help="Say what would be republished, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def republish(ids: tuple[str, ...], only: Filter, *, everything: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Put records back into the topics that they came from, by ID or by filter.

    With the key, bytes and headers that they came with, and a header vs-republished that names the first origin. It is
    audited. What is republished twice is processed twice, under the same ids. Exit code 1 if any could not be.

    Example: vault-stream quarantine republish --agent router --reason handler_error --dry-run
    """
    if bool(ids) + (not only.empty) + everything != 1:
        raise click.UsageError("give ids, or a filter, or --all")
    settings = load_settings()
    with broker_of(settings) as broker, closing(TopicReader(broker)) as reader:
        chosen = _chosen(reader, _topics(settings).quarantine, ids, only)
        if dry_run:
            _print_plan(chosen, as_json=as_json)
            return
        if chosen and not yes:
            topics = len({entry.record.topic for entry in chosen})
            click.confirm(f"republish {len(chosen)} record(s) to {topics} topic(s)?", abort=True, err=True)
        words = {"ids": len(ids)} if ids else only.words
        done = _republish(settings, broker, reader, chosen, words) if chosen else Redriven()
    if as_json:
        print_json({"republished": done.republished, "refused": done.refused})
    else:
        click.echo(f"{len(done.republished)} republished, {len(done.refused)} refused")
    for id_, reason in done.refused.items() if not as_json else ():
        click.echo(f"{id_}: {reason}", err=True)
    if done.refused:
        raise click.exceptions.Exit(1)


def _topics(settings: Settings) -> Topics:
    return Topics(settings.topic_prefix, settings.app_id)


def _one(reader: TopicReader, topic: str, id_: str) -> Entry:
    partition, offset = map(int, id_.split("-"))
    message = reader.record_at(topic, partition, offset) if partition in reader.partitions(topic) else None
    entry = None if message is None else entry_of(message)
    if entry is None:
        raise click.ClickException(f"nothing in quarantine has the id {id_}; see `vault-stream quarantine list`")
    return entry


def _chosen(reader: TopicReader, topic: str, ids: Sequence[str], only: Filter) -> list[Entry]:
    if ids:
        return [_one(reader, topic, id_).without_bytes() for id_ in dict.fromkeys(ids)]
    return newest_of_each_origin(reader, topic, only)


def _republish(
    settings: Settings, broker: Broker, reader: TopicReader, chosen: Sequence[Entry], words: dict[str, Any]
) -> Redriven:
    topics = _topics(settings)

    @cache
    def partitions(topic: str) -> Sequence[int]:
        try:
            return reader.partitions(topic)
        except click.ClickException:
            return ()

    for topic in {entry.record.topic for entry in chosen}:
        # While the reader reads it cannot be asked.
        partitions(topic)
    producer = Transactions(broker.config, f"{settings.app_id}-republish", embedded=broker.embedded)
    with progress_bar() as progress:
        task = progress.add_task("republishing", total=len(chosen))
        sources = whole(reader, topics.quarantine, chosen)
        return redrive(producer, topics, sources, partitions, words, lambda count: progress.advance(task, count))


def _print_plan(chosen: Sequence[Entry], *, as_json: bool) -> None:
    counts = Counter((entry.record.topic, entry.record.reason, entry.record.agent) for entry in chosen)
    rows = [
        {"topic": topic, "reason": reason, "agent": agent, "records": count}
        for (topic, reason, agent), count in sorted(counts.items())
    ]
    if as_json:
        print_json({"would_republish": len(chosen), "of": rows})
    elif not rows:
        click.echo("nothing such in quarantine")
    else:
        print_table(("topic", "reason", "agent", "records"), [list(row.values()) for row in rows])


def _bytes(data: bytes | None) -> Any:
    """Text where it is text, else base64, said so."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
