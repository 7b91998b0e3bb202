"""`vault-stream policy`: questions of access, through the API of a running worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import orjson

from app.cli.api import call
from app.cli.output import json_option, print_json, print_table

__all__ = ["policy"]


class _JsonObject(click.ParamType):
    """A JSON object on the command line, or `@FILE`."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        text = str(value)
        if text.startswith("@"):
            try:
                text = Path(text[1:]).read_text()
            except OSError as error:
                self.fail(f"{text[1:]}: {error.strerror}", param, ctx)
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            self.fail(f"no JSON: {error}", param, ctx)
        if not isinstance(found, dict):
            self.fail('no JSON object, such as {"purpose": "audit"}', param, ctx)
        return found


@click.group()
def policy() -> None:
    """Ask the policy engine; end what is kept of its decisions.

    Example: vault-stream policy evaluate alice read ds-1
    """


@policy.command()
@click.argument("principal_id")
@click.argument("action")
@click.argument("resource_id")
@click.option("--context", type=_JsonObject(), help="What else is known: a JSON object, or @FILE.")
@json_option
def evaluate(
    principal_id: str, action: str, resource_id: str, context: dict[str, Any] | None, *, as_json: bool
) -> None:
    """May this principal do this; a deny is an answer, too, and exits with 0.

    Example: vault-stream policy evaluate alice read ds-1 --context '{"purpose": "audit"}'
    """
    question = {"principal_id": principal_id, "action": action, "resource_id": resource_id}
    decision = call("POST", "/v1/policy/evaluate", question | ({} if context is None else {"context": context}))
    if as_json:
        print_json(decision)
        return
    shown = {"decision": "allow" if decision["allowed"] is True else "deny"} | decision
    del shown["allowed"]
    print_table(("field", "value"), list(shown.items()))


@policy.command()
@click.argument("resource_id")
@json_option
def applicable(resource_id: str, *, as_json: bool) -> None:
    """The policies that apply to a resource, as the engine lists them.

    Example: vault-stream policy applicable ds-1
    """
    found = call("GET", "/v1/policy/applicable", params={"resource": resource_id})
    if as_json:
        print_json(found)
    elif not found["items"]:
        click.echo("no policy applies")
    else:
        columns = list(dict.fromkeys(name for item in found["items"] for name in item))
        print_table(columns, [[item.get(name) for name in columns] for item in found["items"]])


@policy.command()
@click.option("--principal", "principal_id", help="All decisions about this principal.")
@click.option("--resource", "resource_id", help="All decisions about this resource.")
@click.option("--all", "everything", is_flag=True, help="All decisions.")
@json_option
def invalidate(principal_id: str | None, resource_id: str | None, *, everything: bool, as_json: bool) -> None:
    """End what is kept; every worker acts by it within a second.

    Example: vault-stream policy invalidate --principal alice
    """
    wanted = {"principal_id": principal_id, "resource_id": resource_id, "all": everything or None}
    body = {name: value for name, value in wanted.items() if value is not None}
    if len(body) != 1:
        raise click.UsageError("give exactly one of --principal, --resource and --all")
    done = call("POST", "/v1/policy/invalidate", body)
    if as_json:
        print_json(done)
    else:
        click.echo("what was decided before now is asked again")
