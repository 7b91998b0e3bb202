"""What the commands that send deliveries again have in common: a key, with which a repeat sends nothing twice."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import click

from app.cli.api import ApiClient, ApiError
from app.cli.options import IDEMPOTENCY_KEY
from app.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["KeyedRun", "keyed_run", "resend_key_option"]

_OPTION: Final = "--idempotency-key"

resend_key_option: Final = click.option(
    _OPTION,
    type=IDEMPOTENCY_KEY,
    help="Repeat a run with the key that it had, and nothing is sent twice; a new one, which is printed, unless given.",
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
        self._known = given is not None
        self._asked = False
        self._sent = False

    @property
    def accepted(self) -> str:
        """What to say of what the API took."""
        return "accepted (what was sent under this key before is not sent twice)" if self._known else "accepted"

    def post(self, path: str, body: Any, *fields: str) -> dict[str, Any]:
        """Send a request with the key of this run.

        Args:
            path: As of `call`.
            body: As of `call`.
            fields: What the answer has.

        Raises:
            ApiError: As of `call`, or the answer is another one.
        """
        client = ApiClient.of(load_settings())
        if not (self._known or self._asked):
            # Before anything is sent, so that no end of the process takes the key along.
            click.echo(f"the key of this run, for {_OPTION}: {self._key}", err=True)
        self._asked = True
        answer = client.call("POST", path, body, headers={"Idempotency-Key": self._key})
        if not isinstance(answer, dict) or not answer.keys() >= set(fields):
            raise ApiError("the answer is another one than this request has: is it a worker of another version?")
        self._sent = self._sent or answer.get("resent") != []
        return answer

    def may_have_sent(self, error: BaseException) -> bool:
        """Whether there is something to go on with, after an error."""
        refused = (
            isinstance(error, ApiError) and error.status is not None and error.status < HTTPStatus.INTERNAL_SERVER_ERROR
        )
        return self._sent or (self._asked and not refused)

    def tell_how_to_repeat(self) -> None:
        """Name the command that goes on where this one ended."""
        context = click.get_current_context()
        arguments: list[str] = []
        options: list[str] = []
        for parameter in context.command.params:
            value = context.params.get(parameter.name or "")
            if isinstance(parameter, click.Argument):
                arguments += value if isinstance(value, tuple) else (str(value),)
            elif value is True:
                options.append(parameter.opts[0])
            elif value is not None and value is not False and parameter.opts[0] != _OPTION:
                options += [parameter.opts[0], str(value)]
        options += [_OPTION, self._key]
        if any(argument.startswith("-") for argument in arguments):
            options.append("--")
        told = " ".join([context.command_path, *map(shlex.quote, [*options, *arguments])])
        click.echo(f"to repeat this, and send nothing twice: {told}", err=True)


@contextmanager
def keyed_run(given: str | None) -> Iterator[KeyedRun]:
    """A run that tells how to repeat it where it breaks off, unless all that there was of it is a refusal."""
    run = KeyedRun(given)
    try:
        yield run
    except BaseException as error:
        if run.may_have_sent(error):
            run.tell_how_to_repeat()
        raise
