"""`vault-stream audit`: is the chain of audit events whole?

`verify --topic` needs the broker alone, no service: the audit topic, and the sealed batches in the changelog of the
table `audit`. `verify FILE` needs nothing but an export.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from app.cli.broker import broker_of
from app.cli.output import json_option, print_json, show
from app.cli.topic_reader import TopicReader, progress_bar
from app.events import loads_strict
from app.integrations.chain import Batch
from app.integrations.verification import TopicCheck, Verdict
from app.integrations.verification import verify as verify_entries
from app.settings import load_settings
from app.topics import Topics
from tables.audit import AUDIT, AuditRow

if TYPE_CHECKING:
    from app.settings import Settings

__all__ = ["audit"]

_DEPTH: Final = 66
_ENGINE_ROW: Final = b"\0"

Heads = dict[int, tuple[int, str]]


@click.group()
def audit() -> None:
    """The audit chain.

    Example: vault-stream audit verify --topic
    """


class _Head(click.ParamType):
    """`P:SEQ:HASH`."""

    name = "P:SEQ:HASH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int, str]:
        partition, sequence, digest = [*str(value).split(":"), "", "", ""][:3]
        if not (partition.isdigit() and sequence.isdigit() and digest):
            self.fail(f"{value!r} is not partition:sequence:hash, such as 0:41:9f86d0…", param, ctx)
        return int(partition), int(sequence), digest.lower()


@audit.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--topic", is_flag=True, help="Check the audit topic of the broker in the settings.")
@click.option(
    "--head",
    "heads",
    multiple=True,
    type=_Head(),
    help="A sequence and hash that you noted before; shows a cut tail. May be given for each partition.",
)
@json_option
def verify(file: Path | None, *, topic: bool, heads: tuple[tuple[int, int, str], ...], as_json: bool) -> None:
    """Check the hash chains of an export FILE (JSON lines), or of the topic; exit code 1 names what is broken.

    Example: vault-stream audit verify --topic --head 0:41:9f86d081884c7d65…
    """
    if (file is None) != topic:
        raise click.UsageError("give either an export FILE or --topic")
    noted = {partition: (sequence, digest) for partition, sequence, digest in heads}
    verdicts = verify_entries(_lines(file), noted) if file else _verify_topic(load_settings(), noted)
    sound = all(verdict.ok for verdict in verdicts)
    if as_json:
        print_json({"ok": sound, "partitions": [{"ok": verdict.ok, **asdict(verdict)} for verdict in verdicts]})
    else:
        _print(verdicts)
    if not sound:
        raise click.exceptions.Exit(1)


def _print(verdicts: list[Verdict]) -> None:
    for verdict in verdicts:
        if verdict.first is None or verdict.head is None:
            click.echo(f"partition {verdict.partition}: nothing to check")
        else:
            begin = "the beginning of the chain" if verdict.from_start else "trusting what came before"
            click.echo(
                f"partition {verdict.partition}: {verdict.checked} entries, from {verdict.first} ({begin}) to "
                f"{verdict.head[0]} ({verdict.head[1]}), {verdict.batches} sealed batches compared, "
                f"{verdict.unsealed} not sealed yet, {verdict.repeats} repeats: {'ok' if verdict.ok else 'BROKEN'}"
            )
        for finding in verdict.findings:
            click.echo(f"  {finding.kind}: {show(finding.detail)}")
    if not verdicts:
        click.echo("nothing to check")


# -- an export


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    recognised = False
    with progress_bar() as progress, file.open("rb") as lines:
        task = progress.add_task("checking", total=file.stat().st_size)
        for number, line in enumerate(lines, 1):
            progress.advance(task, len(line))
            if not line.strip():
                continue
            entry = _entry(file, number, line)
            # A later entry without its fields is a finding of the check; a first one says that this is another file.
            if "trailer" in entry or not recognised:
                _require_fields(file, number, entry)
            recognised = True
            yield entry


def _entry(file: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        entry = loads_strict(line, depth=_DEPTH)
    except ValueError as error:
        raise click.ClickException(f"{file}, line {number}: no audit event of an export: {error}") from None
    if not isinstance(entry, dict):
        raise click.ClickException(f"{file}, line {number}: no audit event of an export: not a JSON object")
    return entry


def _require_fields(file: Path, number: int, entry: dict[str, Any]) -> None:
    trailer = entry.get("trailer")
    place = trailer if isinstance(trailer, dict) else entry
    wanted = {"partition": int, "sequence": int, "hash": str}
    missing = [name for name, kind in wanted.items() if not isinstance(place.get(name), kind)]
    if missing:
        reason = f"no audit event of an export: {', '.join(missing)} missing or of another type"
        raise click.ClickException(f"{file}, line {number}: {reason}")


# -- the topic


def _verify_topic(settings: Settings, noted: Heads) -> list[Verdict]:
    topics = Topics(settings.topic_prefix, settings.app_id)
    with broker_of(settings) as broker, closing(TopicReader(broker)) as reader:
        # The batches first: every record that they speak of is in the topic by then.
        batches = _sealed_batches(reader, topics.changelog(AUDIT.name))
        return _check_topic(reader, topics.audit, batches, noted)


def _sealed_batches(reader: TopicReader, changelog: str) -> dict[int, list[Batch]]:
    """The sealed batches of each partition's present chain."""
    rows: dict[bytes, AuditRow] = {}
    for message in reader.records(changelog, "reading batches"):
        key, value = message.key(), message.value()
        if not isinstance(key, bytes) or key.startswith(_ENGINE_ROW):
            continue
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = AUDIT.decode(value)
    chains = {row.head.chain for row in rows.values() if row.head is not None}
    batches: dict[int, list[Batch]] = {}
    for row in rows.values():
        if row.batch is not None and row.batch.chain in chains:
            batches.setdefault(row.batch.partition, []).append(row.batch)
    return batches


def _check_topic(reader: TopicReader, topic: str, batches: dict[int, list[Batch]], noted: Heads) -> list[Verdict]:
    checks = {
        partition: TopicCheck(partition, batches.get(partition, ()), noted.get(partition))
        for partition in sorted({*reader.partitions(topic), *batches, *noted})
    }
    for message in reader.records(topic, "checking"):
        _, timestamp_ms = message.timestamp()
        value = message.value()
        checks[message.partition() or 0].add(
            message.offset() or 0, timestamp_ms, value if isinstance(value, bytes) else None
        )
    return [check.end(reader.ends.get(partition, 0)) for partition, check in checks.items()]
