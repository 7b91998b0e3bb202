"""What commands print: a table for a person, JSON for a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click
import orjson

from app.observability.redaction import escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["json_option", "print_json", "print_table", "show"]

F = TypeVar("F", bound="Callable[..., Any]")


def json_option(command: F) -> F:
    """The option `--json`, as the argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")(command)


def print_json(value: Any) -> None:
    """Print one JSON value, indented, keys in the order given."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows below their headings, each column as wide as it needs.

    Control characters of values appear escaped, None as `-`.
    """
    cells = [[name.upper() for name in columns], *([show(value) for value in row] for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(columns))]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def show(value: Any) -> str:
    """One value on one line: text as it is, None as `-`, everything else as JSON."""
    if value is None:
        return "-"
    return escaped(value if isinstance(value, str) else orjson.dumps(value).decode())
