"""`vault-stream topics`: the topics that the settings ask for, and what the broker has."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from app.brokers import connection_to
from app.cli.broker import broker_of
from app.cli.output import json_option, print_json, print_table
from app.deployment import plan_of
from app.settings import Settings, load_settings
from app.topics import AclRole, Difference, TopicAdmin, Topics, TopicSpec, acls_of, kafka_acls, warnings
from app.topics import apply as apply_plan
from app.topics import check as check_plan

__all__ = ["topics"]


@click.group()
def topics() -> None:
    """The topics of architecture and contracts, the 23 of the vault included.

    Example: vault-stream topics check && vault-stream worker
    """


@topics.command("print")
@json_option
def print_(*, as_json: bool) -> None:
    """Print every topic that the settings ask for; needs no broker.

    Example: vault-stream topics print --json
    """
    specs = plan_of(load_settings())
    if as_json:
        print_json({"topics": [_as_json(spec) for spec in specs]})
    else:
        rows = [
            (spec.name, spec.partitions, spec.replication, " ".join(f"{k}={v}" for k, v in sorted(spec.config.items())))
            for spec in specs
        ]
        print_table(("topic", "partitions", "replication", "configuration"), rows)


@topics.command("acls")
@click.option(
    "--role", type=click.Choice([str(role) for role in AclRole]), default=str(AclRole.WORKER), show_default=True
)
@click.option("--principal", help="Whom to give them to.  [default: the user of the settings]")
@json_option
def acls(*, role: str, principal: str | None, as_json: bool) -> None:
    """Print the rights that Kafka must give, as arguments of kafka-acls; needs no broker.

    Example: vault-stream topics acls | xargs -L1 kafka-acls --bootstrap-server kafka:9092
    """
    settings = load_settings()
    rights = acls_of(AclRole(role), Topics(settings.topic_prefix, settings.app_id))
    whom = principal or connection_to(settings.brokers, settings.kafka).principal
    if as_json:
        print_json({"principal": whom, "acls": [asdict(right) for right in rights]})
    else:
        for right in rights:
            click.echo(kafka_acls(right, whom))


@topics.command()
@json_option
def check(*, as_json: bool) -> None:
    """Compare the broker with the settings; exit code 0 when nothing is to do.

    Example: vault-stream topics check
    """
    settings = load_settings()
    with broker_of(settings) as broker:
        admin = TopicAdmin(broker.config)
        _report(settings, admin, check_plan(plan_of(settings), admin), as_json=as_json)


@topics.command()
@json_option
def apply(*, as_json: bool) -> None:
    """Create what is missing; never alter, shrink or delete. Exit code 0 when nothing is left to do.

    Example: VAULT_STREAM_REPLICATION=3 vault-stream topics apply
    """
    settings = load_settings()
    with broker_of(settings) as broker:
        admin = TopicAdmin(broker.config)
        plan = plan_of(settings)
        missing = [one for one in check_plan(plan, admin) if one.missing]
        left = apply_plan(plan, admin)
        created = [one.topic for one in missing if one not in left]
        if not as_json:
            for topic in created:
                click.echo(f"{topic}: created")
        _report(settings, admin, left, as_json=as_json, created=created)


def _report(
    settings: Settings,
    admin: TopicAdmin,
    differences: Sequence[Difference],
    *,
    as_json: bool,
    created: Sequence[str] | None = None,
) -> None:
    for line in warnings(replication=settings.replication, broker_count=admin.broker_count):
        click.echo(f"warning: {line}", err=True)
    unchecked = admin.embedded
    if as_json:
        done = {} if created is None else {"created": list(created)}
        left = [asdict(difference) for difference in differences]
        print_json({**done, "differences": left, "configuration_checked": not unchecked})
    else:
        if unchecked:
            click.echo("configuration: not checked (the embedded cluster does not describe topics)")
        for difference in differences:
            click.echo(str(difference))
        if not differences:
            click.echo("nothing is left to do" if created else "nothing to do")
    if differences:
        raise click.exceptions.Exit(1)


def _as_json(spec: TopicSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "partitions": spec.partitions,
        "replication": spec.replication,
        "config": dict(spec.config),
    }
