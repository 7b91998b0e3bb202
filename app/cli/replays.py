"""`vault-stream webhooks replay` and `vault-stream replays`: through the API of a running worker."""

from __future__ import annotations

import sys
import time
from typing import Any, Final
from urllib.parse import quote

import click

from app.cli.api import ApiError, call
from app.cli.output import json_option, print_json, print_table
from app.cli.topic_reader import progress_bar

__all__ = ["replay", "replays"]

PAGE: Final = 200
LOOK_AGAIN_S: Final = 0.5
LOOKS_WITHOUT_ANSWER: Final = 20
_ENDED: Final = frozenset({"done", "failed", "cancelled"})


class _Place(click.ParamType):
    """`TOPIC/PARTITION=OFFSET`."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        place, _, offset = str(value).partition("=")
        if "/" not in place or not (offset.isascii() and offset.isdigit()):
            self.fail(f"{value!r} is no place in the log, such as vault.events/0=42", param, ctx)
        return place, int(offset)


@click.command("replay")
@click.argument("webhook_id")
@click.option("--since", metavar="TIME", help="Events in the log since this time (RFC 3339) or date (UTC).")
@click.option("--from-offset", type=_Place(), multiple=True, metavar="TOPIC/P=OFFSET", help="May be given again.")
@click.option("--since-disabled", is_flag=True, help="What was missed since it was disabled.")
@click.option("--until", metavar="TIME", help="Events before this time or date.")
@click.option("--type", "event_types", multiple=True, help="Only a type, or dataset.*; may be given again.")
@click.option("--only", type=click.Choice(["missed", "failed", "all"]), help="Only what became of its delivery.")
@click.option("--rate", "rate_per_s", type=float, help="Events a second, at most.  [default: 1000]")
@click.option("--request-id", help="Asked for again under the same one, nothing is sent twice.")
@click.option("--wait", is_flag=True, help="Until it has ended, with a progress bar.")
@json_option
def replay(  # one parameter an option
    webhook_id: str,
    since: str | None,
    from_offset: tuple[tuple[str, int], ...],
    since_disabled: bool,
    until: str | None,
    event_types: tuple[str, ...],
    only: str | None,
    rate_per_s: float | None,
    request_id: str | None,
    *,
    wait: bool,
    as_json: bool,
) -> None:
    """Deliver events from the log again, also from before the webhook existed.

    Example: vault-stream webhooks replay wh_abc --since 2026-03-01T00:00:00Z --wait
    """
    if sum((since is not None, bool(from_offset), since_disabled)) != 1:
        raise click.UsageError("give exactly one of --since, --from-offset and --since-disabled")
    wanted = {
        "since": since,
        "from_offset": dict(from_offset) or None,
        "since_disabled": since_disabled or None,
        "until": until,
        "event_types": list(event_types) or None,
        "only": only,
        "rate_per_s": rate_per_s,
        "request_id": request_id,
    }
    body = {name: value for name, value in wanted.items() if value is not None}
    started = call("POST", f"/v1/webhooks/{quote(webhook_id, safe='')}/replay", body)
    _print(_followed(started) if wait else started, wait=wait, as_json=as_json)


@click.group()
def replays() -> None:
    """Replays that run, wait or have ended.

    Example: vault-stream replays list
    """


@replays.command("list")
@json_option
def list_replays(*, as_json: bool) -> None:
    """All replays that the workers remember, newest first.

    Example: vault-stream replays list --json
    """
    items: list[dict[str, Any]] = []
    missing: set[int] = set()
    cursor: str | None = None
    while True:
        page = call("GET", "/v1/replays", params={"limit": str(PAGE), "cursor": cursor})
        items += page["items"]
        missing.update(page["missing"])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    if missing:
        numbers = ", ".join(map(str, sorted(missing)))
        click.echo(f"the owners of partitions {numbers} did not answer; their replays are not among these", err=True)
    if as_json:
        print_json({"items": items, "missing": sorted(missing)})
    elif not items:
        click.echo("no replays; start one with: vault-stream webhooks replay ID --since TIME")
    else:
        columns = ("id", "webhook_id", "state", "scanned", "total", "matched", "skipped", "sent", "created_at", "error")
        print_table(columns, [[item.get(column) for column in columns] for item in items])


@replays.command("show")
@click.argument("replay_id")
@click.option("--wait", is_flag=True, help="Until it has ended, with a progress bar.")
@json_option
def show_replay(replay_id: str, *, wait: bool, as_json: bool) -> None:
    """One replay, and how far it is.

    Example: vault-stream replays show worker-1.0b8f9c1e-6f0e-4c55-8a58-0d8d7f4d9f10
    """
    found = call("GET", _path(replay_id))
    _print(_followed(found) if wait else found, wait=wait, as_json=as_json)


@replays.command("cancel")
@click.argument("replay_id")
@json_option
def cancel_replay(replay_id: str, *, as_json: bool) -> None:
    """End a replay; what was sent already is delivered.

    Example: vault-stream replays cancel worker-1.0b8f9c1e-6f0e-4c55-8a58-0d8d7f4d9f10
    """
    found = call("DELETE", _path(replay_id))
    if as_json:
        print_json(found)
    else:
        counts = f"{found['sent']} of {found['matched']} events were sent, {found['skipped']} left out"
        click.echo(f"{found['id']} is {found['state']}; {counts}")


def _path(replay_id: str) -> str:
    return f"/v1/replays/{quote(replay_id, safe='')}"


def _followed(found: dict[str, Any]) -> dict[str, Any]:
    """The replay as it ended."""
    silent = 0
    with progress_bar() as progress:
        task = progress.add_task("replaying", total=found.get("total"))
        while found["state"] not in _ENDED:
            time.sleep(LOOK_AGAIN_S)
            try:
                found, silent = call("GET", _path(found["id"])), 0
            except ApiError as error:
                silent += 1
                # None: nothing listens, or not yet again.
                if error.status not in {None, 503} or silent > LOOKS_WITHOUT_ANSWER:
                    raise
            progress.update(task, completed=found["scanned"], total=found.get("total"), description=found["state"])
    return found


def _print(found: dict[str, Any], *, wait: bool, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        print_table(("field", "value"), list(found.items()))
    if wait and found["state"] != "done":
        sys.exit(1)
