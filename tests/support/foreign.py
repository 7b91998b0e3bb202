"""Tools of other languages: a test that needs one skips without it, and fails under FOREIGN=required."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def require_tool(name: str) -> str:
    """The path of a tool on the PATH."""
    if (path := shutil.which(name)) is not None:
        return path
    reason = f"{name} is not on the PATH"
    if os.environ.get("FOREIGN") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


def run_tool(*command: str, cwd: Path, input_: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run to the end, whatever the exit code."""
    return subprocess.run(
        command, cwd=cwd, input=input_, capture_output=True, text=True, timeout=180, check=False, env=os.environ
    )
