"""`vault-stream publish`: CloudEvents from a file or a pipe to their topics."""

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from app.devstack.samples import sample_event
from app.events import CloudEvent, InvalidEvent, decode_structured, encode_structured
from app.publishing import (
    EventError,
    EventPublisher,
    KafkaConfig,
    KafkaEventPublisher,
    KafkaSecurity,
    SerializationError,
    checked,
)
from app.settings import Settings, SettingsError, load_settings

__all__ = ["publish"]

_CHUNK_BYTES: Final = 256 * 1024


@dataclass(slots=True)
class _Report:
    """What became of the lines.

    Attributes:
        aloud: Whether a refusal is said on standard error at once.
    """

    aloud: bool = True
    accepted: int = 0
    refused: list[dict[str, Any]] = field(default_factory=list)

    def refuse(self, line: int, reason: str, event_id: str | None = None) -> None:
        self.refused.append({"line": line, "reason": reason, **({"id": event_id} if event_id else {})})
        if self.aloud:
            click.echo(f"line {line}: {reason}", err=True)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), default="-")
@click.option("--check", is_flag=True, help="Only validate; needs no broker.")
@click.option("--sample", is_flag=True, help="Publish one event that was made up: a dataset was created.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def publish(file: str, check: bool, sample: bool, as_json: bool) -> None:
    """Publish CloudEvents, one JSON object a line, from FILE or standard input.

    Lines that are refused go to standard error (with --json into the object) with line number and reason, and the rest
    is sent. Exits 1 if any line was refused.

    Example: vault-stream publish events.jsonl
    """
    if sample and file != "-":
        raise click.UsageError("--sample takes no FILE")
    report = _Report(aloud=not as_json)
    with ExitStack() as stack:
        event = sample_event() if sample else None
        source = sys.stdin.buffer if event is None else BytesIO(encode_structured(checked(event)))
        if file != "-":
            source = stack.enter_context(Path(file).open("rb"))
        size_bytes = None if file == "-" else Path(file).stat().st_size
        progress = stack.enter_context(_progress())
        task = progress.add_task("checking" if check else "publishing", total=size_bytes)
        batches = _advancing(_lines_only(_batches(source), check=check), progress, task)
        if check:
            for batch in batches:
                report.accepted += len(_decoded(batch, report))
        else:
            _publish_all(batches, report)
    if event is not None and report.accepted:
        click.echo(f"{event.type}, id {event.id}", err=True)
    _print(report, check=check, as_json=as_json)
    if report.refused:
        sys.exit(1)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Lines that were there together.

    Attributes:
        lines: With their numbers, from 1; empty ones left out.
        size_bytes: How much of the input they are.
    """

    lines: list[tuple[int, bytes]]
    size_bytes: int


def _lines_only(batches: Iterator[_Batch], *, check: bool) -> Iterator[_Batch]:
    """The same; what begins as JSON over several lines, or as an array, is none of ours.

    Raises:
        click.ClickException: It says how to write one event a line.
    """
    first = True
    for batch in batches:
        if first and batch.lines:
            first = False
            number, line = batch.lines[0]
            begin = line.strip()
            if begin.startswith(b"["):
                jq = _jq(".[]", check=check)
                raise click.ClickException(f"line {number}: a JSON array; write one event a line: {jq}")
            if begin == b"{":
                jq = _jq(".", check=check)
                raise click.ClickException(f"line {number}: JSON over several lines; write one event a line: {jq}")
        yield batch


def _jq(filter_: str, *, check: bool) -> str:
    return f"jq -c '{filter_}' FILE | vault-stream publish{' --check' if check else ''}"


def _batches(source: BufferedReader | Any) -> Iterator[_Batch]:
    """The input in batches, each as soon as it is there, so that a pipe is published as it flows."""
    number = 0
    rest = b""
    while chunk := source.read1(_CHUNK_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        numbered = [(number + place, line) for place, line in enumerate(whole, 1)]
        number += len(whole)
        yield _Batch([(place, line) for place, line in numbered if line.strip()], len(chunk))
    if rest.strip():
        yield _Batch([(number + 1, rest)], 0)


def _advancing(batches: Iterator[_Batch], progress: Progress, task: Any) -> Iterator[_Batch]:
    for batch in batches:
        yield batch
        progress.advance(task, batch.size_bytes)


def _decoded(batch: _Batch, report: _Report) -> list[tuple[int, CloudEvent]]:
    events = []
    for number, line in batch.lines:
        try:
            events.append((number, checked(decode_structured(line.strip()))))
        except (InvalidEvent, SerializationError) as error:
            report.refuse(number, str(error))
    return events


def _publish_all(batches: Iterator[_Batch], report: _Report) -> None:
    # What the client logs comes back as an error, in one line.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    try:
        publisher = KafkaEventPublisher(_kafka_config(load_settings()))
        # Input is read outside the loop's run, where Ctrl-C interrupts a waiting read at once.
        with asyncio.Runner() as runner:
            runner.run(publisher.start())
            try:
                for batch in batches:
                    runner.run(_publish_batch(publisher, _decoded(batch, report), report))
            finally:
                runner.run(publisher.stop())
    except (SettingsError, EventError) as error:
        raise click.ClickException(str(error)) from None


async def _publish_batch(publisher: EventPublisher, events: list[tuple[int, CloudEvent]], report: _Report) -> None:
    result = await publisher.publish_batch([event for _, event in events])
    report.accepted += result.successful
    for failure in result.errors:
        report.refuse(events[failure.index][0], str(failure.error), failure.event_id)


def _kafka_config(settings: Settings) -> KafkaConfig:
    kafka = settings.kafka
    password = kafka.sasl_password
    return KafkaConfig(
        brokers=[broker.strip() for broker in settings.brokers.split(",")],
        topic_prefix=settings.topic_prefix,
        topic_layout=settings.topic_layout,
        client_id=f"{settings.app_id}-publish",
        security=KafkaSecurity(
            protocol=kafka.security_protocol,
            sasl_mechanism=kafka.sasl_mechanism,
            sasl_username=kafka.sasl_username,
            sasl_password=None if password is None else password.get_secret_value(),
            ssl_ca=None if kafka.ssl_ca is None else str(kafka.ssl_ca),
            ssl_cert=None if kafka.ssl_cert is None else str(kafka.ssl_cert),
            ssl_key=None if kafka.ssl_key is None else str(kafka.ssl_key),
        ),
    )


def _print(report: _Report, *, check: bool, as_json: bool) -> None:
    done = "valid" if check else "published"
    if as_json:
        click.echo(json.dumps({done: report.accepted, "refused": len(report.refused), "errors": report.refused}))
    else:
        click.echo(f"{report.accepted} {done}, {len(report.refused)} refused")
