"""`vault-stream webhooks` and `vault-stream deliveries`: through the API of a running worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final
from urllib.parse import quote

import click

from app.cli.api import call
from app.cli.options import IDEMPOTENCY_KEY, require_consent
from app.cli.output import json_option, print_json, print_table
from app.cli.replays import replay
from app.cli.resending import keyed_run, resend_key_option
from app.cli.webhook_actions import WHAT_NEXT, webhook_actions
from app.cli.webhook_options import configured, events_option, fields_of, if_match, if_version_option, secret_of

__all__ = ["deliveries", "webhooks"]

PAGE = 200
_REMEMBERED: Final = "ended ones are remembered for a day, failed ones for a week"


@click.group()
def webhooks() -> None:
    """Who is told of which events.

    Example: vault-stream webhooks create --url https://example.com/hook --events 'dataset.*'
    """


webhooks.add_command(replay)


@webhooks.command("list")
@click.option("--search", help="With this text in the id, URL, description or events.")
@click.option(
    "--health",
    type=click.Choice(["ok", "failing", "disabled", "unknown"]),
    help="Of this health, as shown; failing is also from the start.",
)
@json_option
def list_webhooks(search: str | None, health: str | None, *, as_json: bool) -> None:
    """All webhooks, or those that are looked for.

    Example: vault-stream webhooks list --health failing
    """
    # The API's own filter goes by a health that is ok for what has failed from the start, too.
    everyone = _all("/v1/webhooks", {} if search is None else {"search": search}).items
    found = [webhook for webhook in everyone if health in (None, _standing(webhook).removesuffix("_from_the_start"))]
    if as_json:
        print_json({"items": found})
    elif not found and (search is not None or health is not None):
        click.echo("no such webhooks")
    elif not found:
        click.echo("no webhooks yet; make one with: vault-stream webhooks create --url URL --events PATTERN")
    else:
        rows = [(w["id"], _standing(w).replace("_", " "), w["version"], ",".join(w["events"]), w["url"]) for w in found]
        print_table(("id", "health", "version", "events", "url"), rows)


@webhooks.command("show")
@click.argument("webhook_id")
@json_option
def show_webhook(webhook_id: str, *, as_json: bool) -> None:
    """One webhook.

    Example: vault-stream webhooks show wh_abc
    """
    _print(call("GET", f"/v1/webhooks/{quote(webhook_id, safe='')}"), as_json=as_json)


@webhooks.command()
@click.argument("webhook_id")
@json_option
def activity(webhook_id: str, *, as_json: bool) -> None:
    """The last hour of a webhook's attempts, and what it does now, as seen by the worker that owns it.

    Example: vault-stream webhooks activity wh_abc
    """
    found = call("GET", f"/v1/webhooks/{quote(webhook_id, safe='')}/activity")
    if as_json:
        print_json(found)
        return
    print_table(("field", "value"), [(name, value) for name, value in found.items() if not name.startswith("bucket")])
    buckets = [bucket for bucket in found["buckets"] if bucket["delivered"] or bucket["failed"]]
    click.echo()
    if buckets:
        names = ("at", "delivered", "failed")
        print_table(names, [[bucket[name] for name in names] for bucket in buckets])
    else:
        click.echo("no attempts in the last hour")


@webhooks.command()
@click.option("--url", required=True, help="Where to POST; https.")
@events_option(required=True)
@configured
@click.option("--disabled", is_flag=True, help="Serve it only once it is enabled.")
@click.option("--secret-file", type=click.File("rb"), help="Use the secret in this file (or -); one is made if not.")
@click.option("--idempotency-key", type=IDEMPOTENCY_KEY, help="The same key and body give the same webhook.")
@json_option
def create(
    url: str,
    events: tuple[str, ...],
    secret_file: BinaryIO | None,
    idempotency_key: str | None,
    *,
    disabled: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Make a webhook; a secret that is made for it is shown once.

    Example: vault-stream webhooks create --url https://example.com/hook --events dataset.created --events 'version.*'
    """
    body = {"url": url, "events": list(events), **fields_of(**given)}
    if disabled:
        body["enabled"] = False
    if secret_file is not None:
        body["secret"] = secret_of(secret_file)
    headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
    made = call("POST", "/v1/webhooks", body, headers=headers)
    if secret_file is not None:
        # Whoever kept it in a file has it; a terminal or a log should not.
        made.pop("secret", None)
    _print(made, as_json=as_json)
    if "secret" in made:
        click.echo(WHAT_NEXT, err=True)


@webhooks.command()
@click.argument("webhook_id")
@click.option("--url", help="Where to POST; https.")
@events_option()
@configured
@if_version_option
@json_option
def update(
    webhook_id: str,
    url: str | None,
    events: tuple[str, ...],
    if_version: int | None,
    *,
    as_json: bool,
    **given: Any,
) -> None:
    """Change a webhook; what is not given stays, and the word `default` takes an option back.

    Example: vault-stream webhooks update wh_abc --events 'dataset.*' --rate-limit-per-s default
    """
    fields: dict[str, Any] = {"url": url, "events": list(events) or None}
    body = {name: value for name, value in fields.items() if value is not None} | fields_of(**given)
    if not body:
        raise click.UsageError("nothing to change: give an option, such as --url")
    path = f"/v1/webhooks/{quote(webhook_id, safe='')}"
    _print(call("PATCH", path, body, headers=if_match(if_version)), as_json=as_json)


