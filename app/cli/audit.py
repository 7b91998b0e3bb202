"""`vault-stream audit`: is the chain of audit events whole?

`verify --topic` needs the broker alone, no service: the audit topic, and the sealed batches in the changelog of the
table `audit`. `verify FILE` needs nothing but an export.
"""

from __future__ import annotations

import re
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from app.cli.audit_export import export
from app.cli.audit_status import status
from app.cli.broker import broker_of
from app.cli.options import require_range, time_range_options
from app.cli.output import json_option, print_json, show
from app.cli.sealed import Range, read_ranges, read_sealed
from app.cli.topic_reader import TopicReader, progress_bar
from app.events import format_time, loads_strict
from app.integrations.export import CSV_COLUMNS
from app.integrations.export_range import between
from app.integrations.verification import Finding, TopicCheck, Verdict
from app.integrations.verification import verify as verify_entries
from app.settings import load_settings
from app.topics import Topics
from tables.audit import AUDIT
from tables.audit_sealed import kept_since_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from app.integrations.chain import Batch
    from app.settings import Settings

__all__ = ["audit"]

_DEPTH: Final = 66
_HASH: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_CSV_HEAD: Final = ",".join(CSV_COLUMNS[:2]).encode()

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
        if not (partition.isdecimal() and sequence.isdecimal() and _HASH.fullmatch(digest.lower())):
            self.fail(f"{value!r} is not partition:sequence:hash, the hash with all of its 64 digits", param, ctx)
        return int(partition), int(sequence), digest.lower()


audit.add_command(export)
audit.add_command(status)


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
@click.option(
    "--no-trailer", is_flag=True, help="FILE is a collection of entries, not an export: a cut tail does not show."
)
@time_range_options()
@json_option
def verify(
    file: Path | None,
    *,
    topic: bool,
    heads: tuple[tuple[int, int, str], ...],
    no_trailer: bool,
    from_ms: int | None,
    to_ms: int | None,
    as_json: bool,
) -> None:
    """Check the hash chains of an export FILE (JSON lines), or of the topic; exit code 1 names what is broken.

    With a time range: what was recorded in it, and on the topic the rest of the batches at its ends.

    Example: vault-stream audit verify --topic --from 2026-01-01
    """
    if (file is None) != topic:
        raise click.UsageError("give either an export FILE or --topic")
    if topic and no_trailer:
        raise click.UsageError("--no-trailer is about a FILE: the topic has no trailers")
    require_range(from_ms, to_ms)
    noted = {partition: (sequence, digest) for partition, sequence, digest in heads}
    # Of the file and no partition; it is known by itself, as an entry may claim any number, or none.
    whole = Verdict(-1)
    if file is None:
        verdicts = _verify_topic(load_settings(), noted, from_ms, to_ms)
    else:
        lines = between(_lines(file, whole, no_trailer=no_trailer), *map(_recorded_at, (from_ms, to_ms)))
        verdicts = verify_entries(lines, noted, trailers=not no_trailer)
        verdicts = verdicts if whole.ok else [whole, *verdicts]
    sound = all(verdict.ok for verdict in verdicts)
    if as_json:
        print_json({"ok": sound, "partitions": [{"ok": verdict.ok, **asdict(verdict)} for verdict in verdicts]})
    else:
        _print(verdicts, whole, of_file=file is not None)
    if not sound:
        raise click.exceptions.Exit(1)


def _recorded_at(at_ms: int | None) -> str | None:
    return None if at_ms is None else format_time(at_ms)


def _print(verdicts: list[Verdict], whole: Verdict, *, of_file: bool) -> None:
    for verdict in verdicts:
        if verdict is whole:
            click.echo("the file: BROKEN")
        elif verdict.first is None or verdict.head is None:
            click.echo(f"partition {verdict.partition}: nothing to check")
        else:
            begin = "the beginning of the chain" if verdict.from_start else "trusting what came before"
            # An export has no sealed batches to compare with.
            compared = f"{verdict.batches} sealed batches compared, {verdict.unsealed} not sealed yet, "
            click.echo(
                f"partition {verdict.partition}: {verdict.checked} entries, from {verdict.first} ({begin}) to "
                f"{verdict.head[0]} ({verdict.head[1]}), {'' if of_file else compared}{verdict.repeats} repeats: "
                f"{'ok' if verdict.ok else 'BROKEN'}"
            )
            if of_file and not verdict.ended:
                click.echo("  without a trailer or --head: a cut tail would not show")
            if verdict.filtered:
                click.echo("  of one resource: its entries are not chained to each other, its trailer has their number")
        for finding in verdict.findings:
            click.echo(f"  {finding.kind}: {show(finding.detail)}")
    if not verdicts:
        click.echo("nothing to check")


