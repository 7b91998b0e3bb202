"""The command `vault-stream`: what it has, and what every command has in common.

Exit codes: 0 done, 1 failed, 2 wrong usage. An error is one line on standard error (one for each bad setting), never a
traceback. A command's module is imported when that command runs, so that `vault-stream publish` starts no Faust.
"""

from __future__ import annotations

import importlib
import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["cli", "main"]

log = logging.getLogger("app.cli")


@dataclass(frozen=True, slots=True)
class _Command:
    target: str
    """`module:attribute`."""
    summary: str


COMMANDS: Final = {
    "worker": _Command("app.cli.worker:worker", "Run the processor, configured by settings."),
    "dev": _Command("app.cli.dev:dev", "Run everything on this machine, until Ctrl-C."),
    "demo": _Command("app.cli.demo:demo", "Run a real workload through everything, and count what arrived."),
    "standin": _Command("app.cli.standin:standin", "Stand in for a dashboard, a policy engine or a registry."),
    "publish": _Command("app.cli.publish:publish", "Publish CloudEvents from a file or a pipe."),
    "kafka": _Command("app.cli.kafka:kafka", "A one-node Apache Kafka for development and tests."),
    "topics": _Command("app.cli.topics:topics", "Print, check or create the topics that the settings ask for."),
    "webhooks": _Command("app.cli.webhooks:webhooks", "Manage webhooks, through the API."),
    "deliveries": _Command("app.cli.webhooks:deliveries", "Look at deliveries and their attempts, through the API."),
    "dead-letters": _Command("app.cli.dead_letters:dead_letters", "Look at what was given up; send it again."),
    "replays": _Command("app.cli.replays:replays", "Watch and cancel replays, through the API."),
    "quarantine": _Command("app.cli.quarantine:quarantine", "Look at what could not be processed; put it back."),
    "registry": _Command("app.cli.registry:registry", "Keep vault and dataset registry in step, through the API."),
    "policy": _Command("app.cli.policy:policy", "Ask whether access is allowed; end what is kept of decisions."),
    "positions": _Command("app.cli.positions:positions", "Show where each partition stands; reset one."),
    "audit": _Command("app.cli.audit:audit", "Verify and export the audit chain; see how far it is."),
    "report": _Command("app.cli.report:report", "Save a compliance report of the governance dashboard."),
    "config": _Command("app.cli.config:config", "Show the effective settings and where each came from."),
}


class _LazyGroup(click.Group):
    """A group that knows its commands by name, and imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # the signature is click's
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # likewise
        known = COMMANDS.get(cmd_name)
        if known is None:
            return None
        module, _, attribute = known.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{known.target} is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # likewise
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vault-stream")
def cli() -> None:
    """Vault events in; signed webhooks, audit batches, violation reports and registry updates out.

    Example: vault-stream demo
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `vault-stream` and end the process.

    Args:
        arguments: The words after the program's name; those of the process if None.
    """
    sys.exit(_run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> int:
    try:
        result = cli.main(arguments, prog_name="vault-stream", standalone_mode=False)
    except click.ClickException as error:
        return _explain(error)
    except (click.Abort, KeyboardInterrupt):
        _complain("interrupted")
        return 1
    except BrokenPipeError:
        # Whoever read our output has gone; a second failure at exit would only add noise.
        sys.stdout = None
        return 1
    except Exception as error:  # noqa: BLE001  # the promise is one line, whatever it was
        _explain_unforeseen(error)
        return 1
    # Without standalone mode click gives back an exit code, or what the command returned.
    return result if isinstance(result, int) else 0


def _explain(error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
    elif isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "vault-stream"
        _complain(f"{error.format_message()} (see `{path} --help`)")
    else:
        _complain(error.format_message())
    return error.exit_code


def _explain_unforeseen(error: Exception) -> None:
    from app.settings import SettingsError  # noqa: PLC0415  # keeps `--help` quick

    if isinstance(error, SettingsError):
        for problem in error.problems:
            _complain(problem)
        return
    log.debug("a command failed", exc_info=error)
    _complain(f"{type(error).__name__}: {error}")


def _complain(message: str) -> None:
    from app.observability.redaction import escaped, redacted  # noqa: PLC0415  # keeps `--help` quick

    click.echo(f"error: {escaped(redacted(message))}", err=True)
