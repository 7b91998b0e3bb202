import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.devstack import kafka
from app.devstack.kafka import KafkaServer, KafkaServerError, default_data_dir, free_port, port_is_free


def test_a_directory_without_a_broker_is_not_running(tmp_path: Path) -> None:
    status = KafkaServer(tmp_path / "none").status()
    assert (status.running, status.pid, status.bootstrap) == (False, None, None)


def test_the_address_of_a_broker_that_never_ran_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KafkaServerError, match="no broker was ever started"):
        _ = KafkaServer(tmp_path).bootstrap


def test_stopping_what_does_not_run_does_nothing(tmp_path: Path) -> None:
    KafkaServer(tmp_path).stop()
    KafkaServer(tmp_path).kill()


def test_a_pid_that_went_to_somebody_else_is_not_the_broker(tmp_path: Path) -> None:
    (tmp_path / "kafka.pid").write_text(str(os.getpid()))
    server = KafkaServer(tmp_path)
    assert server.pid is None
    server.kill()  # must not be us


@pytest.mark.parametrize("junk", ["", "x", "-1", "999999999"])
def test_a_pid_file_with_junk_is_no_broker(tmp_path: Path, junk: str) -> None:
    (tmp_path / "kafka.pid").write_text(junk)
    assert KafkaServer(tmp_path).pid is None


def test_a_process_with_our_properties_is_the_broker_and_kill_ends_it(tmp_path: Path) -> None:
    script = "import signal; print('up', flush=True); signal.pause()"
    command = [sys.executable, "-c", script, str(tmp_path / "server.properties")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            (tmp_path / "kafka.pid").write_text(str(process.pid))
            server = KafkaServer(tmp_path)
            assert server.pid == process.pid
            server.kill()
            assert process.wait(10) == -9
            assert server.pid is None
        finally:
            process.kill()


def test_a_cluster_id_is_one_that_the_format_command_takes() -> None:
    for _ in range(200):
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{21}", kafka._cluster_id())


def test_a_free_port_is_free_and_a_taken_one_is_not() -> None:
    assert port_is_free(free_port())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not port_is_free(listener.getsockname()[1])


def test_the_default_directory_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_data_dir() == Path("/state/vault-stream/kafka")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert default_data_dir() == Path("/home/ada/.local/state/vault-stream/kafka")


def test_the_kept_port_of_the_controller_gives_way_to_whoever_has_it_now(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "meta.properties").touch()
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        theirs = taken.getsockname()[1]
        (tmp_path / "ports.json").write_text(json.dumps({"port": port, "controller_port": theirs}))
        KafkaServer(tmp_path)._prepare(Path("java"), Path("jars"))
    kept = json.loads((tmp_path / "ports.json").read_text())
    assert kept["port"] == port
    assert kept["controller_port"] != theirs
    assert f"1@127.0.0.1:{kept['controller_port']}" in (tmp_path / "server.properties").read_text()
