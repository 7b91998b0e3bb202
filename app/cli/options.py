"""Types of options that several commands have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from app.events import parse_moment_ms

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "IDEMPOTENCY_KEY",
    "TIME",
    "IdempotencyKey",
    "Time",
    "require_consent",
    "require_range",
    "time_range_options",
]

MAX_KEY_CHARS: Final = 255


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


class IdempotencyKey(click.ParamType):
    """A word that the API takes as `Idempotency-Key`."""

    name = "KEY"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See the class."""
        key = str(value)
        # A header keeps no blank at its ends.
        if not 1 <= len(key) <= MAX_KEY_CHARS or not (key.isascii() and key.isprintable()) or key != key.strip():
            self.fail(f"give 1 to {MAX_KEY_CHARS} printable ASCII characters, without a blank at an end", param, ctx)
        return key


IDEMPOTENCY_KEY: Final = IdempotencyKey()


def require_consent(question: str) -> None:
    """Ask before something is done that `--yes` would agree to.

    Raises:
        click.Abort: The answer is no, or an interrupt.
        click.UsageError: There is nobody to ask.
    """
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort as error:
        if not isinstance(error.__context__, EOFError):
            raise
        raise click.UsageError("nobody is there to answer: give --yes to agree") from None
    if not agreed:
        raise click.Abort


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
