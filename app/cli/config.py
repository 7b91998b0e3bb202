"""`vault-stream config`: the effective settings, and where each came from."""

from __future__ import annotations

import click

from app.cli.output import json_option, print_json, print_table
from app.settings import DEFAULT, VARIABLES, load_settings

__all__ = ["config"]


@click.command()
@json_option
def config(*, as_json: bool) -> None:
    """Show every setting with its value and its origin: default, environment, .env, secrets dir or data dir.

    Secrets are masked. Settings that cannot be used are named, one line each, and the exit code is 1.

    Example: VAULT_STREAM_WEB_PORT=9000 vault-stream config
    """
    settings = load_settings()
    rows = [
        (variable.name, variable.shown(settings), settings.sources.get(variable.name, DEFAULT))
        for variable in VARIABLES
    ]
    if as_json:
        print_json({"settings": [{"name": name, "value": value, "origin": origin} for name, value, origin in rows]})
    else:
        print_table(("name", "value", "origin"), rows)
