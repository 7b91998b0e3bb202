"""`vault-stream` as an operator runs it: a process of its own."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.devstack.processes import module_environment


class Cli:
    """The command line with the settings of one deployment.

    Args:
        settings: Variables without their prefix: `{"APP_ID": "demo"}`.
        folder: Its working directory.
    """

    def __init__(self, settings: Mapping[str, str], folder: Path) -> None:
        self.settings, self.folder = dict(settings), folder

    def run(self, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run it to its end."""
        return subprocess.run(
            [sys.executable, "-m", "app", *arguments],
            cwd=self.folder,
            env=module_environment(self.settings | settings),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        """What it prints for machines, once it has ended with 0."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, (done.stdout, done.stderr)
        return json.loads(done.stdout)
