"""docs/governance.md says what the code does: its tables are made from it, and its commands are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import orjson
import pytest

from app.cli import cli
from app.events import VaultEventType, decode_record
from app.integrations.audit import Mapped, audit_event, audit_mapping
from app.integrations.export import CSV_COLUMNS
from app.integrations.reports import ReportFormat, ReportType

PAGE = (Path(__file__).parents[2] / "docs" / "governance.md").read_text()
AT_MS = 1_750_000_000_000
NEEDED: dict[str, Any] = {
    "dataset_id": "ds-1",
    "name": "n",
    "version_id": "v1",
    "tag": "t",
    "branch": "b",
    "source_branch": "b",
    "target_branch": "main",
    "record_count": 1,
    "job_id": "j",
    "pii_types": ["email"],
    "principal_id": "who-principal_id",
    "resource_id": "res-1",
    "action": "open",
    "policy_id": "p",
    "framework": "GDPR",
    "severity": "low",
    "message": "m",
    "component": "db",
}


def mapping_table() -> str:
    lines = ["| type | category | actor | resource | action | outcome |", "|---|---|---|---|---|---|"]
    for row in audit_mapping():
        actor = f"`{row.actor}`" if row.actor else ""
        kind = "the event's `resource_type`" if row.resource[0] == "resource" else row.resource[0]
        resource = f"{kind}, `{row.resource[1]}`"
        lines.append(f"| `{row.type}` | {row.category} | {actor} | {resource} | {row.action} | {row.outcome} |")
    return "\n".join(lines)


def test_the_table_of_types_is_the_one_of_the_code() -> None:
    assert mapping_table() in PAGE, f"docs/governance.md should have:\n{mapping_table()}"


def test_every_type_of_the_vault_is_in_it() -> None:
    assert {f"llm.data-vault.{row.type}" for row in audit_mapping()} == {str(one) for one in VaultEventType}
    assert len(audit_mapping()) == 22


@pytest.mark.parametrize("row", audit_mapping(), ids=lambda row: row.type)
def test_an_event_of_each_type_becomes_what_the_table_says(row: Mapped) -> None:
    data = {**NEEDED, **({row.actor: f"who-{row.actor}"} if row.actor else {})}
    fields = {"specversion": "1.0", "id": "e-1", "source": "/vault", "type": f"llm.data-vault.{row.type}"}
    audit = audit_event(decode_record(orjson.dumps({**fields, "data": data}), []), AT_MS)
    assert audit["category"] == row.category
    assert audit["actor"]["id"] == (f"who-{row.actor}" if row.actor else "system")
    field = "dataset_id" if row.resource[0] == "framework" else row.resource[1]
    assert audit["resource"]["id"] == data[field]
    assert audit["action"] == ("open" if row.type == "access.denied" else row.action)
    assert row.outcome.startswith(audit["outcome"])


def test_columns_reports_and_formats_are_those_of_the_code() -> None:
    for name in (*CSV_COLUMNS, *ReportType, *ReportFormat):
        assert f"`{name}`" in PAGE, name
    for one in ReportType:
        assert f"`{one.pascal}`" in PAGE


def test_every_command_that_it_shows_is_there() -> None:
    shown = re.findall(r"^vault-stream (.+)$", PAGE, re.MULTILINE)
    assert len(shown) >= 5
    context = click.Context(cli)
    for line in shown:
        words = line.partition("#")[0].split()
        command: click.Command | None = cli
        while isinstance(command, click.Group):
            command = command.get_command(context, words.pop(0))
        assert command is not None, line
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, line
