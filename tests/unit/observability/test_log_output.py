"""The outputs of the log: nobody who logs waits for them, whatever is wrong with them."""

import asyncio
import gc
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from app.observability import metrics
from app.observability.log_output import FileTarget, LineHandler, LogSink, Target
from app.observability.logging import configure_logging

LOG = logging.getLogger("app.test")
DEADLINE_S: Final = 60.0


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    before, level, hangup = list(root.handlers), root.level, signal.getsignal(signal.SIGHUP)
    yield
    configure_logging("json", "info", "stdout", stream=io.StringIO())
    root.handlers[:], root.level = before, level
    logging.captureWarnings(capture=False)
    signal.signal(signal.SIGHUP, hangup)


def until(condition: Callable[[], Any], what: str) -> Any:
    ends_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < ends_s:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {DEADLINE_S:.0f} s: {what}")


class Gate(Target):
    """A target that can be shut, and broken."""

    name = "file"

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.error: OSError | None = None
        self.at_once = 1 << 20
        self.written = b""

    def write(self, data: bytes) -> int:
        self.entered.set()
        self.open.wait()
        if self.error is not None:
            raise self.error
        self.written += data[: self.at_once]
        return min(len(data), self.at_once)

    @property
    def lines(self) -> list[str]:
        return self.written.decode().splitlines()


def told(lines: int, reason: str) -> str:
    return f"-- {lines} missing: {reason}"


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


# --- in a process of its own ------------------------------------------------------------------------------------------

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


def within_deadline(work: Callable[[], Any], what: str) -> None:
    """In a thread of its own, so that what would wait for ever is a failure and not the end of all tests."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    assert not thread.is_alive(), f"not within {DEADLINE_S:.0f} s: {what}"


class LogsAtItsEnd:
    """Garbage in a cycle, that logs when it is collected, as tasks do whose exception nobody asked for."""

    def __init__(self, log: logging.Logger, line: str) -> None:
        self.cycle, self.log, self.line = self, log, line

    def __del__(self) -> None:
        self.log.error(self.line)


def test_a_finalizer_may_log_where_the_output_is_held_and_another_thread_waits_for_it() -> None:
    formatted = threading.Event()

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            formatted.set()
            return super().format(record)

    gate = Gate()
    handler = LineHandler(Formatter("%(message)s"), [gate])
    log = logging.getLogger("app.apart")
    log.propagate = False
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    [sink] = handler._sinks.values()

    def collected_while_held() -> None:
        with sink._changed:
            other = threading.Thread(target=log.info, args=("of the other thread",), daemon=True)
            other.start()
            # From here on it waits for the output, with all the locks that a handler takes before.
            assert formatted.wait(DEADLINE_S)
            LogsAtItsEnd(log, "of the finalizer")
            gc.collect()
        other.join(DEADLINE_S)
        handler.flush()
        log.removeHandler(handler)
        handler.close()

    within_deadline(collected_while_held, "a finalizer that logs")
    assert sorted(gate.lines) == ["of the finalizer", "of the other thread"]


def test_the_line_for_what_is_missing_is_made_while_others_may_log() -> None:
    gate, asked, go_on = Gate(), threading.Event(), threading.Event()

    def slowly(lines: int, reason: str) -> str:
        asked.set()
        go_on.wait(2 * DEADLINE_S)
        return told(lines, reason)

    gate.open.clear()
    sink = LogSink(gate, slowly, queue_bytes=20)
    for number in range(5):
        sink.put(f"line {number:04d}")
    gate.open.set()
    until(asked.is_set, "the gap")
    within_deadline(lambda: sink.put("meanwhile"), "a line while the gap is told")
    go_on.set()
    sink.close(DEADLINE_S)
    assert gate.lines[-1] == "meanwhile"


class Interrupted(deque[Any]):
    """Lines among which another one gets, as by a signal or a collection, after one was added or where none is found.

    Args:
        between: Puts the other one.
        idle: Whether whoever finds none is about to wait; None: it is put after the first that is added.
    """

    def __init__(self, between: Callable[[], None], idle: Callable[[], bool] | None) -> None:
        super().__init__()
        self.between: Callable[[], None] | None = between
        self.idle = idle

    def _interrupt(self) -> None:
        between, self.between = self.between, None
        if between is not None:
            between()

    def append(self, item: Any) -> None:
        super().append(item)
        if self.idle is None:
            self._interrupt()

    def __bool__(self) -> bool:
        found = len(self) > 0
        if not found and self.idle is not None and self.idle():
            self._interrupt()
        return found


def test_a_line_that_interrupts_another_one_does_not_let_the_writer_sleep() -> None:
    gate = Gate()
    sink = LogSink(gate, told)
    sink._waiting = Interrupted(lambda: sink.put("in between"), None)
    sink.put("outer")
    until(lambda: gate.lines == ["outer", "in between"], "written")
    sink.close(DEADLINE_S)


def test_a_line_that_comes_as_the_writer_lies_down_to_sleep_is_written_soon() -> None:
    gate = Gate()
    sink = LogSink(gate, told)
    sink._waiting = Interrupted(lambda: sink.put("in between"), lambda: not sink._renew)
    sink.renew()
    until(lambda: gate.lines == ["in between"], "written")
    sink.close(DEADLINE_S)