# -- an export


def _lines(file: Path, whole: Verdict, *, no_trailer: bool) -> Iterator[dict[str, Any]]:
    """The lines of an export; of one that was cut in the middle of a line `whole` is told."""
    recognised = False
    with progress_bar() as progress, file.open("rb") as lines:
        task = progress.add_task("checking", total=file.stat().st_size)
        for number, line in enumerate(lines, 1):
            progress.advance(task, len(line))
            if not line.strip():
                continue
            if _is_cut(line):
                recognised = True
                detail = f"line {number} ends in its middle: the file was cut, or not written to its end"
                whole.findings.append(Finding("truncated", detail))
                continue
            entry = _entry(file, number, line)
            # A later entry without its fields is a finding of the check; a first one says that this is another file.
            if "trailer" in entry or not recognised:
                _require_fields(file, number, entry)
            recognised = True
            yield entry
    if not recognised and not no_trailer:
        raise click.ClickException(f"{file} is empty: an export has a trailer for each partition at least")


def _is_cut(line: bytes) -> bool:
    if line.endswith(b"\n") or not line.startswith(b"{"):
        return False
    try:
        loads_strict(line, depth=_DEPTH)
    except ValueError:
        return True
    return False


def _entry(file: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        entry = loads_strict(line, depth=_DEPTH)
    except ValueError as error:
        if number == 1 and line.startswith(_CSV_HEAD):
            raise click.ClickException(
                f"{file} is CSV, for spreadsheets: export with --format jsonl to verify"
            ) from None
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


def _verify_topic(settings: Settings, noted: Heads, from_ms: int | None, to_ms: int | None) -> list[Verdict]:
    topics = Topics(settings.topic_prefix, settings.app_id)
    with broker_of(settings) as broker, closing(TopicReader(broker)) as reader:
        # The batches first: every record that they speak of is in the topic by then.
        sealed = read_sealed(reader, topics.changelog(AUDIT.name))
        ranges = read_ranges(reader, topics.audit, from_ms, to_ms)
        kept_ms = kept_since_ms(time.time_ns() // 1_000_000, settings.governance.retention_d)
        verdicts = []
        # One at a time, for the batches of one are in memory.
        for partition in sorted({*ranges, *sealed.rows, *noted}):
            range_, head = ranges.get(partition, Range(0, 0, 0)), noted.get(partition)
            chosen = _Chosen.of(range_, sealed.batches(partition), from_ms, to_ms)
            if (from_ms is not None or to_ms is not None) and head is not None and not chosen.has(head[0]):
                head = None
            check = TopicCheck(partition, chosen.batches, head, kept_ms)
            verdicts.append(_check_partition(reader, topics.audit, partition, chosen, check))
        return verdicts


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What of a partition is checked: whole batches, so that each can be compared."""

    start: int
    stop: int
    batches: list[Batch]

    @classmethod
    def of(cls, range_: Range, batches: Iterable[Batch], from_ms: int | None, to_ms: int | None) -> _Chosen:
        """Those that lie in the range, and those of its time that the topic does not have any more."""
        ordered = sorted(batches, key=lambda batch: batch.first)
        before = [batch.first for batch in ordered if batch.first <= range_.first and range_.first > range_.begin]
        start = max(range_.begin, max(before, default=range_.first))
        stop = range_.until
        if to_ms is not None:
            ordered = [batch for batch in ordered if batch.first < range_.until]
            stop = max([stop, *(batch.last + 1 for batch in ordered)])

        def gone(batch: Batch) -> bool:
            in_time = (from_ms is None or batch.newest_ms >= from_ms) and (to_ms is None or batch.oldest_ms < to_ms)
            return batch.last < range_.begin and in_time

        return cls(start, stop, [batch for batch in ordered if batch.last >= start or gone(batch)])

    def has(self, offset: int) -> bool:
        return self.start <= offset < self.stop


def _check_partition(reader: TopicReader, topic: str, partition: int, chosen: _Chosen, check: TopicCheck) -> Verdict:
    for message in reader.records(topic, f"checking partition {partition}", {partition: (chosen.start, chosen.stop)}):
        _, timestamp_ms = message.timestamp()
        value = message.value()
        check.add(message.offset() or 0, timestamp_ms, value if isinstance(value, bytes) else None)
    return check.end(min(reader.ends.get(partition, 0), chosen.stop))
