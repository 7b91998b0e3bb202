"""A line that is logged in the midst of another one: by a finalizer, by a signal, while a gap is told."""

import gc
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from app.observability.log_output import LineHandler, LogSink
from tests.support.log_gate import DEADLINE_S, Gate, told, until, within_deadline


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
