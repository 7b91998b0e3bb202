import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from click.testing import CliRunner

from app.cli.demo import demo as demo_command
from app.cli.kafka import kafka
from app.cli.standin import standin
from app.cli.topics import topics
from app.devstack import demo
from app.devstack.broker import RunningBroker, running_broker
from app.devstack.kafka import KafkaServer
from app.devstack.processes import Worker, module_command
from app.events import VaultEventType
from tests.support.fold import until

ROOT = Path(demo.__file__).parents[2]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningBroker]:
    with running_broker("embedded", Path("unused")) as running:
        monkeypatch.setenv("VAULT_STREAM_BROKERS", running.bootstrap)
        monkeypatch.setenv("VAULT_STREAM_PARTITIONS", "4")
        yield running


def with_worker(monkeypatch: pytest.MonkeyPatch, module: str, *arguments: str) -> None:
    command = module_command(module, *arguments)
    monkeypatch.setattr(demo, "Worker", lambda settings, folder: Worker(settings, folder, command))


def test_demo_prints_one_object_exits_0_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_worker(monkeypatch, "tests.unit.devstack.naive_worker")
    result = CliRunner().invoke(demo_command, ["--events", "40", "--json"])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["events"], answer["lost"], answer["ok"]) == (40, 0, True)
    assert list(tmp_path.glob("vault-stream-demo-*")) == []


def test_demo_exits_1_when_something_was_lost_and_says_where_the_logs_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_worker(monkeypatch, "tests.unit.devstack.naive_worker")
    monkeypatch.setenv("NAIVE_SKIPS", VaultEventType.VERSION_TAGGED)
    monkeypatch.setattr(demo, "DEADLINE_S", 1.0)
    result = CliRunner().invoke(demo_command, ["--events", "40", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["ok"] is False
    (folder,) = tmp_path.glob("vault-stream-demo-*")
    assert str(folder) in result.stderr
    assert (folder / "worker.log").exists()


def test_demo_leaves_no_blank_line_on_standard_error_where_it_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    with_worker(monkeypatch, "tests.unit.devstack.naive_worker")
    result = CliRunner().invoke(demo_command, ["--events", "40"])
    assert result.exit_code == 0, result.output
    assert all(line.strip() for line in result.stderr.splitlines())


def test_demo_says_in_one_line_why_the_worker_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with_worker(monkeypatch, "json.tool", "/nowhere")
    result = CliRunner().invoke(demo_command, ["--events", "40"])
    assert result.exit_code == 1
    last = result.stderr.strip().splitlines()[-1]
    assert "the worker ended with code" in last
    assert "logs: " in last


def test_topics_print_needs_no_broker() -> None:
    result = CliRunner().invoke(topics, ["print", "--json"])
    names = [topic["name"] for topic in json.loads(result.stdout)["topics"]]
    assert len(names) == 40
    assert "vault.quarantine" in names


@pytest.mark.usefixtures("embedded")
def test_topics_check_fails_until_apply_has_created_them() -> None:
    runner = CliRunner()
    before = runner.invoke(topics, ["check"])
    assert before.exit_code == 1
    assert "vault.quarantine: missing" in before.stdout
    applied = runner.invoke(topics, ["apply"])
    assert applied.exit_code == 0, applied.output
    assert "vault.quarantine: created\n" in applied.stdout
    assert runner.invoke(topics, ["apply"]).stdout.endswith("nothing to do\n")
    after = runner.invoke(topics, ["check", "--json"])
    assert after.exit_code == 0
    assert json.loads(after.stdout) == {"differences": [], "configuration_checked": False}


def test_kafka_status_of_nothing_exits_1(tmp_path: Path) -> None:
    result = CliRunner().invoke(kafka, ["status", "--data", str(tmp_path / "none"), "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["running"] is False


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_kafka_stop_says_when_there_was_nothing_to_stop(tmp_path: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(kafka, ["stop", "--data", str(tmp_path), *arguments])
    assert result.exit_code == 0
    if arguments:
        assert json.loads(result.stdout)["was_running"] is False
    else:
        assert result.stdout == f"was not running, data in {tmp_path}\n"


def test_kafka_stop_says_that_it_stopped_what_ran(tmp_path: Path) -> None:
    properties = str(tmp_path / "server.properties")
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()", properties]) as child:
        try:
            (tmp_path / "kafka.pid").write_text(str(child.pid))
            # A process has no command line for a moment after it was started.
            until(lambda: KafkaServer(tmp_path).pid == child.pid, 10)
            result = CliRunner().invoke(kafka, ["stop", "--data", str(tmp_path)])
            assert (result.exit_code, result.stdout) == (0, f"stopped, data in {tmp_path}\n")
            assert child.wait(0) == -signal.SIGTERM
        finally:
            child.kill()


def test_kafka_start_without_java_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    result = CliRunner().invoke(kafka, ["start", "--data", str(tmp_path / "none")])
    assert result.exit_code == 1
    (line,) = result.stderr.strip().splitlines()
    assert "install it" in line


@pytest.mark.parametrize("which", ["dashboard", "policy", "registry"])
def test_a_standin_runs_until_it_is_ended(which: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app", "standin", which, "--token", "t0p", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        shown = "".join(iter(process.stdout.readline, "}\n")) + "}"
        url = json.loads(shown)["url"]
        with urlopen(f"{url}/openapi.json") as answer:  # noqa: S310  # it is on loopback
            assert json.load(answer)["openapi"] == "3.1.0"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "ended\n")


def test_a_standin_on_a_port_in_use_says_so_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(standin, ["registry", "--port", str(port)])
    assert result.exit_code == 1
    assert result.stderr == f"Error: cannot listen on port {port}: Address already in use; choose another --port\n"
