"""The program's own child processes: what they inherit, and how they end."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import app
from app.devstack.leash import leashed

__all__ = ["ProcessEndedError", "Worker", "module_command", "module_environment"]

PREFIX: Final = "VAULT_STREAM_"
LOG_TAIL_BYTES: Final = 2000
ERRORS_TAIL_BYTES: Final = 1024 * 1024

T = TypeVar("T")


class ProcessEndedError(Exception):
    """A child process ended before its work was done; the message has the last line of its log."""


def module_command(module: str, *arguments: str) -> list[str]:
    """Runs one of our modules in this very interpreter, as a child that ends with this process."""
    return leashed([sys.executable, "-m", module, *arguments])


def module_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child: ours, but of the `VAULT_STREAM_*` variables the given ones only.

    Args:
        settings: variables without their prefix: `{"APP_ID": "demo"}`.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    root = str(Path(app.__path__[0]).parent)
    search = os.pathsep.join(filter(None, (root, inherited.get("PYTHONPATH"))))
    return {**inherited, "PYTHONPATH": search, **{PREFIX + name: value for name, value in settings.items()}}


class Worker:
    """One `vault-stream worker`, a process of its own, which may be killed and started again.

    Args:
        settings: its `VAULT_STREAM_*` variables, without the prefix.
        folder: its working directory; `worker.log` is in it.
        command: what to run; the worker of this installation.
    """

    def __init__(self, settings: Mapping[str, str], folder: Path, command: Sequence[str] | None = None) -> None:
        self.log = folder / "worker.log"
        self._folder = folder
        self._environment = module_environment(settings)
        self._command = list(command) if command is not None else module_command("app", "worker")
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Starts the process and returns at once."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=self._environment,
                start_new_session=True,  # Ctrl-C in the terminal is ours to hand on
            )

    async def while_alive(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits `work`, but not longer than the worker lives.

        Raises:
            ProcessEndedError: The worker ended first, or does not run.
        """
        process = self._process
        if process is None or process.returncode is not None:
            work.close()
            raise self._explain_end()
        ended, task = asyncio.ensure_future(process.wait()), asyncio.ensure_future(work)
        try:
            await asyncio.wait({ended, task}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise self._explain_end()
        finally:
            for one in (ended, task):
                one.cancel()
            await asyncio.gather(ended, task, return_exceptions=True)

    def last_error(self) -> str | None:
        """The last message of level ERROR or CRITICAL near the end of its log; None if there is none."""
        for line in reversed(_last_lines(self.log, ERRORS_TAIL_BYTES)):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("level") in {"ERROR", "CRITICAL"}:
                return str(entry.get("message"))
        return None

    def _explain_end(self) -> ProcessEndedError:
        if self._process is None:
            return ProcessEndedError("the worker was never started")
        code = self._process.returncode
        return ProcessEndedError(f"the worker ended with code {code}: {_last_line(self.log)} (all of it: {self.log})")

    async def kill(self) -> None:
        """`kill -9`."""
        await self._end(signal.SIGKILL, 10.0)

    async def stop(self, *, timeout_s: float = 28.0) -> int | None:
        """Asks it to end, and kills it when it has not within `timeout_s` (its own limit is 25 s)."""
        return await self._end(signal.SIGTERM, timeout_s)

    async def _end(self, number: signal.Signals, timeout_s: float) -> int | None:
        process = self._process
        if process is None:
            return None
        if process.returncode is None:
            process.send_signal(number)
            try:
                async with asyncio.timeout(timeout_s):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        return process.returncode


def _last_line(log: Path) -> str:
    lines = _last_lines(log, LOG_TAIL_BYTES)
    return _told_in(lines[-1]) if lines else "it said nothing"


def _told_in(line: str) -> str:
    """The message of an entry of the log; a line that is none as it is."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, TypeError, KeyError):
        return line


def _last_lines(log: Path, size_bytes: int) -> list[str]:
    with log.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - size_bytes))
        return file.read().decode(errors="replace").strip().splitlines()
