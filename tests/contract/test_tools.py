"""A tool that is missing is named with the line that installs it, and fails only where all tools are required."""

import shutil
from pathlib import Path

import pytest

from tests.support import deploy_tools


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.delenv("FOREIGN_MAY_LACK", raising=False)


@pytest.mark.parametrize("name", sorted(deploy_tools.INSTALL.keys() - {"uv"}))
def test_a_missing_tool_fails_with_the_line_that_installs_it_where_all_are_required(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("FOREIGN", "required")

    with pytest.raises(pytest.fail.Exception, match=f"{name} is not on the PATH; install it by: .*install"):
        deploy_tools.require(name)


@pytest.mark.parametrize(("foreign", "may_lack"), [("", ""), ("required", "chromium promtool")])
def test_a_missing_tool_skips_where_it_may_be_missing(
    monkeypatch: pytest.MonkeyPatch, foreign: str, may_lack: str
) -> None:
    monkeypatch.setenv("FOREIGN", foreign)
    monkeypatch.setenv("FOREIGN_MAY_LACK", may_lack)

    with pytest.raises(pytest.skip.Exception, match="apt-get install -y --no-install-recommends prometheus"):
        deploy_tools.require("promtool")


@pytest.mark.foreign
@pytest.mark.parametrize("script", [".ci/run", "tests/support/boxed.sh"])
def test_shellcheck_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.undo()
    text = (deploy_tools.ROOT / script).read_text()
    broken = tmp_path / "broken"
    broken.write_text(text + "\ncd $HOME/$1 && echo $*\n")
    shellcheck = deploy_tools.python_tool("manifests", "shellcheck")

    good, bad = (deploy_tools.ended(shellcheck, str(file)) for file in (deploy_tools.ROOT / script, broken))

    assert good.returncode == 0, deploy_tools.said(good)
    assert bad.returncode == 1


def test_what_is_installed_by_the_tests_is_pinned_by_hash() -> None:
    locks = sorted(Path(deploy_tools.PINS).glob("*.lock"))
    lines = [line for lock in locks for line in lock.read_text().splitlines() if "==" in line and line[0].isalnum()]

    assert [lock.stem for lock in locks] == ["checkov", "manifests"]
    assert lines
    assert all(line.endswith("\\") for line in lines)
