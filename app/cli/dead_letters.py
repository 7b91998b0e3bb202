"""`vault-stream dead-letters`: deliveries that were given up, through the API of a running worker."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import click

from app.cli.api import ApiError, call
from app.cli.options import require_consent
from app.cli.output import json_option, print_json, print_table
from app.cli.resending import keyed_run, resend_key_option
from app.cli.topic_reader import progress_bar
from app.events import parse_time_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from app.cli.resending import KeyedRun

__all__ = ["dead_letters"]

PAGE = 200
_COLUMNS: Final = (
    "id",
    "given_up_at",
    "reason",
    "webhook_id",
    "event_type",
    "attempts",
    "last_error",
    "delivery_id",
)
# Of one dead letter; whatever else is said is true of the next one, too.
_REFUSALS: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.GONE)


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
    items, cursor = _listed(only, limit)
    if as_json:
        print_json({"items": items, "next_cursor": cursor})
    elif not items:
        click.echo("no dead letters" if not any(only.values()) else "no such dead letters")
    else:
        _print_letters(items)
        if cursor is not None:
            click.echo("there are more; see --limit", err=True)


@dead_letters.command("show")
@click.argument("id_", metavar="ID")
@json_option
def show_dead_letter(id_: str, *, as_json: bool) -> None:
    """One dead letter, with its event.

    Example: vault-stream dead-letters show 3-41
    """
    found = call("GET", _path(id_))
    if as_json:
        print_json(found)
    else:
        print_table(("field", "value"), list(found.items()))


@dead_letters.command("resend")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_filtered
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
@click.option("--dry-run", is_flag=True, help="Show which would be sent again, and send nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@resend_key_option
@json_option
def resend_dead_letters(
    ids: tuple[str, ...],
    idempotency_key: str | None,
    *,
    everything: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **only: str | None,
) -> None:
    """Make deliveries again, by ID or by filter, with the same event, bytes and delivery id.

    Exit code 1 if any could not be. What breaks off says how to repeat it, so that nothing is sent twice. Accepted is
    what the worker took: with the key of an earlier run that is also what this one had sent.

    Example: vault-stream dead-letters resend --webhook wh_abc --since 2026-03-01T00:00:00Z
    """
    chosen = {name: value for name, value in only.items() if value is not None}
    if bool(ids) + bool(chosen) + everything != 1:
        raise click.UsageError("give ids, or a filter, or --all")
    if dry_run:
        _foretell(ids, chosen, as_json=as_json)
        return
    if not ids and not yes:
        what = "all dead letters" if everything else "the dead letters of this filter"
        require_consent(f"send {what} again?")
    with keyed_run(idempotency_key) as run:
        resent, refused = _each(ids, run) if ids else _matching({"all": True} if everything else chosen, run)
    if as_json:
        print_json({"resent": resent, "refused": refused})
    else:
        click.echo(f"{len(resent)} {run.accepted}, {len(refused)} refused")
    if refused:
        _complain(refused, as_json=as_json)
        if resent:
            run.tell_how_to_repeat()
        raise click.exceptions.Exit(1)


def _each(ids: tuple[str, ...], run: KeyedRun) -> tuple[list[str], list[dict[str, str]]]:
    resent: list[str] = []
    refused: list[dict[str, str]] = []
    for id_ in dict.fromkeys(ids):
        try:
            answer = run.post(f"{_path(id_)}/resend", {}, "delivery_id")
        except ApiError as error:
            refused.append(_refusal(id_, error))
        else:
            resent.append(answer["delivery_id"])
    return list(dict.fromkeys(resent)), refused


def _matching(body: dict[str, Any], run: KeyedRun) -> tuple[list[str], list[dict[str, str]]]:
    resent: list[str] = []
    refused: list[dict[str, str]] = []
    with progress_bar() as progress:
        task = progress.add_task("sending again", total=None)
        while True:
            answer = run.post("/v1/dead-letters/resend", body, "resent", "refused", "next_cursor")
            resent += answer["resent"]
            refused += answer["refused"]
            progress.update(task, completed=len(resent))
            if answer["next_cursor"] is None:
                return resent, refused
            body = {**body, "cursor": answer["next_cursor"]}


def _foretell(ids: tuple[str, ...], only: Mapping[str, str], *, as_json: bool) -> None:
    """Say what a resend would do now."""
    refused: list[dict[str, str]] = []
    letters = _shown(ids, refused) if ids else _listed(only)[0]
    why_not = {webhook_id: _why_not(webhook_id) for webhook_id in {letter["webhook_id"] for letter in letters}}
    by_delivery: dict[str, dict[str, Any]] = {}
    for letter in letters:
        code = why_not[letter["webhook_id"]] or _lacks(letter)
        if code is None:
            by_delivery.setdefault(letter["delivery_id"], letter)
        else:
            refused.append({"id": letter["id"], "delivery_id": letter["delivery_id"], "code": code})
    sent = list(by_delivery.values())
    if as_json:
        print_json({"would_resend": sent, "refused": refused})
    else:
        if sent:
            _print_letters(sent)
        click.echo(f"{len(sent)} would be sent again, {len(refused)} refused")
    if refused:
        _complain(refused, as_json=as_json)
        raise click.exceptions.Exit(1)


def _why_not(webhook_id: str) -> str | None:
    """Why nothing can be sent to a webhook, as a resend says it; None: it can."""
    try:
        webhook = call("GET", f"/v1/webhooks/{quote(webhook_id, safe='')}")
    except ApiError as error:
        if error.code == "not_found":
            return "webhook_gone"
        raise
    return None if webhook["enabled"] else "disabled"


def _lacks(letter: Mapping[str, Any]) -> str | None:
    """Why a dead letter cannot be sent to a webhook that takes something, as a resend says it; None: it can."""
    # What is not there any more has no id either.
    if "event_id" not in letter:
        return "body_gone"
    expires_at = letter.get("event_expires_at")
    return "expired" if expires_at is not None and parse_time_ms(expires_at) <= time.time() * 1000 else None


def _shown(ids: tuple[str, ...], refused: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The dead letters of these ids, as a list shows them; there may be none of an id."""
    letters: list[dict[str, Any]] = []
    for id_ in dict.fromkeys(ids):
        try:
            letter = call("GET", _path(id_))
        except ApiError as error:
            refused.append(_refusal(id_, error))
        else:
            letters.append({name: value for name, value in letter.items() if name != "event"})
    return letters


