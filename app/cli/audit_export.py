"""`vault-stream audit export`: the audit trail with its hashes, straight from the broker; no service is needed."""

from __future__ import annotations

import hashlib
import sys
import uuid
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from app.cli.broker import broker_of
from app.cli.options import require_range, time_range_options
from app.cli.output import json_option, print_json
from app.cli.sealed import export_spans, read_ranges, read_sealed
from app.cli.topic_reader import TopicReader
from app.events import AdminEventType, format_time
from app.integrations.export import FORMATS, PartitionExport, writer_of
from app.redrive.operator import Transactions, operator_event
from app.settings import load_settings
from app.topics import Topics
from tables.audit import AUDIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.cli.broker import Broker
    from app.integrations.export import Span, Writer
    from app.settings import Settings

__all__ = ["export", "saved_whole"]


@click.command()
@time_range_options()
@click.option("--resource", help="Only of this resource or dataset id.")
@click.option("--format", "format_", type=click.Choice(FORMATS), default="jsonl", show_default=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Into this file; else, and for -, standard output.",
)
@json_option
def export(
    from_ms: int | None,
    to_ms: int | None,
    resource: str | None,
    format_: str,
    output: Path | None,
    *,
    as_json: bool,
) -> None:
    """Write audit events with their hashes, and a trailer for each partition; tells how many, and the SHA-256.

    The JSON lines are what `audit verify FILE` reads; CSV is for spreadsheets. That it was exported is audited.

    Example: vault-stream audit export --from 2026-01-01 --to 2026-02-01 -o january.jsonl
    """
    require_range(from_ms, to_ms)
    output = None if output == Path("-") else output
    settings = load_settings()
    asked = {"from": _shown(from_ms), "to": _shown(to_ms), "resource": resource, "format": format_}
    topics = Topics(settings.topic_prefix, settings.app_id)
    with broker_of(settings) as broker, closing(TopicReader(broker)) as reader:
        sealed = read_sealed(reader, topics.changelog(AUDIT.name))
        spans = export_spans(sealed, read_ranges(reader, topics.audit, from_ms, to_ms))
        _announce(settings, broker, topics, asked)
        with saved_whole(output) as file:
            target = _Target(file)
            entries = _write(reader, topics.audit, spans, resource, writer_of(format_), target)
    done = {
        "file": None if output is None else str(output),
        "entries": entries,
        "partitions": len(spans),
        "bytes": target.size_bytes,
        "sha256": target.digest,
    }
    # Standard output may be the export itself.
    to_stderr = output is None
    if as_json and not to_stderr:
        print_json(done)
    else:
        told = f"{entries} audit events of {len(spans)} partitions, {target.size_bytes} bytes, SHA-256 {target.digest}"
        click.echo(told, err=to_stderr)


class _Target:
    """A file, with the digest of what went into it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.size_bytes = 0

    @property
    def digest(self) -> str:
        return self._sha256.hexdigest()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self.size_bytes += len(data)


@contextmanager
def saved_whole(path: Path | None) -> Iterator[BinaryIO]:
    """A file that has its name only once it is whole; standard output for None.

    Raises:
        click.ClickException: It cannot be written.
    """
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


def _write(
    reader: TopicReader, topic: str, spans: list[Span], resource: str | None, writer: Writer, target: _Target
) -> int:
    folds = {span.partition: PartitionExport(span, resource) for span in spans}
    target.write(writer.head())
    places = {span.partition: (span.start, span.until) for span in spans}
    for message in reader.records(topic, "exporting", places):
        value, (_, timestamp_ms) = message.value(), message.timestamp()
        entry = folds[message.partition() or 0].add(
            message.offset() or 0, timestamp_ms, value if isinstance(value, bytes) else None
        )
        if entry is not None:
            target.write(writer.entry(entry))
    for fold in folds.values():
        target.write(writer.trailer(fold.trailer(len(folds))))
    return sum(fold.entries for fold in folds.values())


def _announce(settings: Settings, broker: Broker, topics: Topics, asked: dict[str, Any]) -> None:
    """What the auditors do not know of does not happen."""
    data = {"id": topics.audit, **{name: value for name, value in asked.items() if value is not None}}
    event = operator_event(settings.app_id, AdminEventType.OPERATOR_EXPORTED, data)
    producer = Transactions(broker.config, f"{settings.app_id}-export-{uuid.uuid4()}", embedded=broker.embedded)
    with producer.begin() as transaction:
        transaction.tell(topics.events, event)


def _shown(at_ms: int | None) -> str | None:
    return None if at_ms is None else format_time(at_ms)
