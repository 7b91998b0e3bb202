"""What the commands that send deliveries again have in common: a key, with which a repeat sends nothing twice."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import click

from app.cli.api import ApiError, call

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["KeyedRun", "keyed_run", "resend_key_option"]

_OPTION: Final = "--idempotency-key"

resend_key_option: Final = click.option(
    _OPTION, help="Repeat a run with the key that it had, and nothing is sent twice; a new one unless given."
)


class KeyedRun:
    """One run of a command, however many requests it takes.

    All of them have one key: the API knows a repeat by key and delivery, so that it does not matter on which page a
    delivery is the second time, when newer dead letters have moved it.

    Args:
        given: The key; None: a new one.
    """

    def __init__(self, given: str | None) -> None:
        self._key = str(uuid4()) if given is None else given
        self._taken = 0

    def post(self, path: str, body: Any) -> Any:
        """`call` with the key of this run."""
        answer = call("POST", path, body, headers={"Idempotency-Key": self._key})
        self._taken += 1
        return answer

    def may_have_sent(self, error: ApiError) -> bool:
        """Whether there is something to go on with, after an error."""
        refused = error.status is not None and error.status < HTTPStatus.INTERNAL_SERVER_ERROR
        return self._taken > 0 or not refused

    def tell_how_to_repeat(self) -> None:
        """Name the command that goes on where this one ended."""
        context = click.get_current_context()
        words = [context.command_path]
        for parameter in context.command.params:
            value = context.params.get(parameter.name or "")
            if isinstance(parameter, click.Argument):
                words += map(shlex.quote, value if isinstance(value, tuple) else (str(value),))
            elif value is True:
                words.append(parameter.opts[0])
            elif value and parameter.opts[0] != _OPTION:
                words += [parameter.opts[0], shlex.quote(str(value))]
        words += [_OPTION, shlex.quote(self._key)]
        click.echo(f"to repeat this, and send nothing twice: {' '.join(words)}", err=True)


@contextmanager
def keyed_run(given: str | None) -> Iterator[KeyedRun]:
    """A run that tells how to repeat it where it breaks off, unless all that there was of it is a refusal."""
    run = KeyedRun(given)
    try:
        yield run
    except ApiError as error:
        if run.may_have_sent(error):
            run.tell_how_to_repeat()
        raise
    except KeyboardInterrupt:
        run.tell_how_to_repeat()
        raise
