"""The tables of the page about upstreams are made from the program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from app.devstack.standins import Observations, PolicyEngine
from app.devstack.standins.describing import document_of
from app.settings import VARIABLES, load_settings

PAGE = Path(__file__).parents[2] / "docs" / "upstreams.md"
PARTS = {
    "settings": ("<!-- made by `python -m tests.docs.test_upstreams` -->", "<!-- the end of what is made -->"),
    "faults": ("<!-- faults: made by `python -m tests.docs.test_upstreams` -->", "<!-- the end of the faults -->"),
}
GROUPS = ("GOVERNANCE", "POLICY", "REGISTRY")


def settings_table() -> str:
    """Each setting that all upstreams have, and each path, with its defaults."""
    settings = load_settings({}, dotenv=PAGE.with_name("no.env"))
    rows: dict[str, dict[str, Any]] = {}
    for variable in VARIABLES:
        group, _, name = variable.name.removeprefix("VAULT_STREAM_").partition("__")
        if group in GROUPS:
            rows.setdefault(name, {})[group] = variable.shown(settings)
    common = [name for name, found in rows.items() if len(found) == len(GROUPS)]
    paths = [name for name in rows if name.startswith("PATH_") or (name.endswith("_HEADER") and name not in common)]
    lines = ["| `VAULT_STREAM_…__` | " + " | ".join(f"`{group}`" for group in GROUPS) + " |", "|---|---|---|---|"]
    cells = {name: " | ".join(shown(rows[name], group) for group in GROUPS) for name in [*common, *paths]}
    return "\n".join([*lines, *(f"| `{name}` | {cell} |" for name, cell in cells.items())])


def shown(row: dict[str, Any], group: str) -> str:
    if group not in row:
        return ""
    value = row[group]
    return "-" if value is None else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def faults_table() -> str:
    """Each field of a fault, as the document of a stand-in has it."""
    fields = document_of(PolicyEngine(Observations()).description)["components"]["schemas"]["Fault"]["properties"]
    lines = ["| field | |", "|---|---|"]
    for name, schema in fields.items():
        values = f" One of {', '.join(f'`{value}`' for value in schema['enum'])}." if "enum" in schema else ""
        default = f" Default {schema['default']}." if "default" in schema else ""
        lines.append(f"| `{name}` | {schema['description']}{values}{default} |")
    return "\n".join(lines)


def made(page: str) -> str:
    for part, table in (("settings", settings_table()), ("faults", faults_table())):
        first, last = PARTS[part]
        page = re.sub(
            f"{re.escape(first)}.*?{re.escape(last)}",
            lambda _, whole=f"{first}\n{table}\n{last}": whole,
            page,
            flags=re.DOTALL,
        )
    return page


def test_the_tables_are_those_of_the_program() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == made(page)
    assert "`PATH_AUDIT_BATCH`" in page
    assert "`over_items`" in page


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
