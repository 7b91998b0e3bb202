"""`vault-stream quarantine`: what could not be processed, and putting it back.

Through the API of a running worker; with `--direct` from the broker alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import click

from app.cli.api import call
from app.cli.broker import broker_of
from app.cli.options import require_consent
from app.cli.output import json_option, print_json, print_table
from app.cli.quarantined import entry_of, filtered, newest_of_each_origin, whole
from app.cli.topic_reader import TopicReader, progress_bar
from app.redrive.entries import Entry, Filter, plan_of, show_bytes, show_entry
from app.redrive.operator import Transactions
from app.redrive.republish import Redriven, redrive
from app.settings import load_settings
from app.topics import Topics

if TYPE_CHECKING:
    from app.cli.broker import Broker
    from app.settings import Settings

__all__ = ["quarantine"]

PAGE: Final = 200
LONG_S: Final = 300.0
"""What is put back may be thousands of records."""


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


_direct = click.option("--direct", is_flag=True, help="Ask the broker itself; no worker needs to run.")


@quarantine.command("list")
@filtered
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many, newest first.")
@_direct
@json_option
def list_quarantine(only: Filter, limit: int, *, direct: bool, as_json: bool) -> None:
    """Quarantined records, newest first; of each record, however often it failed, the last time.

    Example: vault-stream quarantine list --agent router --since 2026-03-01T00:00:00Z
    """
    rows, more = _listed_by_broker(only, limit) if direct else _listed_by_api(only, limit)
    if as_json:
        print_json({"items": rows, "more": more})
    elif not rows:
        click.echo("nothing in quarantine" if only.empty else "nothing such in quarantine")
    else:
        columns = ("id", "quarantined_at", "reason", "agent", "type", "origin", "detail")
        print_table(columns, [[row[column] for column in columns] for row in rows])
        if more:
            click.echo("there are more; see --limit", err=True)


def _listed_by_broker(only: Filter, limit: int) -> tuple[list[dict[str, Any]], bool]:
    settings = load_settings()
    with broker_of(settings) as broker, closing(TopicReader(broker)) as reader:
        found = newest_of_each_origin(reader, _topics(settings).quarantine, only)
    return [show_entry(entry) for entry in found[:limit]], len(found) > limit


def _listed_by_api(only: Filter, limit: int) -> tuple[list[dict[str, Any]], bool]:
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while len(rows) < limit:
        query = {**only.words, "limit": min(PAGE, limit - len(rows)), "cursor": cursor}
        page = call("GET", "/v1/quarantine", params=query)
        rows += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    return rows, cursor is not None


@quarantine.command()
@click.argument("id_", metavar="ID", type=_Id())
@_direct
@json_option
def show(id_: str, *, direct: bool, as_json: bool) -> None:
    """One quarantined record, with its key, headers and bytes.

    Example: vault-stream quarantine show 0-41
    """
    shown = _shown_by_broker(id_) if direct else call("GET", f"/v1/quarantine/{id_}")
    if as_json:
        print_json(shown)
    else:
        print_table(("field", "value"), list(shown.items()))


def _shown_by_broker(id_: str) -> dict[str, Any]:
    settings = load_settings()
    with broker_of(settings) as broker, closing(TopicReader(broker)) as reader:
        entry = _one(reader, _topics(settings).quarantine, id_)
    return {**show_entry(entry), **show_bytes(entry)}


@quarantine.command()
@click.argument("ids", metavar="[ID]...", nargs=-1, type=_Id())
@filtered
@click.option("--all", "everything", is_flag=True, help="Everything in quarantine.")
@click.option("--dry-run", is_flag=True, help="Say what would be republished, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_direct
@json_option
def republish(
    ids: tuple[str, ...],
    only: Filter,
    *,
    everything: bool,
    dry_run: bool,
    yes: bool,
    direct: bool,
    as_json: bool,
) -> None:
    """Put records back into the topics that they came from, by ID or by filter.

    With the key, bytes and headers that they came with, and a header vs-republished that names the first origin. It is
    audited. What is republished twice is processed twice, under the same ids. Exit code 1 if any could not be.

    Example: vault-stream quarantine republish --agent router --reason handler_error --dry-run
    """
    if bool(ids) + (not only.empty) + everything != 1:
        raise click.UsageError("give ids, or a filter, or --all")
    if ids and dry_run and not direct:
        raise click.UsageError("--dry-run is for a filter; see `vault-stream quarantine show`")
    done = (_by_broker if direct else _by_api)(ids, only, dry_run=dry_run, yes=yes, as_json=as_json)
    if done is None:
        return
    if as_json:
        print_json({"republished": done.republished, "refused": done.refused})
    else:
        click.echo(f"{len(done.republished)} republished, {len(done.refused)} refused")
    for id_, reason in done.refused.items() if not as_json else ():
        click.echo(f"{id_}: {reason}", err=True)
    if done.refused:
        raise click.exceptions.Exit(1)


def _by_api(ids: tuple[str, ...], only: Filter, *, dry_run: bool, yes: bool, as_json: bool) -> Redriven | None:
    """Through the API; None: it was asked only what would be done."""
    if ids:
        answers = [call("POST", f"/v1/quarantine/{id_}/republish", {}, timeout_s=LONG_S) for id_ in dict.fromkeys(ids)]
        return Redriven({answer["id"]: answer["to"] for answer in answers})
    body: dict[str, Any] = {**only.words} or {"all": True}
    plan = call("POST", "/v1/quarantine/republish", {**body, "dry_run": True}, timeout_s=LONG_S)
    if dry_run:
        _print_plan(plan, as_json=as_json)
        return None
    if plan["would_republish"] and not yes:
        _confirm(plan["would_republish"], len({row["topic"] for row in plan["of"]}))
    done = call("POST", "/v1/quarantine/republish", body, timeout_s=LONG_S)
    return Redriven(done["republished"], done["refused"])


def _by_broker(ids: tuple[str, ...], only: Filter, *, dry_run: bool, yes: bool, as_json: bool) -> Redriven | None:
    """Without a worker; None: it was asked only what would be done."""
    settings = load_settings()
    with broker_of(settings) as broker, closing(TopicReader(broker)) as reader:
        chosen = _chosen(reader, _topics(settings).quarantine, ids, only)
        plan = plan_of(chosen)
        if dry_run:
            _print_plan(plan, as_json=as_json)
            return None
        if plan["would_republish"] and not yes:
            _confirm(plan["would_republish"], len({row["topic"] for row in plan["of"]}))
        words = {"ids": len(ids)} if ids else only.words
        return _republish(settings, broker, reader, chosen, words) if chosen else Redriven()


def _confirm(records: int, topics: int) -> None:
    require_consent(f"republish {records} record(s) to {topics} topic(s)?")


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


def _print_plan(plan: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    if not plan["of"] and not plan["refused"]:
        click.echo("nothing such in quarantine")
    if plan["of"]:
        print_table(("topic", "reason", "agent", "records"), [list(row.values()) for row in plan["of"]])
    for id_, reason in plan["refused"].items():
        click.echo(f"refused: {id_}: {reason}")
