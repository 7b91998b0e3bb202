"""`vault-stream demo`: everything on this machine, with a real workload, counted."""

import asyncio
import logging
import shutil
import signal
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.cli.output import json_option, print_json
from app.devstack.broker import BrokerKind, running_broker
from app.devstack.demo import Demo, DemoError, demo_workload
from app.devstack.dev import DevError
from app.devstack.embedded import EmbeddedBrokerError
from app.devstack.jars import JarsError
from app.devstack.kafka import KafkaServerError
from app.devstack.processes import ProcessEndedError
from app.devstack.stack import ApiRefusedError
from app.devstack.tally import Result
from app.devstack.workload import MIN_EVENTS
from app.topics import TopicError

__all__ = ["EXPECTED_ERRORS", "demo"]

EXPECTED_ERRORS = (
    ApiRefusedError,
    DemoError,
    DevError,
    EmbeddedBrokerError,
    JarsError,
    KafkaServerError,
    ProcessEndedError,
    TopicError,
)
T = TypeVar("T")


@click.command()
@click.option("--events", type=click.IntRange(min=MIN_EVENTS), default=2000, show_default=True, help="How many events.")
@click.option(
    "--broker",
    type=click.Choice(["embedded", "kafka"]),
    default="embedded",
    show_default=True,
    help="embedded needs nothing and guarantees nothing; kafka needs Java 17 and Maven.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same events.")
@json_option
def demo(*, events: int, broker: BrokerKind, seed: int, as_json: bool) -> None:
    """Play a vault's day: events of all 22 types, three receivers, upstreams, a worker killed in the middle.

    Ends with what was expected and what arrived; exit code 0 only if nothing was lost.

    Example: vault-stream demo --events 500
    """
    folder = Path(tempfile.mkdtemp(prefix="vault-stream-demo-"))
    logging.basicConfig(filename=folder / "demo.log", level=logging.WARNING)  # else clients' retries are in the bars
    try:
        with _bars() as bars, running_broker(broker, folder / "kafka") as running:
            workload = demo_workload(running, events, seed=seed)
            result = _run(Demo(running, workload, folder, bars).run())
    except EXPECTED_ERRORS as error:
        raise click.ClickException(f"{error}; logs: {folder}") from None
    except BaseException:
        click.echo(f"logs: {folder}", err=True)
        raise
    if as_json:
        print_json(result.as_json())
    else:
        Console().print(_table(result))
    if not result.ok:
        raise click.ClickException(f"{result.lost} effects lost; logs: {folder}")
    shutil.rmtree(folder)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Runs it to its end; SIGTERM ends it as Ctrl-C does, with everything cleared away."""

    async def body() -> T:
        task = asyncio.ensure_future(work)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    try:
        return asyncio.run(body())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


class _Bars:
    """The demo's display: a line for each step, a bar for each number."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def say(self, line: str) -> None:
        """A step began."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def count(self, what: str, done: int, total: int) -> None:
        """So far."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=min(done, total))


@contextmanager
def _bars() -> Iterator[_Bars]:
    columns = (TextColumn("{task.description:>24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield _Bars(progress)


def _table(result: Result) -> Table:
    table = Table(title="nothing was lost" if result.ok else f"{result.lost} effects lost")
    table.add_column("what")
    table.add_column("expected", justify="right")
    table.add_column("observed", justify="right")
    rows = (
        ("deliveries accepted", result.deliveries_expected, result.deliveries_observed),
        ("deliveries waiting for a receiver that hangs", result.waiting_expected, result.waiting_observed),
        ("deliveries accepted twice (allowed)", "", result.duplicates),
        ("signatures that did not verify", 0, result.signatures_bad),
        ("repeats with other bytes", 0, result.bodies_changed),
        ("events audited", result.audit_expected, result.audit_observed),
        ("audit chain", "whole", "whole" if result.chain_ok else "broken"),
        ("violations reported", result.violations_expected, result.violations_observed),
        ("datasets registered", result.datasets_expected, result.datasets_registered),
        ("deleted datasets still registered", 0, result.datasets_stale),
        ("broken records in quarantine", result.quarantined_expected, result.quarantined),
        ("other records in quarantine", 0, result.quarantined_wrongly),
    )
    for what, expected, observed in rows:
        table.add_row(what, str(expected), str(observed))
    return table
