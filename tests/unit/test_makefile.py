"""`make test` runs its parts as processes of their own; together they are all tests, and each is in one of them."""

import re
from itertools import product
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
SHORT = re.findall(r"^SHORT := (.+)$", MAKEFILE, re.MULTILINE)[0]
FOLDERS = sorted(folder.name for folder in (ROOT / "tests").iterdir() if any(folder.glob("**/test_*.py")))


def parts_of(target: str) -> list[str]:
    """The targets that it runs, in whatever order."""
    recipe = re.findall(rf"^{target}: .*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[0]
    return re.findall(r" (test-\w+)", recipe)


def takes(part: str, folder: str, marks: dict[str, bool]) -> bool:
    """Whether its one command selects a test of this folder with these marks."""
    (expression, where) = re.findall(rf'^{part}: .*\n\t\$\(BIN\)/pytest -m "(.+)" (\S+)\n', MAKEFILE, re.MULTILINE)[0]
    selected = eval(expression.replace("$(SHORT)", SHORT), {}, marks)  # noqa: S307  # it is ours, and words with and, not
    ignored = where.removeprefix("--ignore=")
    return selected and ((f"tests/{folder}" == ignored) is (ignored == where))


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_test_is_run_once(folder: str) -> None:
    for kafka, prove, foreign in product((False, True), repeat=3):
        marks = {"kafka": kafka, "prove": prove, "foreign": foreign}

        running = [part for part in parts_of("test") if takes(part, folder, marks)]

        assert len(running) == (not prove and not foreign), (marks, running)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_fast_ones_are_those_that_need_no_broker(folder: str) -> None:
    for kafka in (False, True):
        marks = {"kafka": kafka, "prove": False, "foreign": False}

        assert any(takes(part, folder, marks) for part in parts_of("test-fast")) is not kafka
