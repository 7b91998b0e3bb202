"""The options that make and change a webhook, and the JSON that they stand for (contracts 9.5)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NoReturn

import click

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "configured",
    "events_option",
    "fields_of",
    "if_configuration_option",
    "if_match",
    "if_version_option",
    "json_value",
    "secret_of",
]

MAX_SECRET_FILE_BYTES: Final = 4096

_DEFAULT = "default"
_OPTIONS = (
    click.option("--description", help="For people."),
    click.option("--filter", "filter_", help='JSON, as in {"dataset_id":["ds-1"]}.'),
    click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Sent along; may be given again."),
    click.option("--ordering", type=click.Choice(["best_effort", "strict"]), help="Whether retries may be overtaken."),
    click.option("--timeout-s", metavar="S", help="Of one attempt, the answer's body included."),
    click.option("--rate-limit-per-s", metavar="N", help="Attempts a second at most."),
    click.option("--max-in-flight", metavar="N", help="Attempts at one time."),
    click.option("--retry-schedule-s", metavar="JSON", help="Waits before the attempts, as in [0,5,300]."),
    click.option(
        "--signature", "signatures", multiple=True, type=click.Choice(["v1", "v1a"]), help="May be given again."
    ),
    click.option("--handshake/--no-handshake", default=None, help="Ask the receiver by OPTIONS (CloudEvents)."),
)

if_version_option: Final = click.option("--if-version", type=int, help="Refuse if it was changed since this version.")
# A hold and a rekey leave the version: of two of them neither keeps the other one away.
if_configuration_option: Final = click.option(
    "--if-version",
    type=int,
    help="Refuse if its configuration was changed since this version; no other hold or rekey counts.",
)


def if_match(version: int | None) -> dict[str, str]:
    """The headers that `--if-version` stands for."""
    return {} if version is None else {"If-Match": f'"{version}"'}


def secret_of(file: BinaryIO) -> str:
    """The secret in a file, without the line end behind it.

    Raises:
        click.UsageError: There is none; what there is instead is not repeated.
    """
    content = file.read(MAX_SECRET_FILE_BYTES + 1)
    if len(content) > MAX_SECRET_FILE_BYTES:
        raise click.UsageError("--secret-file holds no secret: it is larger than 4 KiB")
    try:
        secret = content.decode("ascii").strip()
    except UnicodeDecodeError:
        secret = None
    # UTF-16 without its mark is ASCII with zeros in between.
    if secret is None or not secret.isprintable():
        raise click.UsageError("--secret-file holds no secret: write it in ASCII, without a byte order mark")
    if not secret:
        raise click.UsageError("--secret-file holds no secret: whsec_ and base64 of 24 to 64 bytes")
    return secret


def events_option(*, required: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option `--events`, as a tuple."""
    told = "A type, dataset.*, or *; may be given again."
    return click.option("--events", required=required, multiple=True, callback=_patterns, help=told)


def configured(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all options but the URL and the events."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def fields_of(**given: Any) -> dict[str, Any]:
    """The fields of the body that options stand for; those that were not given are left out.

    Raises:
        click.UsageError: An option does not hold what it must.
    """
    read: dict[str, Any] = {
        "description": given["description"],
        "filter": _json_option("--filter", given["filter_"]),
        "headers": _headers(given["headers"]) if given["headers"] else None,
        "ordering": given["ordering"],
        "timeout_s": _number("--timeout-s", given["timeout_s"]),
        "rate_limit_per_s": _number("--rate-limit-per-s", given["rate_limit_per_s"]),
        "max_in_flight": _number("--max-in-flight", given["max_in_flight"]),
        "retry_schedule_s": _json_option("--retry-schedule-s", given["retry_schedule_s"]),
        "signatures": list(given["signatures"]) or None,
        "handshake": given["handshake"],
    }
    return {name: None if value == _DEFAULT else value for name, value in read.items() if value is not None}


def json_value(option: str, text: str) -> Any:
    """The JSON value of an option.

    Raises:
        click.UsageError: It is none.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise click.UsageError(f"{option} is no JSON: {error}") from None


def _json_option(option: str, text: str | None) -> Any:
    return text if text is None or text == _DEFAULT else json_value(option, text)


def _number(option: str, text: str | None) -> Any:
    if text is None or text == _DEFAULT:
        return text
    try:
        value = json.loads(text, parse_constant=_refuse)
    except ValueError:
        value = None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise click.UsageError(f"{option} is a number, or the word default")
    return value


def _patterns(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    if any("," in pattern for pattern in given):
        raise click.UsageError("--events is one type or family: give the option again for each")
    return given


def _headers(given: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in given:
        name, colon, value = item.partition(":")
        if not colon:
            # The value is not repeated: it may be a credential, typed without its name.
            raise click.UsageError("--header is written as 'NAME: VALUE'")
        found[name.strip()] = value.strip()
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
