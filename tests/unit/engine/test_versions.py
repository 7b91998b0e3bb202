"""The engine starts with the versions whose internals were read, and with no others."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from app.engine.versions import PINNED, check_versions

ROOT = Path(__file__).parents[3]


def test_what_is_checked_is_what_the_project_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    exact = dict(one.split("==") for one in project["project"]["dependencies"] if "==" in one)

    assert exact == PINNED


def test_the_installed_versions_are_the_pinned_ones() -> None:
    check_versions()


@pytest.mark.parametrize(
    ("package", "installed"), [("aiokafka", "0.15.0"), ("faust-streaming", "0.15.4"), ("rocksdict", "0.4.0")]
)
def test_another_version_is_refused_at_the_import_in_one_line_that_says_what_to_do(
    package: str, installed: str, tmp_path: Path
) -> None:
    fake = tmp_path / f"{package.replace('-', '_')}-{installed}.dist-info"
    fake.mkdir()
    (fake / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {installed}\n")

    ended = run("import app.engine", tmp_path)

    assert ended.returncode != 0
    line = ended.stderr.strip().splitlines()[-1]
    assert line.startswith("app.engine.errors.StartRefused: ")
    assert f"{package} {installed} (wanted: {PINNED[package]})" in line
    assert f"pip install faust-streaming=={PINNED['faust-streaming']}" in line


def test_a_command_that_needs_the_engine_says_it_in_one_line(tmp_path: Path) -> None:
    fake = tmp_path / "aiokafka-0.1.dist-info"
    fake.mkdir()
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: aiokafka\nVersion: 0.1\n")

    ended = run("from app.cli import main; main(['worker'])", tmp_path)

    assert ended.returncode == 1
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "aiokafka 0.1 (wanted: " in ended.stderr


def test_nothing_of_theirs_is_imported_before_the_check(tmp_path: Path) -> None:
    """A version that does not even import is told by its number all the same."""
    for name in ("aiokafka", "faust", "rocksdict"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('broken')")
    fake = tmp_path / "aiokafka-0.1.dist-info"
    fake.mkdir()
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: aiokafka\nVersion: 0.1\n")

    ended = run("import app.engine", tmp_path)

    assert "StartRefused" in ended.stderr
    assert "broken" not in ended.stderr


def run(code: str, first_on_the_path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{first_on_the_path}{os.pathsep}{ROOT}"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
