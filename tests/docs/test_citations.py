"""A comment that cites a section which no reader has must lead to what is built of it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "citations.md").read_text()
CITED = re.compile(r"\b(contracts|architecture) (\d+(?:\.\d+)?)((?:(?:, | and )\d+(?:\.\d+)?)*)")
SOURCES = ("app", "agents", "tables", "tests", "benchmarks", "deploy", "docs", "k8s")


def cited(text: str) -> set[str]:
    found = set()
    for document, first, others in CITED.findall(text):
        found |= {f"{document} {section}" for section in [first, *re.findall(r"\d+(?:\.\d+)?", others)]}
    return found


def listed() -> set[str]:
    return {
        name
        for line in PAGE.splitlines()
        if line.startswith(("| contracts", "| architecture"))
        for name in cited(line.split("|")[1])
    }


@pytest.mark.parametrize("folder", SOURCES)
def test_each_section_that_is_cited_is_on_the_page(folder: str) -> None:
    kinds = {".py", ".md", ".yaml", ".js"}
    files = [path for path in (ROOT / folder).rglob("*") if path.suffix in kinds and "node_modules" not in path.parts]
    missing = {str(p.relative_to(ROOT)): wrong for p in files if (wrong := cited(p.read_text()) - listed())}
    assert files
    assert not missing


def test_several_sections_in_one_breath_are_each_found() -> None:
    assert cited("as contracts 8.3, 9.5 and 2 say; see architecture 5") == {
        "contracts 8.3", "contracts 9.5", "contracts 2", "architecture 5",
    }  # fmt: skip
