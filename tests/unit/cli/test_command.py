import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from app import cli as program
from app.cli import COMMANDS, cli, main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Exception]]:
    """A command `fail` that raises what is put into the list."""
    raised: list[Exception] = []

    @click.command()
    def fail() -> None:
        raise raised[0]

    monkeypatch.setattr(program, "failing_command", fail, raising=False)
    monkeypatch.setitem(COMMANDS, "fail", program._Command("app.cli:failing_command", "Fails."))
    return raised


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


def test_wrong_usage_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("nonsense") == 2
    assert run("config", "--nonsense") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "error: No such command 'nonsense'. (see `vault-stream --help`)",
        "error: No such option: --nonsense (see `vault-stream config --help`)",
    ]


def test_no_command_shows_the_help_and_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (click.ClickException("the broker is away; start it"), "error: the broker is away; start it", 1),
        (RuntimeError("broken"), "error: RuntimeError: broken", 1),
        (click.ClickException("a\nb whsec_AAAA"), "error: a\\u000ab whsec_[redacted]", 1),
        (click.Abort(), "error: interrupted", 1),
        (click.BadParameter("must be odd"), "error: Invalid value: must be odd (see `vault-stream fail --help`)", 2),
    ],
)
def test_an_error_is_one_line_without_traceback(
    failing: list[Exception], capsys: pytest.CaptureFixture[str], error: Exception, line: str, code: int
) -> None:
    failing.append(error)
    assert run("fail") == code
    assert capsys.readouterr().err.splitlines() == [line]


def test_a_command_can_choose_its_exit_code(failing: list[Exception]) -> None:
    failing.append(click.exceptions.Exit(1))
    assert run("fail") == 1


def test_config_shows_value_and_origin_with_secrets_masked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_STREAM_API__ADMIN_TOKEN", "hunter2")
    Path(".env").write_text("VAULT_STREAM_WEB_PORT=9000\n")
    assert run("config", "--json") == 0
    shown = capsys.readouterr().out
    settings = {row["name"]: (row["value"], row["origin"]) for row in json.loads(shown)["settings"]}
    assert settings["VAULT_STREAM_WEB_PORT"] == (9000, ".env")
    assert settings["VAULT_STREAM_API__ADMIN_TOKEN"] == ("********", "environment")
    assert settings["VAULT_STREAM_BROKERS"] == ("localhost:9092", "default")
    assert "hunter2" not in shown

    assert run("config") == 0
    assert "VAULT_STREAM_WEB_PORT" in capsys.readouterr().out


def test_bad_settings_are_one_line_each(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_STREAM_WEB_PORT", "many")
    monkeypatch.setenv("VAULT_STREAM_WEB_PROT", "1")
    assert run("config") == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == ["VAULT_STREAM_WEB_PROT", "VAULT_STREAM_WEB_PORT"]


def test_the_command_line_imports_no_faust_until_the_worker_runs() -> None:
    source = (
        "import sys, app.cli, app.cli.config, app.cli.api, app.cli.output; "
        "print(*sorted({'faust', 'mode', 'rocksdict'} & sys.modules.keys()))"
    )
    root = Path(program.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == ""


def every_command(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            yield (*path, name), command
            if isinstance(command, click.Group):
                yield from every_command(command, (*path, name))


def test_every_command_shows_an_example_of_its_own() -> None:
    for path, command in every_command(cli):
        example = (command.help or "").rpartition("Example: ")[2]
        assert f"vault-stream {' '.join(path)}" in example, path


def test_every_command_that_ends_by_itself_prints_json_for_machines() -> None:
    for path, command in every_command(cli):
        if isinstance(command, click.Group) or path in {("worker",), ("dev",)}:
            continue
        assert "--json" in [option for parameter in command.params for option in parameter.opts], path


def test_the_group_finds_a_command_by_name() -> None:
    context = click.Context(cli)
    assert cli.get_command(context, "config") is not None
    assert cli.get_command(context, "nonsense") is None
