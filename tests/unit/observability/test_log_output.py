"""The outputs of the log: nobody who logs waits for them, whatever is wrong with them."""

import asyncio
import io
import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.observability import metrics
from app.observability.log_output import FileTarget, LogSink
from app.observability.logging import configure_logging
from tests.support.log_gate import DEADLINE_S, Gate, told, until
from tests.support.log_restored import logging_restored

LOG = logging.getLogger("app.test")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    hangup = signal.getsignal(signal.SIGHUP)
    with logging_restored():
        yield
    signal.signal(signal.SIGHUP, hangup)


def dropped() -> float:
    return metrics.REGISTRY.get_sample_value("vault_stream_log_lines_dropped_total", {"output": "file"}) or 0.0


def test_lines_come_out_whole_and_in_order_however_little_is_taken_at_once() -> None:
    gate = Gate()
    gate.at_once = 3
    sink = LogSink(gate, told)
    for number in range(100):
        sink.put(f"line {number}")
    sink.close(DEADLINE_S)
    assert gate.lines == [f"line {number}" for number in range(100)]


def test_what_does_not_fit_is_counted_and_its_place_says_so() -> None:
    before, gate = dropped(), Gate()
    gate.open.clear()
    sink = LogSink(gate, told, queue_bytes=100)
    for number in range(50):
        sink.put(f"line {number:04d}")
    assert dropped() - before == 40
    gate.open.set()
    until(lambda: len(gate.lines) == 11, "written")
    sink.put("again")
    sink.close(DEADLINE_S)
    assert gate.lines == [
        *(f"line {number:04d}" for number in range(10)),
        told(40, "the output did not take them as fast as they came"),
        "again",
    ]


def test_memory_is_bounded_while_nothing_is_written() -> None:
    gate = Gate()
    gate.open.clear()
    sink = LogSink(gate, told, queue_bytes=1000)
    for _ in range(10_000):
        sink.put("x" * 99)
    assert len(sink._waiting) <= 11
    gate.open.set()
    sink.close(DEADLINE_S)


def test_a_line_larger_than_the_queue_is_one_that_is_missing() -> None:
    gate = Gate()
    sink = LogSink(gate, told, queue_bytes=100)
    sink.put("x" * 200)
    sink.put("small")
    sink.close(DEADLINE_S)
    assert [line[:4] for line in gate.lines] == ["-- 1", "smal"]


def test_an_output_that_fails_is_tried_again_and_loses_nothing_that_fits() -> None:
    gate, troubles = Gate(), list[str]()
    gate.error = OSError(28, "No space left on device")
    sink = LogSink(gate, told, troubles.append)
    sink.put("first")
    until(lambda: troubles, "told")
    sink.put("second")
    gate.error = None
    until(lambda: gate.lines == ["first", "second"], "written")
    assert troubles == ["No space left on device"]
    sink.close(DEADLINE_S)


@pytest.mark.parametrize("broken", [True, False])
def test_the_end_waits_for_a_bounded_time(broken: bool) -> None:
    gate = Gate()
    gate.error = OSError(5, "Input/output error") if broken else None
    if not broken:
        gate.open.clear()
    sink = LogSink(gate, told)
    sink.put("x")
    gate.entered.wait(DEADLINE_S)
    began_s = time.monotonic()
    sink.flush(0.2)
    sink.close(0.2)
    assert time.monotonic() - began_s < DEADLINE_S / 2
    gate.open.set()


def test_a_file_that_was_moved_away_is_opened_again_and_at_hangup_too(tmp_path: Path) -> None:
    file = tmp_path / "worker.log"
    configure_logging("json", "info", f"file:{file}")
    handler, _ = logging.getLogger().handlers
    LOG.info("before")
    handler.flush()
    file.rename(tmp_path / "worker.log.1")
    os.kill(os.getpid(), signal.SIGHUP)
    until(file.exists, "opened again with nothing to say")
    LOG.info("after")
    handler.flush()
    assert "before" in (tmp_path / "worker.log.1").read_text()
    assert [json.loads(line)["message"] for line in file.read_text().splitlines()] == ["after"]


@pytest.mark.parametrize(("output", "times"), [("file", 1), ("both", 0)])
def test_what_is_critical_is_told_to_the_terminal_too_where_all_goes_to_a_file(
    output: str, times: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_logging("json", "info", f"{output}:{tmp_path}/worker.log")
    LOG.error("not this")
    LOG.critical("exit 70: it is stuck")
    for handler in logging.getLogger().handlers:
        handler.flush()
    assert "exit 70: it is stuck" in (tmp_path / "worker.log").read_text()
    said = capfd.readouterr().err
    assert (said.count("exit 70: it is stuck"), said.count("not this")) == (times, 0)


def test_a_file_that_cannot_be_opened_again_stays_in_use(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    target = FileTarget(folder / "worker.log")
    moved = folder.rename(tmp_path / "moved")
    folder.write_text("a file in the place of the folder")
    with pytest.raises(FileExistsError):
        target.ready(renew=True)
    target.write(b"still here")
    assert (moved / "worker.log").read_bytes() == b"still here"
    target.close()


def test_a_pipe_that_nobody_reads_does_not_hold_up_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="cannot write the log file"):
        configure_logging("json", "info", f"file:{tmp_path}/pipe")


def test_without_a_file_a_hangup_ends_the_process_as_it_always_did() -> None:
    before = signal.getsignal(signal.SIGHUP)
    configure_logging("json", "info", "stdout", stream=io.StringIO())
    assert signal.getsignal(signal.SIGHUP) == before


def test_the_other_output_says_that_one_is_broken() -> None:
    stream = io.StringIO()
    configure_logging("json", "info", "both:/dev/full", stream=stream)
    LOG.info("x")
    line = until(lambda: next((one for one in stream.getvalue().splitlines() if "No space left" in one), None), "told")
    assert json.loads(line) | {"level": "WARNING", "target": "app.log", "output": "file"} == json.loads(line)


async def test_a_task_goes_on_while_the_output_stands() -> None:
    gate, turns = Gate(), 0
    gate.open.clear()
    sink = LogSink(gate, told, queue_bytes=1000)
    for _ in range(1000):
        sink.put("x" * 100)
        await asyncio.sleep(0)
        turns += 1
    assert turns == 1000
    gate.open.set()
    sink.close(DEADLINE_S)
