"""The drills of docs/operations.md are held, as one session of a shell on an Apache Kafka of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.devstack.kafka import free_port
from tests.support.kafka import require_kafka

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "operations.md").read_text()
MINUTES = 15
ALTER = """
import sys
from confluent_kafka.admin import AdminClient, NewPartitions
_, servers, alter, _, topic, _, count = sys.argv[1:]
assert alter == "--alter"
admin = AdminClient({"bootstrap.servers": servers})
admin.create_partitions([NewPartitions(topic, int(count))])[topic].result(60)
"""
"""What of Kafka's own `kafka-topics.sh` is used; its jars are not among ours."""


def blocks(section: str) -> list[str]:
    text = DOCUMENT.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def session() -> str:
    """All drills, then another N, and what stands at the end of the drills."""
    *drills, end = blocks("Drills")
    return "\n".join(["set -euo pipefail", *drills, *blocks("Another N"), end])


@pytest.mark.kafka
@pytest.mark.prove
def test_every_drill_ends_as_the_page_says(tmp_path: Path) -> None:
    require_kafka()
    for tool in ("curl", "jq"):
        if shutil.which(tool) is None:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{tool} is not installed")
    broker, web, dashboard = (free_port() for _ in range(3))
    text = session().replace("localhost:9092", f"localhost:{broker}").replace("8088", str(web))
    text = text.replace("9101", str(dashboard)).replace("kafka start", f"kafka start --port {broker}")
    command = tmp_path / "bin" / "vault-stream"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m app "$@"\n')
    command.chmod(0o755)
    alter = command.with_name("kafka-topics.sh")
    alter.write_text(f"#!{sys.executable}\n{ALTER}")
    alter.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VAULT_STREAM_")}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{command.parent}{os.pathsep}{environment['PATH']}",
        "VAULT_STREAM_WEB_PORT": str(web),
        "VAULT_STREAM_STATS_PORT": "0",
    }
    log = tmp_path / "session.log"
    with log.open("wb") as out:
        shell = subprocess.Popen(
            ["bash", "-c", text], cwd=work, env=environment, stdout=out, stderr=out, start_new_session=True
        )
        try:
            code = shell.wait(MINUTES * 60)
        finally:
            # Also what it has left in the background.
            _end(shell.pid)
            subprocess.run([command, "kafka", "stop", "--data", "kafka"], cwd=work, env=environment, check=False)
    said = log.read_text()
    assert code == 0, said[-8000:]
    heads = json.loads((work / "heads.json").read_text())
    assert sum(partition["head_sequence"] or 0 for partition in heads["partitions"]) > 0
    assert said.count(": ok") >= 4


def _end(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_the_figures_are_those_that_were_measured() -> None:
    measured = (ROOT / "docs" / "benchmarks.md").read_text()
    sizing = DOCUMENT.partition("\n## Sizing\n")[2].partition("\n## ")[0]
    for figure in (
        "5,780 a second",
        "20,800",
        "4,255 a second",
        "132 MB",
        "380 MB",
        "589 MB",
        "2.9 s",
        "10.5 s",
        "1.5 s",
        "47 MB",
        "2.8 %",
    ):
        assert figure in measured, figure
        assert figure in sizing, figure
    assert "32.1 µs" in measured
    assert "32 µs" in sizing


def test_all_drills_are_in_the_session() -> None:
    assert len(blocks("Drills")) == 7
    assert len(blocks("Another N")) == 1
    assert "kill -9" in session()
