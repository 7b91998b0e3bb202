"""A program whose log goes to an output that is stuck, closed, full or not to be had at all."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.log_gate import DEADLINE_S, until

WORKER: Final = """
import asyncio, json, logging, sys, time
from app.observability import metrics
from app.observability.logging import configure_logging

async def main(output, lines, report):
    configure_logging("json", "info", output)
    log, latest, begun = logging.getLogger("app.test"), 0.0, time.monotonic()
    for number in range(lines):
        before = time.monotonic()
        log.info("line", extra={"number": number, "padding": "x" * 200})
        await asyncio.sleep(0)
        latest = max(latest, time.monotonic() - before)
    dropped = sum(
        sample.value for family in metrics.LOG_LINES_DROPPED.collect() for sample in family.samples
    )
    with open(report, "w") as file:
        json.dump({"slowest_s": latest, "dropped": dropped}, file)
    for line in sys.stdin:
        log.info(line.strip())
        await asyncio.sleep(0)

asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
logging.shutdown()
"""
LINES: Final = 12_000
"""More than the queue takes."""
STALL_S: Final = 20.0
"""Whoever waits for a blocked output waits for ever; a machine that is busy is slow only."""


class Process:
    """A program that logs a lot, and then each line of its input."""

    def __init__(self, tmp_path: Path, output: str, lines: int = LINES) -> None:
        self._report = tmp_path / "report.json"
        self.popen = subprocess.Popen(
            [sys.executable, "-c", WORKER, output, str(lines), str(self._report)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def report(self) -> dict[str, float]:
        """What it says of itself, once it has logged everything."""
        until(lambda: self._report.exists() and self._report.read_text().endswith("}"), "all lines are logged")
        found: dict[str, float] = json.loads(self._report.read_text())
        return found

    def say(self, line: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(f"{line}\n".encode())
        self.popen.stdin.flush()

    def end(self) -> float:
        assert self.popen.stdin is not None
        began_s = time.monotonic()
        self.popen.stdin.close()
        self.popen.wait(DEADLINE_S)
        return time.monotonic() - began_s


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    running = list[Process]()

    def start(output: str, lines: int = LINES) -> Process:
        running.append(Process(tmp_path, output, lines))
        return running[-1]

    yield start
    for one in running:
        one.popen.kill()
        for pipe in (one.popen.stdin, one.popen.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
        one.popen.wait()


def messages(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def test_a_reader_that_stopped_reading_stops_nothing_and_is_told_later_what_it_missed(
    process: Callable[..., Process],
) -> None:
    worker = process("stdout")
    report = worker.report()
    assert report["dropped"] > 0
    assert report["slowest_s"] < STALL_S
    assert worker.popen.stdout is not None
    shown = list[str]()
    missing = None
    while missing is None:
        shown.append(worker.popen.stdout.readline().decode())
        missing = messages(shown[-1:])[0].get("dropped")
    worker.say("it works again")
    after = messages([worker.popen.stdout.readline().decode()])
    assert missing == report["dropped"]
    assert len(shown) - 1 + missing == LINES
    assert [line["number"] for line in messages(shown[:-1])] == list(range(len(shown) - 1))
    assert after[0]["message"] == "it works again"


def test_a_reader_that_never_reads_does_not_hold_up_the_end(process: Callable[..., Process]) -> None:
    worker = process("stdout")
    worker.report()
    assert worker.end() < STALL_S
    assert worker.popen.returncode == 0


def test_a_pipe_that_was_closed_stops_nothing(process: Callable[..., Process]) -> None:
    worker = process("stdout")
    assert worker.popen.stdout is not None
    worker.popen.stdout.close()
    assert worker.report()["slowest_s"] < STALL_S
    assert worker.end() < STALL_S
    assert worker.popen.returncode in {0, 120}  # 120: Python could not flush its own buffer, either


def test_a_full_disk_stops_nothing_and_says_later_what_is_missing(
    process: Callable[..., Process], tmp_path: Path
) -> None:
    link, room = tmp_path / "worker.log", tmp_path / "room.log"
    link.symlink_to("/dev/full")
    worker = process(f"file:{link}")
    report = worker.report()
    assert report["dropped"] > 0
    assert report["slowest_s"] < STALL_S
    fresh = tmp_path / "fresh"
    fresh.symlink_to(room)
    fresh.replace(link)
    shown = until(
        lambda: room.exists() and (text := room.read_text()).endswith("\n") and '"dropped"' in text and text, "room"
    )
    *kept, told_of = messages(shown.splitlines())
    assert told_of["dropped"] == report["dropped"] == LINES - len(kept)
    assert "No space left" in told_of["message"]
    assert worker.end() < STALL_S


def test_everything_is_written_before_an_ordinary_end(process: Callable[..., Process], tmp_path: Path) -> None:
    file = tmp_path / "worker.log"
    worker = process(f"file:{file}", 2000)
    worker.say("the last one")
    worker.end()
    shown = messages(file.read_text().splitlines())
    assert len(shown) == 2001
    assert shown[-1]["message"] == "the last one"


@pytest.mark.parametrize(
    ("name", "given", "fix"),
    [
        ("LOG__OUTPUT", "file:/dev/null/worker.log", "cannot write the log file /dev/null/worker.log"),
        ("LOG__LEVEL", "info,app.engine=loud", "must be one of debug, info"),
    ],
)
def test_a_log_setting_that_cannot_be_used_ends_the_start_with_one_line(
    tmp_path: Path, name: str, given: str, fix: str
) -> None:
    settings = {f"VAULT_STREAM_{name}": given, "VAULT_STREAM_DATA_DIR": str(tmp_path / "data")}
    ended = subprocess.run(
        [sys.executable, "-m", "app", "worker"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **settings},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert ended.returncode == 1
    assert fix in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert not ended.stdout
