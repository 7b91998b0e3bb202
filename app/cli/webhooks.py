"""`vault-stream webhooks` and `vault-stream deliveries`: through the API of a running worker."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn
from urllib.parse import quote

import click

from app.cli.api import ApiClient, call
from app.cli.output import json_option, print_json, print_table
from app.settings import load_settings

__all__ = ["deliveries", "webhooks"]

PAGE = 200
_WHAT_NEXT: Final = (
    "keep the secret, it is not shown again: with it the receiver verifies the header `webhook-signature` of each "
    "request (Standard Webhooks, https://www.standardwebhooks.com)"
)
_REMEMBERED: Final = "ended ones are remembered for a day, failed ones for a week"


@click.group()
def webhooks() -> None:
    """Who is told of which events.

    Example: vault-stream webhooks create --url https://example.com/hook --events 'dataset.*'
    """


@webhooks.command("list")
@json_option
def list_webhooks(*, as_json: bool) -> None:
    """All webhooks.

    Example: vault-stream webhooks list --json
    """
    found = _all("/v1/webhooks", {}).items
    if as_json:
        print_json({"items": found})
    elif not found:
        click.echo("no webhooks yet; make one with: vault-stream webhooks create --url URL --events PATTERN")
    else:
        rows = [(w["id"], w["health"], w["version"], ",".join(w["events"]), w["url"]) for w in found]
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
@click.option("--url", required=True, help="Where to POST; https.")
@click.option("--events", required=True, multiple=True, help="A type, dataset.*, or *; may be given again.")
@click.option("--description", help="For people.")
@click.option("--filter", "filter_", help='JSON, as in {"dataset_id":["ds-1"]}.')
@click.option("--ordering", type=click.Choice(["best_effort", "strict"]), help="Whether retries may be overtaken.")
@click.option("--max-in-flight", type=int, help="Attempts at one time.")
@click.option("--idempotency-key", help="The same key and body give the same webhook.")
@json_option
def create(  # one parameter an option
    url: str,
    events: tuple[str, ...],
    description: str | None,
    filter_: str | None,
    ordering: str | None,
    max_in_flight: int | None,
    idempotency_key: str | None,
    *,
    as_json: bool,
) -> None:
    """Make a webhook; its secret is shown once.

    Example: vault-stream webhooks create --url https://example.com/hook --events dataset.created --events 'version.*'
    """
    optional = {
        "description": description,
        "filter": None if filter_ is None else _json(filter_),
        "ordering": ordering,
        "max_in_flight": max_in_flight,
    }
    body = {"url": url, "events": list(events), **{k: v for k, v in optional.items() if v is not None}}
    headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
    made = ApiClient.of(load_settings()).call("POST", "/v1/webhooks", body, headers=headers)
    _print(made, as_json=as_json)
    if "secret" in made:
        click.echo(_WHAT_NEXT, err=True)


@webhooks.command()
@click.argument("webhook_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def delete(webhook_id: str, *, yes: bool, as_json: bool) -> None:
    """Delete a webhook; what waits for it is cancelled.

    Example: vault-stream webhooks delete wh_abc --yes
    """
    if not yes:
        click.confirm(f"delete {webhook_id}, and cancel what waits for it?", abort=True, err=True)
    call("DELETE", f"/v1/webhooks/{quote(webhook_id, safe='')}")
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
@click.option("--since", help="RFC 3339 time.")
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
    elif not found.items:
        click.echo(f"{'no such deliveries' if filters else 'no deliveries yet'}; {_REMEMBERED}")
    else:
        columns = (
            "id",
            "webhook_id",
            "status",
            "attempts",
            "event_type",
            "created_at",
            "next_attempt_at",
            "last_error",
        )
        print_table(columns, [[d.get(column) for column in columns] for d in found.items])


@deliveries.command("show")
@click.argument("delivery_id")
@json_option
def show_delivery(delivery_id: str, *, as_json: bool) -> None:
    """One delivery, with its attempts.

    Example: vault-stream deliveries show dlv_abc
    """
    _print(call("GET", f"/v1/deliveries/{quote(delivery_id, safe='')}"), as_json=as_json)


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


def _print(value: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(value)
    else:
        print_table(("field", "value"), list(value.items()))


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise click.UsageError(f"--filter is no JSON: {error}") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
