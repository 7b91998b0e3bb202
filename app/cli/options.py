"""Types of options that several commands have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from app.events import parse_moment_ms

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TIME", "Time", "require_range", "time_range_options"]


class Time(click.ParamType):
    """An RFC 3339 time, or a date, which is its first moment in UTC; in milliseconds since 1970."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See the class."""
        if isinstance(value, int):
            return value
        text = str(value)
        try:
            return parse_moment_ms(text)
        except ValueError:
            self.fail(f"{value!r} is no time, such as 2026-01-31T12:00:00Z or 2026-01-31", param, ctx)


TIME: Final = Time()


def time_range_options(*, required: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options `--from` (included) and `--to` (not), as `from_ms` and `to_ms`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        command = click.option("--to", "to_ms", type=TIME, required=required, help="Before this time or date.")(command)
        return click.option(
            "--from", "from_ms", type=TIME, required=required, help="At or after this time (RFC 3339) or date (UTC)."
        )(command)

    return decorate


def require_range(from_ms: int | None, to_ms: int | None) -> None:
    """Refuse a range that nothing can be in.

    Raises:
        click.UsageError: It ends where it begins, or before.
    """
    if from_ms is not None and to_ms is not None and to_ms <= from_ms:
        raise click.UsageError("--to must be after --from")
