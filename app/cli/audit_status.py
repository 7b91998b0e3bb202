"""`vault-stream audit status`: how far the audit trail of each partition is, through the API of a running worker."""

from __future__ import annotations

from typing import Any, Final

import click

from app.cli.api import call
from app.cli.output import json_option, print_json, print_table

__all__ = ["status"]

_COLUMNS: Final = {
    "partition": "partition",
    "head_sequence": "head",
    "head_hash": "hash",
    "unsealed": "unsealed",
    "sealed": "sealed",
    "oldest_unaccepted_s": "oldest unaccepted",
}


@click.command()
@json_option
def status(*, as_json: bool) -> None:
    """The head of each chain, what is not sealed, and what the dashboard has not accepted yet, and for how long.

    A head that you note here is what `audit verify --head PARTITION:HEAD:HASH` compares with later. Exits with 1 if the
    owner of a partition did not answer.

    Example: vault-stream audit status
    """
    found = call("GET", "/v1/governance/status")
    if as_json:
        print_json(found)
    else:
        print_table(list(_COLUMNS.values()), [_row(partition) for partition in found["partitions"]])
        if detail := found.get("detail"):
            click.echo(detail)
    if found["missing"]:
        partitions = ", ".join(map(str, found["missing"]))
        raise click.ClickException(f"the owners of these partitions did not answer; ask again: {partitions}")


def _row(partition: dict[str, Any]) -> list[Any]:
    age_s = partition["oldest_unaccepted_s"]
    shown = {**partition, "oldest_unaccepted_s": None if age_s is None else f"{age_s:.1f} s"}
    return [shown[name] for name in _COLUMNS]
