"""`vault-stream report`: a compliance report of the governance dashboard, through the API, into a file."""

from __future__ import annotations

import base64
import binascii
import hashlib
from pathlib import Path
from typing import Any, Final

import click
import orjson

from app.cli.api import ApiError, call
from app.cli.audit_export import saved_whole
from app.cli.options import time_range_options
from app.cli.output import json_option, print_json
from app.events import format_time
from app.integrations.reports import ReportFormat, ReportType

__all__ = ["report"]

# The dashboard may take its whole time-out, twice where it keeps the report elsewhere.
TIMEOUT_S: Final = 120.0


class _Type(click.ParamType):
    """One of the five reports, in either spelling."""

    name = "TYPE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ReportType:
        try:
            return ReportType.parse(str(value))
        except ValueError as error:
            self.fail(f"{value!r} is no report: {error}", param, ctx)


@click.command()
@click.argument("type_", metavar="TYPE", type=_Type())
@time_range_options(required=True)
@click.option("--scope", help="What part of the vault, in the dashboard's words.")
@click.option(
    "--format", "format_", type=click.Choice([*ReportFormat], case_sensitive=False), default="pdf", show_default=True
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Into this file, - for standard output.  [default: TYPE-FROM-TO.FORMAT]",
)
@json_option
def report(
    type_: ReportType,
    from_ms: int,
    to_ms: int,
    scope: str | None,
    format_: str,
    output: Path | None,
    *,
    as_json: bool,
) -> None:
    """Save a report (gdpr_article_30, soc2, hipaa, access_summary, data_inventory), and print its SHA-256.

    Example: vault-stream report soc2 --from 2026-01-01 --to 2026-04-01 --format pdf -o soc2.pdf
    """
    if to_ms <= from_ms:
        raise click.UsageError("--to must be after --from")
    asked = {
        "report_type": type_.value,
        "start_date": format_time(from_ms),
        "end_date": format_time(to_ms),
        "format": format_,
    }
    found = call(
        "POST", "/v1/governance/reports", asked | ({} if scope is None else {"scope": scope}), timeout_s=TIMEOUT_S
    )
    content = _content(found, ReportFormat(format_))
    path = output or Path(f"{type_.value}-{_day(from_ms)}-{_day(to_ms)}.{format_}")
    to_stdout = str(path) == "-"
    with saved_whole(None if to_stdout else path) as file:
        file.write(content)
    digest = hashlib.sha256(content).hexdigest()
    done = {
        "id": found["id"],
        "report_type": found["report_type"],
        "generated_at": found["generated_at"],
        "format": format_,
        "file": None if to_stdout else str(path),
        "bytes": len(content),
        "sha256": digest,
    }
    if as_json and not to_stdout:
        print_json(done)
        return
    click.echo(f"{path}: {len(content)} bytes, SHA-256 {digest}", err=to_stdout)


def _day(at_ms: int) -> str:
    return format_time(at_ms).partition("T")[0]


def _content(found: Any, format_: ReportFormat) -> bytes:
    content = found.get("content") if isinstance(found, dict) else None
    if format_ is ReportFormat.JSON and isinstance(content, dict):
        return orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n"
    if isinstance(content, str):
        try:
            return base64.b64decode(content, validate=True) if format_ is ReportFormat.PDF else content.encode()
        except binascii.Error:
            pass
    raise ApiError("the answer has no such report: is something else listening at VAULT_STREAM_API__URL?")
