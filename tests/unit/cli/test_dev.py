import socket

import pytest
from click.testing import CliRunner

import app.cli.dev as command


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command.dev, list(arguments))
    return result.exit_code, result.stderr


@pytest.fixture(autouse=True)
def _nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be started")

    monkeypatch.setattr(command, "running_broker", started)


@pytest.mark.parametrize("option", ["--port", "--receiver-port", "--broker-port"])
def test_a_port_that_was_asked_for_and_is_in_use_is_one_line_that_says_what_to_do(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = f"Error: port {port} is in use: end what listens there, or give another {option} (0: any)\n"
        assert run(option, str(port)) == (1, told)


def test_the_port_may_come_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("VAULT_STREAM_WEB_PORT", str(taken.getsockname()[1]))
        assert run()[0] == 1


@pytest.mark.parametrize("arguments", [["--port", "65536"], ["--traffic", "-1"], ["--broker", "redis"]])
def test_what_cannot_be_meant_is_wrong_usage(arguments: list[str]) -> None:
    assert run(*arguments)[0] == 2


def test_the_embedded_broker_takes_any_port_and_no_other() -> None:
    code, said = run("--broker", "embedded", "--broker-port", "0")
    assert code == 2
    assert "--broker-port is for --broker kafka" in said


def test_help_says_how_to_call_it_and_names_every_option() -> None:
    shown = CliRunner().invoke(command.dev, ["--help"]).stdout
    assert "Example: vault-stream dev --traffic 2" in shown
    assert all(option in shown for option in ("--port", "--broker", "--broker-port", "--receiver-port", "--traffic"))


@pytest.mark.parametrize(
    ("started_as", "shown"),
    [(".venv/bin/vault-stream", ".venv/bin/vault-stream"), ("/x/app/__main__.py", "python -m app")],
)
def test_what_is_said_to_be_called_is_what_can_be(monkeypatch: pytest.MonkeyPatch, started_as: str, shown: str) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.argv", [started_as])
    assert command._program() == shown