def _listed(only: Mapping[str, str | None], limit: int | None = None) -> tuple[list[dict[str, Any]], str | None]:
    """Dead letters, newest first, and where the list goes on beyond the limit."""
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while limit is None or len(items) < limit:
        size = PAGE if limit is None else min(PAGE, limit - len(items))
        page = call("GET", "/v1/dead-letters", params={**only, "limit": size, "cursor": cursor})
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    return items, cursor


def _refusal(id_: str, error: ApiError) -> dict[str, str]:
    """What was refused for this dead letter alone.

    Raises:
        ApiError: It would be for the next one, too.
    """
    if error.status not in _REFUSALS or error.code is None:
        raise error
    return {"id": id_, "code": str(error.code), "detail": str(error.document.get("detail", ""))}


def _complain(refused: Sequence[Mapping[str, str]], *, as_json: bool) -> None:
    for one in refused if not as_json else ():
        click.echo(f"{one['id']}: {': '.join(one[name] for name in ('code', 'detail') if one.get(name))}", err=True)


def _print_letters(items: Sequence[Mapping[str, Any]]) -> None:
    print_table(_COLUMNS, [[item.get(column, "") for column in _COLUMNS] for item in items])


def _path(id_: str) -> str:
    return f"/v1/dead-letters/{quote(id_, safe='')}"