@webhooks.command()
@click.argument("webhook_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@if_version_option
@json_option
def delete(webhook_id: str, if_version: int | None, *, yes: bool, as_json: bool) -> None:
    """Delete a webhook; what waits for it is cancelled.

    Example: vault-stream webhooks delete wh_abc --yes
    """
    if not yes:
        require_consent(f"delete {webhook_id}, and cancel what waits for it?")
    call("DELETE", f"/v1/webhooks/{quote(webhook_id, safe='')}", headers=if_match(if_version))
    if as_json:
        print_json({"deleted": webhook_id})
    else:
        click.echo(f"deleted {webhook_id}")


@click.group()
def deliveries() -> None:
    """What became of each event for each webhook.

    Example: vault-stream deliveries list --webhook wh_abc --status retrying
    """


@deliveries.command("list")
@click.option("--webhook", "webhook_id", help="Of one webhook.")
@click.option("--status", type=click.Choice(["pending", "retrying", "delivered", "failed", "missed", "cancelled"]))
@click.option("--event", "event_id", help="Of one event id.")
@click.option("--since", help="At or after this time (RFC 3339) or date (UTC).")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many, newest first.")
@json_option
def list_deliveries(
    webhook_id: str | None, status: str | None, event_id: str | None, since: str | None, limit: int, *, as_json: bool
) -> None:
    """Deliveries, newest first.

    Example: vault-stream deliveries list --event ev-1 --json
    """
    query = {"webhook_id": webhook_id, "status": status, "event_id": event_id, "since": since}
    filters = {name: value for name, value in query.items() if value is not None}
    found = _all("/v1/deliveries", filters, limit)
    if found.missing:
        numbers = ", ".join(map(str, sorted(found.missing)))
        click.echo(f"partitions {numbers} did not answer; their deliveries are not among these", err=True)
    if as_json:
        print_json({"items": found.items, "missing": sorted(found.missing)})
    elif not found.items and found.missing:
        click.echo("none in the partitions that answered")
    elif not found.items:
        click.echo(f"{'no such deliveries' if filters else 'no deliveries yet'}; {_REMEMBERED}")
    else:
        columns = (
            "id",
            "webhook_id",
            "status",
            "reason",
            "attempts",
            "event_type",
            "created_at",
            "next_attempt_at",
            "last_error",
        )
        print_table(columns, [[d.get(column) for column in columns] for d in found.items])
    if found.missing:
        # A part of the answer must not pass for all of it.
        raise click.exceptions.Exit(1)


@deliveries.command("show")
@click.argument("delivery_id")
@json_option
def show_delivery(delivery_id: str, *, as_json: bool) -> None:
    """One delivery, with its attempts.

    Example: vault-stream deliveries show dlv_abc
    """
    _print(call("GET", f"/v1/deliveries/{quote(delivery_id, safe='')}"), as_json=as_json)


@deliveries.command("resend")
@click.argument("delivery_id")
@resend_key_option
@json_option
def resend_delivery(delivery_id: str, idempotency_key: str | None, *, as_json: bool) -> None:
    """Make one delivery again, with the same event, bytes and id.

    Example: vault-stream deliveries resend dlv_abc
    """
    with keyed_run(idempotency_key) as run:
        sent = run.post(f"/v1/deliveries/{quote(delivery_id, safe='')}/resend", {})
    if as_json:
        print_json(sent)
    else:
        click.echo(f"{run.accepted}; see what became of it with: vault-stream deliveries show {delivery_id}")


@dataclass(frozen=True, slots=True)
class _Found:
    """A list, read to its end or to a limit.

    Attributes:
        missing: The partitions that did not answer to at least one page.
    """

    items: list[dict[str, Any]] = field(default_factory=list)
    missing: set[int] = field(default_factory=set)


def _all(path: str, query: dict[str, str], limit: int | None = None) -> _Found:
    found = _Found()
    cursor: str | None = None
    while limit is None or len(found.items) < limit:
        page = PAGE if limit is None else min(PAGE, limit - len(found.items))
        answer = call("GET", path, params={**query, "limit": str(page), "cursor": cursor})
        found.items.extend(answer["items"])
        found.missing.update(answer.get("missing", ()))
        cursor = answer["next_cursor"]
        if cursor is None:
            break
    return found


def _standing(webhook: dict[str, Any]) -> str:
    """Its health, where a worker of another version does not say it."""
    told: str = webhook.get("standing", webhook["health"])
    return told


def _print(value: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(value)
    else:
        print_table(("field", "value"), list(value.items()))


for _action in webhook_actions:
    webhooks.add_command(_action)
