"""Tools that check what is deployed. One that is missing is named with the one line that installs it.

A test that lacks a tool skips, and fails under FOREIGN=required, unless FOREIGN_MAY_LACK names the tool.
What is installed or built here lies in `.foreign`, under the hash of what pins it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, NoReturn

import pytest

from tests.support.foreign import PACKAGES

ROOT: Final = Path(__file__).parents[2]
PINS: Final = PACKAGES / "deploy"
BUILT: Final = ROOT / ".foreign"
INSTALL: Final = {
    "promtool": "apt-get install -y --no-install-recommends prometheus",
    "prometheus": "apt-get install -y --no-install-recommends prometheus",
    "kubectl": "apt-get install -y kubernetes-client, or https://kubernetes.io/docs/tasks/tools/",
    "openssl": "apt-get install -y --no-install-recommends openssl",
    "go": "apt-get install -y golang-go (1.24 or later), or https://go.dev/dl/",
    "unshare": "apt-get install -y util-linux",
    "uv": "python -m pip install uv",
}
GO_PACKAGES: Final = {
    "composecheck": "./composecheck",
    "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform",
}
KUBERNETES_VERSIONS: Final = ("1.30", "1.37")
"""The oldest and the newest of which the schemas are checked."""


def require(name: str) -> str:
    """The path of a tool on the PATH."""
    beside = Path(sys.executable).parent / name
    found = shutil.which(name) or (str(beside) if beside.is_file() else None)
    if found is None:
        lacking(name, f"{name} is not on the PATH; install it by: {INSTALL[name]}")
    return found


def lacking(name: str, reason: str) -> NoReturn:
    """Skip, or fail where all tools are required."""
    if os.environ.get("FOREIGN") == "required" and name not in os.environ.get("FOREIGN_MAY_LACK", "").split():
        pytest.fail(reason)
    pytest.skip(reason)


def python_tool(environment: str, name: str) -> str:
    """A program of one of the pinned environments, `manifests` or `checkov`."""
    lock = PINS / f"{environment}.lock"
    folder = BUILT / f"{environment}-{digest(lock)}"
    if not (folder / "complete").exists():
        uv = require("uv")
        _must(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
        python = str(folder / "bin" / "python")
        _must(uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", str(lock))
        (folder / "complete").touch()
    return str(folder / "bin" / name)


def go_tool(name: str) -> str:
    """A program of the pinned Go module: `composecheck` or `kubeconform`."""
    folder = BUILT / f"go-{digest(PINS / 'go.sum', PINS / 'composecheck' / 'main.go')}"
    program = folder / name
    if not program.exists():
        package = {"composecheck": "./composecheck", "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform"}[
            name
        ]
        folder.mkdir(parents=True, exist_ok=True)
        _must(require("go"), "build", "-mod=readonly", "-o", str(program), package, cwd=PINS)
    return str(program)


def ended(*command: str, cwd: Path = ROOT, input_: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run to the end, whatever the exit code."""
    return subprocess.run(command, cwd=cwd, input=input_, capture_output=True, text=True, timeout=300, check=False)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """All that a program printed."""
    return done.stdout + done.stderr


def _must(*command: str, cwd: Path = ROOT) -> None:
    done = ended(*command, cwd=cwd)
    if done.returncode != 0:
        lacking(Path(command[0]).name, f"{' '.join(command)}: {said(done)[-2000:]}")


def digest(*files: Path) -> str:
    """What tells apart what is built from them."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
