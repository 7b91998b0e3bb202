"""A server beside the one that is measured, in a process of its own."""

import subprocess
from types import TracebackType
from typing import Any, Self

import aiohttp

from app.devstack.processes import module_command

__all__ = ["Neighbour"]


class Neighbour:
    """A module of `benchmarks` that runs for as long as the `with` block; it prints its port once it listens.

    Attributes:
        url: Where it listens.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self.url: str

    def __enter__(self) -> Self:
        command = module_command(f"benchmarks.{self._module}")
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None  # a pipe was asked for
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    async def stats(self) -> Any:
        """What it says of itself."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/stats") as answer:
            return await answer.json(content_type=None)
