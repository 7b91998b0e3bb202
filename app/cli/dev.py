"""`vault-stream dev`: everything on this machine, to look at and to try things with."""

import asyncio
import logging
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

import click

from app.cli.demo import EXPECTED_ERRORS
from app.devstack.broker import BrokerKind, running_broker
from app.devstack.dev import DevError, Wishes, chosen_port, dev_folder, exclusive, run_dev
from app.devstack.jars import missing_for_kafka
from app.devstack.kafka import DEFAULT_PORT, port_is_free

__all__ = ["dev"]

PORT: Final = click.IntRange(0, 65_535)


@click.command()
@click.option(
    "--port",
    type=PORT,
    metavar="PORT",
    envvar="VAULT_STREAM_WEB_PORT",
    help="Of console and API; 8088 if it is free. 0: any.",
)
@click.option(
    "--broker",
    type=click.Choice(["auto", "kafka", "embedded"]),
    default="auto",
    show_default=True,
    help="auto is kafka where Java and Maven are found.",
)
@click.option("--broker-port", type=PORT, metavar="PORT", help="Of Kafka; 9092 if it is free. 0: any.")
@click.option("--receiver-port", type=PORT, metavar="PORT", help="Of the receiver; the same each time. 0: any.")
@click.option(
    "--traffic",
    type=click.FloatRange(0, 1000),
    default=0.0,
    metavar="RATE",
    help="Publish so many sample events a second.",
)
def dev(
    *,
    port: int | None,
    broker: Literal["auto", "kafka", "embedded"],
    broker_port: int | None,
    receiver_port: int | None,
    traffic: float,
) -> None:
    """Run a broker, stand-in upstreams, a receiver and a worker until Ctrl-C, and print where they are.

    The broker is Apache Kafka where Java and Maven are found, and keeps everything in
    $XDG_STATE_HOME/vault-stream/dev (else ~/.local/state/…); otherwise it is the embedded one, which keeps nothing.
    What arrives at the receiver is printed. A second Ctrl-C ends without waiting for what is under way.

    Example: vault-stream dev --traffic 2
    """
    _require_free(port, receiver_port, broker_port)
    kind = _kind(broker)
    if kind == "embedded" and broker_port is not None:
        raise click.UsageError("--broker-port is for --broker kafka: the embedded one takes any")
    # What a client of a broker that has gone says of it is in the way of what is printed here.
    logging.getLogger().addHandler(logging.NullHandler())
    signal.signal(signal.SIGTERM, _interrupt)
    wishes = Wishes(port, receiver_port, traffic, _program())
    try:
        if kind == "kafka":
            with exclusive(dev_folder()):
                _dev(kind, dev_folder(), broker_port, wishes)
        else:
            with tempfile.TemporaryDirectory(prefix="vault-stream-dev-") as folder:
                _dev(kind, Path(folder), None, wishes)
    except EXPECTED_ERRORS as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        pass
    click.echo("ended", err=True)


def _require_free(port: int | None, receiver_port: int | None, broker_port: int | None) -> None:
    """Before anything is started."""
    ports = (("--port", port), ("--receiver-port", receiver_port), ("--broker-port", broker_port))
    try:
        for option, wanted in ports:
            if wanted:
                chosen_port(wanted, wanted, option)
    except DevError as error:
        raise click.ClickException(str(error)) from None


def _kind(wanted: Literal["auto", "kafka", "embedded"]) -> BrokerKind:
    missing = missing_for_kafka() if wanted == "auto" else None
    if wanted == "kafka" or (wanted == "auto" and missing is None):
        click.echo(f"starting Apache Kafka; everything is kept in {dev_folder()}", err=True)
        return "kafka"
    if missing is not None:
        click.echo(missing, err=True)
    click.echo("running on the embedded broker: nothing is kept", err=True)
    return "embedded"


def _dev(kind: BrokerKind, folder: Path, broker_port: int | None, wishes: Wishes) -> None:
    if broker_port is not None:
        broker_port = chosen_port(broker_port, DEFAULT_PORT, "--broker-port")
    elif kind == "kafka" and port_is_free(DEFAULT_PORT):
        broker_port = DEFAULT_PORT
    with running_broker(kind, folder / "kafka", broker_port) as running:
        click.echo("starting a worker", err=True)
        asyncio.run(_until_asked(running, folder, wishes))


async def _until_asked(broker: Any, folder: Path, wishes: Wishes) -> None:
    hurry = asyncio.Event()
    work = asyncio.ensure_future(run_dev(broker, folder, click.echo, wishes, hurry))
    asked = False

    def end() -> None:
        nonlocal asked
        if asked:
            hurry.set()
            return
        asked = True
        click.echo("ending: what is under way is finished first; Ctrl-C again ends at once", err=True)
        work.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    try:
        await work
    except asyncio.CancelledError:
        if not asked:
            raise


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _program() -> str:
    """How to call us again, by whoever has no `vault-stream` on the path."""
    if shutil.which("vault-stream"):
        return "vault-stream"
    return "python -m app" if sys.argv[0].endswith("__main__.py") else sys.argv[0]
