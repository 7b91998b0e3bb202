"""`vault-stream registry`: through the API of a running worker."""

from __future__ import annotations

import sys
import time
from typing import Any, Final
from urllib.parse import quote

import click

from app.cli.api import ApiError, call
from app.cli.output import json_option, print_json, print_table
from app.cli.topic_reader import progress_bar

__all__ = ["registry"]

LOOK_AGAIN_S: Final = 0.5
LOOKS_WITHOUT_ANSWER: Final = 20
_RELATIONSHIPS: Final = ("training_data", "evaluation_data", "validation_data", "test_data")


@click.group()
def registry() -> None:
    """Keep vault and dataset registry in step.

    Example: vault-stream registry sync --mode both
    """


@registry.command()
@click.option("--mode", type=click.Choice(["push", "pull", "both"]), help="Which way.  [default: that of the settings]")
@click.option("--no-wait", is_flag=True, help="Print its id, and do not wait for its end.")
@json_option
def sync(mode: str | None, *, no_wait: bool, as_json: bool) -> None:
    """Push what the registry does not have, pull what it has changed, or both; with a progress bar.

    Example: vault-stream registry sync --mode both
    """
    found = call("POST", "/v1/registry/sync", {} if mode is None else {"mode": mode})
    if no_wait:
        print_json(found) if as_json else click.echo(found["id"])
        return
    found = _followed(found["id"])
    found.pop("parts", None)
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found["state"] != "done" or found["failed"] or found["not_named"]:
        sys.exit(1)


@registry.command()
@click.argument("dataset_id")
@click.argument("model_id")
@click.argument("relationship", type=click.Choice(_RELATIONSHIPS))
@json_option
def link(dataset_id: str, model_id: str, relationship: str, *, as_json: bool) -> None:
    """Tell the registry that a model uses a dataset.

    Example: vault-stream registry link ds-1 model-7 training_data
    """
    body = {"dataset_id": dataset_id, "model_id": model_id, "relationship": relationship}
    found = call("POST", "/v1/registry/links", body)
    if as_json:
        print_json(found)
    else:
        click.echo(f"{dataset_id} is {relationship} of {model_id}: {found['status']}")


@registry.command()
@click.argument("dataset_id")
@json_option
def show(dataset_id: str, *, as_json: bool) -> None:
    """A dataset, and how much of it the registry has.

    Example: vault-stream registry show ds-1
    """
    found = call("GET", f"/v1/registry/datasets/{quote(dataset_id, safe='')}")
    if as_json:
        print_json(found)
    else:
        print_table(("field", "value"), list(found.items()))


def _followed(sync_id: str) -> dict[str, Any]:
    """The synchronisation as it ended."""
    silent = 0
    found: dict[str, Any] = {"state": "running"}
    with progress_bar() as progress:
        task = progress.add_task("synchronising", total=None)
        while found["state"] == "running":
            try:
                found, silent = call("GET", f"/v1/registry/sync/{sync_id}"), 0
            except ApiError as error:
                silent += 1
                # None: nothing listens, or not yet again.
                if error.status not in {None, 503} or silent > LOOKS_WITHOUT_ANSWER:
                    raise
            done = found.get("pushed", 0) + found.get("pulled", 0)
            total = done + found.get("waiting", 0)
            progress.update(task, completed=done, total=total or None, description=found["state"])
            if found["state"] == "running":
                time.sleep(LOOK_AGAIN_S)
    if found["state"] == "failed":
        click.echo("a part of it was lost with its worker; what it did stands: synchronise again", err=True)
    return found


def _print(found: dict[str, Any]) -> None:
    shown = ("id", "state", "mode", "pushed", "pulled", "waiting")
    print_table(("field", "value"), [(name, found.get(name)) for name in shown])
    for conflict in found.get("conflicts", ()):
        click.echo(f"conflict: {conflict['dataset_id']}, and the {conflict['winner']} won")
    for failed in found.get("failed", ()):
        click.echo(f"failed: {failed['id']}: {failed['reason']}")
    if more := found.get("not_named"):
        click.echo(f"and {more} more conflicts and failures: see registry.changes and the log")
