"""What is done to a webhook by name: `vault-stream webhooks enable|disable|hold|rotate-secret|rekey|ping|match`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from app.cli.api import ApiClient, ApiError, call
from app.cli.output import json_option, print_json, print_table
from app.cli.webhook_options import if_configuration_option, if_match, if_version_option
from app.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["WHAT_NEXT", "webhook_actions"]

WHAT_NEXT = (
    "keep the secret, it is not shown again: with it the receiver verifies the header `webhook-signature` of each "
    "request (Standard Webhooks, https://www.standardwebhooks.com)"
)
PAGE = 200


def _path(webhook_id: str, action: str) -> str:
    return f"/v1/webhooks/{quote(webhook_id, safe='')}/{action}"


def _tell(webhook: dict[str, Any], line: str, *, as_json: bool) -> None:
    if as_json:
        print_json(webhook)
    else:
        click.echo(line)


@click.command()
@click.argument("webhook_id")
@if_version_option
@json_option
def enable(webhook_id: str, if_version: int | None, *, as_json: bool) -> None:
    """Serve a webhook again; what it missed meanwhile can be replayed.

    Example: vault-stream webhooks enable wh_abc
    """
    enabled = call("POST", _path(webhook_id, "enable"), {}, headers=if_match(if_version))
    _tell(enabled, f"{webhook_id} is enabled", as_json=as_json)


@click.command()
@click.argument("webhook_id")
@if_version_option
@json_option
def disable(webhook_id: str, if_version: int | None, *, as_json: bool) -> None:
    """Stop serving a webhook; what waits for it, and what comes, is noted as missed.

    Example: vault-stream webhooks disable wh_abc
    """
    disabled = call("POST", _path(webhook_id, "disable"), {}, headers=if_match(if_version))
    _tell(disabled, f"{webhook_id} is disabled", as_json=as_json)


@click.command()
@click.argument("webhook_id")
@click.option("--until", help="A time (RFC 3339), as in 2026-01-31T12:00:00Z, or a date (UTC).")
@click.option("--lift", is_flag=True, help="End the hold.")
@if_configuration_option
@json_option
def hold(webhook_id: str, until: str | None, if_version: int | None, *, lift: bool, as_json: bool) -> None:
    """Start no attempt before a time; what comes meanwhile waits, and nothing is missed.

    Example: vault-stream webhooks hold wh_abc --until 2026-01-31T12:00:00Z
    """
    if lift == (until is not None):
        raise click.UsageError("give either --until or --lift")
    held = call("POST", _path(webhook_id, "hold"), {"until": until}, headers=if_match(if_version))
    line = f"{webhook_id} is held until {held['hold_until']}" if until else f"{webhook_id} is not held"
    _tell(held, line, as_json=as_json)


@click.command("rotate-secret")
@click.argument("webhook_id")
@click.option("--overlap-s", type=float, help="How long the old secret signs, too: 0 to 604800; a day unless said.")
@if_version_option
@json_option
def rotate_secret(webhook_id: str, overlap_s: float | None, if_version: int | None, *, as_json: bool) -> None:
    """Make a new secret; it is shown once.

    Example: vault-stream webhooks rotate-secret wh_abc --overlap-s 3600
    """
    body = {} if overlap_s is None else {"overlap_s": overlap_s}
    rotated = call("POST", _path(webhook_id, "rotate-secret"), body, headers=if_match(if_version))
    if as_json:
        print_json(rotated)
    else:
        print_table(("field", "value"), [("id", rotated["id"]), ("secret", rotated["secret"])])
    click.echo(WHAT_NEXT, err=True)


@click.command()
@click.argument("webhook_id", required=False)
@if_configuration_option
@json_option
def rekey(webhook_id: str | None, if_version: int | None, *, as_json: bool) -> None:
    """Encrypt stored secrets with the first of WEBHOOKS__ENCRYPTION_KEYS: of one webhook, or of all.

    Afterwards the older keys may go from the settings.

    Example: vault-stream webhooks rekey
    """
    if if_version is not None and webhook_id is None:
        raise click.UsageError("--if-version is of one webhook: give its id")
    client = ApiClient.of(load_settings())
    failed: dict[str, str] = {}
    done: list[str] = []
    for one in [webhook_id] if webhook_id else _all_ids(client):
        try:
            client.call("POST", _path(one, "rekey"), {}, headers=if_match(if_version))
        except ApiError as error:
            failed[one] = error.message
        else:
            done.append(one)
    if as_json:
        print_json({"rekeyed": done, "failed": failed})
    else:
        click.echo(f"{len(done)} webhooks are encrypted with the active key")
    for one, why in failed.items():
        click.echo(f"{one}: {why}", err=True)
    if failed:
        raise SystemExit(1)


def _all_ids(client: ApiClient) -> Iterator[str]:
    cursor: str | None = None
    while True:
        page = client.call("GET", "/v1/webhooks", params={"limit": PAGE, "cursor": cursor})
        yield from (item["id"] for item in page["items"])
        cursor = page["next_cursor"]
        if cursor is None:
            return


@click.command()
@click.argument("webhook_id")
@json_option
def ping(webhook_id: str, *, as_json: bool) -> None:
    """Send a made-up event to one webhook.

    Example: vault-stream webhooks ping wh_abc
    """
    sent = call("POST", _path(webhook_id, "ping"), {})
    line = f"sent; see what became of it with: vault-stream deliveries show {sent['delivery_id']}"
    _tell(sent, line, as_json=as_json)


@click.command()
@click.argument("file", type=click.File("rb"))
@json_option
def match(file: Any, *, as_json: bool) -> None:
    """Who would get the CloudEvent in FILE (or -), and why the others would not; nothing is sent.

    Example: vault-stream webhooks match event.json
    """
    found = ApiClient.of(load_settings()).send("POST", "/v1/match", file.read(), "application/cloudevents+json")
    if as_json:
        print_json(found)
    elif not found["items"]:
        click.echo("no webhooks yet")
    else:
        rows = [
            (item["webhook_id"], "yes" if item["matched"] else "no", item.get("why_not") or item.get("pattern", ""))
            for item in found["items"]
        ]
        print_table(("webhook", "gets it", "pattern, or why not"), rows)


webhook_actions: tuple[click.Command, ...] = (enable, disable, hold, rotate_secret, rekey, ping, match)
