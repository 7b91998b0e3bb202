"""Tools of other languages: a test that needs one skips without it, and fails under FOREIGN=required."""

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import pytest

PACKAGES = Path(__file__).parents[1] / "contract"
"""`node` and `go` have the pinned packages: their lock files hold versions and hashes."""


def require_tool(name: str) -> str:
    """The path of a tool on the PATH."""
    path = shutil.which(name)
    if path is None:
        _do_without(f"{name} is not on the PATH")
    return path


def require_platform(system: str, machine: str) -> None:
    """That a program in machine code runs here."""
    here = platform.system(), platform.machine()
    if here != (system, machine):
        _do_without(f"it runs on {system} {machine} only, and this is {' '.join(here)}")


def _do_without(reason: str) -> NoReturn:
    if os.environ.get("FOREIGN") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


def run_tool(*command: str, cwd: Path, input_: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run to the end, whatever the exit code."""
    return subprocess.run(
        command, cwd=cwd, input=input_, capture_output=True, text=True, timeout=180, check=False, env=os.environ
    )


def must_run(*command: str, cwd: Path, input_: str | None = None) -> str:
    """Run, and return what it printed; any other exit code than 0 fails the test."""
    done = run_tool(*command, cwd=cwd, input_=input_)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def typescript_program(folder: Path, sources: Mapping[str, str]) -> tuple[str, ...]:
    """Install the packages, check the types strictly and compile; the command that runs `main.ts`."""
    npm, node = require_tool("npm"), require_tool("node")
    shutil.copytree(PACKAGES / "node", folder, dirs_exist_ok=True)
    must_run(npm, "ci", "--no-audit", "--no-fund", cwd=folder)
    for name, text in sources.items():
        (folder / name).write_text(text)
    options = ("--strict", "--noUncheckedIndexedAccess", "--target", "es2022", "--module", "node16")
    must_run(node, "node_modules/typescript/bin/tsc", *options, *sources, cwd=folder)
    return node, str(folder / "main.js")


def go_program(folder: Path, sources: Mapping[str, str]) -> tuple[str, ...]:
    """Build a program of these files; the command that runs it."""
    go = require_tool("go")
    shutil.copytree(PACKAGES / "go", folder, dirs_exist_ok=True)
    for name, text in sources.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    must_run(go, "vet", "-mod=readonly", "./...", cwd=folder)
    must_run(go, "build", "-mod=readonly", "-o", "program", ".", cwd=folder)
    return (str(folder / "program"),)
