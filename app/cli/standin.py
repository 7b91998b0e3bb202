"""`vault-stream standin`: one of the vault's neighbours, for whoever develops against it without having it."""

import asyncio
import os
import signal
from typing import Final

import click

from app.cli.output import json_option, print_json
from app.devstack.registry_standin import DatasetRegistry
from app.devstack.standins import Dashboard, Observations, PolicyEngine, Standin

__all__ = ["standin"]

KINDS: Final[dict[str, type[Standin]]] = {"dashboard": Dashboard, "policy": PolicyEngine, "registry": DatasetRegistry}
SETTINGS: Final = {"dashboard": "GOVERNANCE", "policy": "POLICY", "registry": "REGISTRY"}
_MAX_PORT: Final = 65_535


@click.command()
@click.argument("which", type=click.Choice(list(KINDS)))
@click.option("--port", type=click.IntRange(0, _MAX_PORT), default=0, help="Where to listen; by default a free one.")
@click.option("--token", help="Take requests with this token only, as Bearer in Authorization.")
@json_option
def standin(*, which: str, port: int, token: str | None, as_json: bool) -> None:
    """Run a stand-in for one of the upstreams on loopback, until Ctrl-C.

    It remembers what it is sent, and forgets it when it ends. GET /openapi.json says what it takes and answers, GET
    /observed what it has seen; POST /control makes it misbehave, as in {"status": 503, "times": 3}.

    Example: vault-stream standin policy --port 9300
    """
    try:
        asyncio.run(_serve(which, port, token, as_json=as_json))
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise click.ClickException(f"cannot listen on port {port}: {why}; choose another --port") from None
    click.echo("ended", err=True)


async def _serve(which: str, port: int, token: str | None, *, as_json: bool) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    server = KINDS[which](Observations())
    server.token = token
    await server.start(port)
    try:
        if as_json:
            print_json({"kind": which, "url": server.url})
        else:
            click.echo(f"{which:<11} {server.url}")
            click.echo(f"document    {server.url}/openapi.json")
            click.echo(f"seen        {server.url}/observed")
            click.echo(f"a worker    VAULT_STREAM_{SETTINGS[which]}__ENDPOINT={server.url}")
        await ended.wait()
    finally:
        await server.stop()
