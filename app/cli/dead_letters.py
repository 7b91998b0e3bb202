"""`vault-stream dead-letters`: deliveries that were given up, through the API of a running worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from app.cli.api import call
from app.cli.output import json_option, print_json, print_table
from app.cli.topic_reader import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["dead_letters"]

PAGE = 200


@click.group("dead-letters")
def dead_letters() -> None:
    """Deliveries that were given up, with their event and the reason.

    Example: vault-stream dead-letters list --webhook wh_abc
    """


def _filtered(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--until", help="Given up before this time or date."),
        click.option("--since", help="Given up at or after this time (RFC 3339) or date (UTC)."),
        click.option("--type", "event_type", help="Of one event type, such as dataset.created."),
        click.option("--reason", type=click.Choice(["exhausted", "rejected", "expired"]), help="For one reason."),
        click.option("--webhook", "webhook_id", help="Of one webhook."),
    ):
        command = option(command)
    return command


@dead_letters.command("list")
@_filtered
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many, newest first.")
@json_option
def list_dead_letters(limit: int, *, as_json: bool, **only: str | None) -> None:
    """Dead letters, newest first; of each delivery the last one.

    Example: vault-stream dead-letters list --reason rejected
    """
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while len(items) < limit:
        query = {**only, "limit": min(PAGE, limit - len(items)), "cursor": cursor}
        page = call("GET", "/v1/dead-letters", params=query)
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    if as_json:
        print_json({"items": items, "next_cursor": cursor})
    elif not items:
        click.echo("no dead letters" if not any(only.values()) else "no such dead letters")
    else:
        columns = ("id", "given_up_at", "reason", "webhook_id", "event_type", "attempts", "last_error", "delivery_id")
        print_table(columns, [[item.get(column, "") for column in columns] for item in items])
        if cursor is not None:
            click.echo("there are more; see --limit", err=True)


@dead_letters.command("show")
@click.argument("id_", metavar="ID")
@json_option
def show_dead_letter(id_: str, *, as_json: bool) -> None:
    """One dead letter, with its event.

    Example: vault-stream dead-letters show 3-41
    """
    found = call("GET", f"/v1/dead-letters/{quote(id_, safe='')}")
    if as_json:
        print_json(found)
    else:
        print_table(("field", "value"), list(found.items()))


@dead_letters.command("resend")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_filtered
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def resend_dead_letters(
    ids: tuple[str, ...], *, everything: bool, yes: bool, as_json: bool, **only: str | None
) -> None:
    """Make deliveries again, by ID or by filter, with the same event, bytes and delivery id.

    Exit code 1 if any could not be.

    Example: vault-stream dead-letters resend --webhook wh_abc --since 2026-03-01T00:00:00Z
    """
    chosen = {name: value for name, value in only.items() if value is not None}
    if bool(ids) + bool(chosen) + everything != 1:
        raise click.UsageError("give ids, or a filter, or --all")
    if not ids and not yes:
        what = "all dead letters" if everything else "the dead letters of this filter"
        click.confirm(f"send {what} again?", abort=True, err=True)
    resent, refused = _each(ids) if ids else _matching({"all": True} if everything else chosen)
    if as_json:
        print_json({"resent": resent, "refused": refused})
    else:
        click.echo(f"{len(resent)} sent again, {len(refused)} refused")
    for one in refused if not as_json else ():
        click.echo(f"{one['id']}: {one['code']}", err=True)
    if refused:
        raise click.exceptions.Exit(1)


def _each(ids: tuple[str, ...]) -> tuple[list[str], list[dict[str, str]]]:
    answers = [call("POST", f"/v1/dead-letters/{quote(id_, safe='')}/resend", {}) for id_ in dict.fromkeys(ids)]
    return [answer["delivery_id"] for answer in answers], []


def _matching(body: dict[str, Any]) -> tuple[list[str], list[dict[str, str]]]:
    resent: list[str] = []
    refused: list[dict[str, str]] = []
    with progress_bar() as progress:
        task = progress.add_task("sending again", total=None)
        while True:
            answer = call("POST", "/v1/dead-letters/resend", body)
            resent += answer["resent"]
            refused += answer["refused"]
            progress.update(task, completed=len(resent))
            if answer["next_cursor"] is None:
                return resent, refused
            body = {**body, "cursor": answer["next_cursor"]}
