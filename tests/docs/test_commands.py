"""Every `vault-stream` command that any page shows is one, with options and values that it takes."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from pathlib import Path

import click
import pytest

from app.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
STANDS_FOR = {"TIME": "2026-03-01", "DAY": "2026-03-01", "HASH": "0" * 64, "ID": "wh_abc", "$since": "2026-03-01"}
BEFORE_A_COMMAND = {"do", "then", "else", "until", "while", "if", "!", "{", "exec", "$"}
"""Words of a shell after which a command stands; `$` is what is left of `$(`."""


def commands(page: Path) -> list[tuple[str, ...]]:
    """The words behind each `vault-stream` in what the page shows to a shell."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            if re.search(r"\bvault-stream ", line) and not line.lstrip().startswith("#"):
                found += _calls(line)
    return found


def _calls(line: str) -> list[tuple[str, ...]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.commenters = "#"
    lexer.whitespace_split = True
    calls: list[list[str]] = []
    inside, begins = False, True
    for word in lexer:
        is_operator = bool(word) and set(word) <= set("|&;<>()")
        if begins and Path(word).name == "vault-stream":
            calls.append([])
            inside = True
        elif is_operator:
            inside = False
        elif inside:
            calls[-1].append(word)
        begins = is_operator or word in BEFORE_A_COMMAND or word.endswith("=$")
    return [_plain(call) for call in calls if call]


def _plain(call: list[str]) -> tuple[str, ...]:
    words = [re.sub(r"\b[A-Z]{2,4}\b|\$since\b", lambda m: STANDS_FOR.get(m[0], m[0]), word) for word in call]
    # The number of a stream that is redirected is no argument.
    return tuple(words[:-1] if words[-1] in {"1", "2"} and len(words) > 1 else words)


SHOWN = sorted({(page.name, call) for page in PAGES for call in commands(page)})


@pytest.mark.parametrize(("page", "call"), SHOWN, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_a_command_that_is_shown_is_one(
    page: str, call: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for word in call:
        if re.fullmatch(r"[\w-]+\.jsonl?", word):
            (tmp_path / word).write_text("{}")
    command: click.Command = cli
    words = list(call)
    context: click.Context | None = None
    while isinstance(command, click.Group) and words:
        context = click.Context(command, parent=context, info_name=command.name)
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"{page}: there is no command {name!r}"
        command = found
    assert not isinstance(command, click.Group), f"{page}: a group alone does nothing"
    # `--help` ends where it is read.
    with suppress(click.exceptions.Exit), command.make_context(command.name, words, parent=context):
        pass


def test_the_check_finds_commands_and_what_is_wrong_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(SHOWN) > 50
    page = tmp_path / "page.md"
    lines = (
        "x=$(vault-stream webhooks list --jsonn | jq .)  # vault-stream not",
        'kill "$x"; vault-stream worker >> log 2>&1 &',
        "kubectl create secret generic vault-stream --namespace vault-stream",
    )
    page.write_text("```sh\n" + "\n".join(lines) + "\n```\n")
    assert commands(page) == [("webhooks", "list", "--jsonn"), ("worker",)]
    with pytest.raises(click.NoSuchOption):
        test_a_command_that_is_shown_is_one("page.md", ("webhooks", "list", "--jsonn"), tmp_path, monkeypatch)
