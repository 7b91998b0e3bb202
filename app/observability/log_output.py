"""Where log lines go: a queue of bounded size in front of a thread that writes.

Whoever logs never waits: a disk that is full, a pipe that nobody reads and a slow volume cost lines, not the event
loop. Lines that do not fit are counted (`vault_stream_log_lines_dropped_total`), and once the output works again the
log itself says how many are missing, in their place.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, TextIO

from app.observability import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["FileTarget", "LineHandler", "LogSink", "StreamTarget", "Target"]

QUEUE_BYTES: Final = 4 << 20
"""About ten thousand lines. Once full, nothing is taken until half of it is written: one gap, and not many."""
PIECE_BYTES: Final = 64 << 10
RETRY_MIN_S: Final = 0.1
RETRY_MAX_S: Final = 2.0
FLUSH_S: Final = 2.0
CLOSE_S: Final = 0.5
IDLE_S: Final = 1.0
"""So long at most waits a line that a finalizer logs in the writing thread just as that lies down to sleep."""
_WRITABLE_POLL_MS: Final = 500


class Target(ABC):
    """What bytes can be written to.

    Attributes:
        name: A label of the metric: `stdout` or `file`.
    """

    name: str

    @abstractmethod
    def write(self, data: bytes) -> int:
        """Write some of it, and say how much; may block.

        Raises:
            OSError, ValueError: Nothing of it.
        """

    def ready(self, *, renew: bool) -> bool:  # noqa: ARG002  # a stream has nothing to open again
        """Called before each piece, and before it is tried again.

        Args:
            renew: Whether somebody asked for it to be opened again.

        Returns:
            Whether it was.

        Raises:
            OSError: It cannot be; the old one stays in use.
        """
        return False

    def close(self) -> None:  # noqa: B027  # nor to close
        """Let it go."""


class StreamTarget(Target):
    """Standard output, below the buffer of Python, or what a test gives in its place."""

    name = "stdout"

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        try:
            self._fd = (stream or sys.stdout).fileno()
        except (OSError, ValueError, AttributeError):
            self._fd = -1

    def write(self, data: bytes) -> int:
        """See `Target.write`; waits where the other side made the pipe non-blocking."""
        if self._fd < 0:
            if (stream := self._stream or sys.stdout) is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            stream.write(data.decode())
            return len(data)
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            waiting = select.poll()
            waiting.register(self._fd, select.POLLOUT)
            waiting.poll(_WRITABLE_POLL_MS)
            return 0


class FileTarget(Target):
    """A file that is appended to, and opened again where its name no longer leads to it.

    Raises:
        OSError: It cannot be opened.
    """

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = self._opened()

    def _opened(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # A named pipe that nobody reads would hold up the opening for ever. And no business of other users.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        opened = os.open(self._path, flags, 0o640)
        os.set_blocking(opened, True)
        return opened

    def write(self, data: bytes) -> int:
        """See `Target.write`."""
        return os.write(self._fd, data)

    def ready(self, *, renew: bool) -> bool:
        """See `Target.ready`; a file that was moved or removed is opened again unasked."""
        if not renew and not self._moved():
            return False
        fresh = self._opened()
        os.close(self._fd)
        self._fd = fresh
        return True

    def _moved(self) -> bool:
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._fd))
        except FileNotFoundError:
            return True

    def close(self) -> None:
        """Let it go."""
        os.close(self._fd)


class _Gap:
    """Lines that are missing here, and why."""

    def __init__(self, reason: str) -> None:
        self.lines = 0
        self.reason = reason


class LogSink:
    """Takes lines at once, and writes them in a thread of its own.

    Args:
        target: Where to.
        notice: The line that stands in the place of so many dropped ones, for a reason.
        trouble: Called in the thread when writing begins to fail, with the reason: another output can say so.
        queue_bytes: How much may wait.
    """

    def __init__(
        self,
        target: Target,
        notice: Callable[[int, str], str],
        trouble: Callable[[str], None] = lambda _reason: None,
        *,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self._target = target
        self._notice = notice
        self._trouble = trouble
        self._limit = queue_bytes
        # Reentrant: a signal handler may interrupt whoever holds it, and so may a finalizer that logs, as a garbage
        # collection runs wherever something is made. Hence no other lock is taken and no code of others called with it.
        self._changed = threading.Condition()
        self._waiting: deque[bytes | _Gap] = deque()
        self._waiting_bytes = 0
        self._overflown = False
        self._renew = False
        self._closing = False
        self._failing = ""
        self._dropped = metrics.LOG_LINES_DROPPED.labels(output=target.name)
        self._thread = threading.Thread(target=self._run, name=f"log-{target.name}", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Take a line, or drop it; never waits."""
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        size_bytes = len(data)
        with self._changed:
            if not self._waiting:
                # Before it is there: whoever interrupts this may add a line, too.
                self._changed.notify_all()
            if self._overflown and self._waiting_bytes <= self._limit // 2:
                self._overflown = False
            if self._closing or self._overflown or self._waiting_bytes + size_bytes > self._limit:
                self._drop()
            else:
                self._waiting.append(data)
                self._waiting_bytes += size_bytes

    def _drop(self) -> None:
        self._overflown = True
        last = self._waiting[-1] if self._waiting else None
        if not isinstance(last, _Gap):
            last = _Gap(self._failing or "the output did not take them as fast as they came")
            self._waiting.append(last)
        last.lines += 1
        self._dropped.inc()

    def renew(self) -> None:
        """Open the target again before the next line; may be called from a signal handler."""
        with self._changed:
            self._renew = True
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> None:
        """Wait until everything is written, but not longer, and not while nothing can be written."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting or self._failing, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Write what waits, within the time, and end; what is left then is lost."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    # -- the thread

    def _run(self) -> None:
        while (piece := self._next()) is not None:
            data, items = piece
            if not self._write(data):
                break
            with self._changed:
                for _ in range(items):
                    done = self._waiting.popleft()
                    self._waiting_bytes -= len(done) if isinstance(done, bytes) else 0
                self._failing = ""
                self._changed.notify_all()
        # In the middle of a write that does not come back it never gets here: the system closes it then.
        with contextlib.suppress(OSError):
            self._target.close()

    def _next(self) -> tuple[bytes, int] | None:
        """What to write now, and how many items that is, which count as waiting until then; None: it is over."""
        gap: _Gap | None = None
        with self._changed:
            while not (self._waiting or self._closing or self._renew):
                self._changed.wait(IDLE_S)
            if self._waiting and isinstance(first := self._waiting[0], _Gap):
                # A drop from now on has a gap of its own.
                gap, self._waiting[0] = first, b""
            there = len(self._waiting)
            over = self._closing and not there
        self._ready()
        if over:
            return None
        if gap is not None:
            return f"{self._notice(gap.lines, gap.reason)}\n".encode(), 1
        piece = _piece(self._waiting, there)
        return b"".join(piece), len(piece)

    def _ready(self) -> bool:
        with self._changed:
            renew, self._renew = self._renew, False
        with contextlib.suppress(OSError):
            return self._target.ready(renew=renew)
        return False

    def _write(self, data: bytes) -> bool:
        """Write it to its end, however long that takes; whether to go on."""
        pause_s, at = RETRY_MIN_S, 0
        while at < len(data):
            try:
                at += self._target.write(data[at:])
            except (OSError, ValueError) as error:
                self._failed(str(getattr(error, "strerror", None) or error))
                with self._changed:
                    if self._changed.wait_for(lambda: self._closing, pause_s):
                        return False
                pause_s = min(2 * pause_s, RETRY_MAX_S)
                if self._ready():
                    # The line that was torn begins again in the new one.
                    at = data.rfind(b"\n", 0, at) + 1
        return True

    def _failed(self, reason: str) -> None:
        with self._changed:
            began, self._failing = not self._failing, reason
            self._changed.notify_all()
        if began:
            self._trouble(reason)


def _piece(waiting: deque[bytes | _Gap], there: int) -> list[bytes]:
    """What can be written at once of the first so many: they stay where they are while others are added."""
    found: list[bytes] = []
    size_bytes = 0
    for index in range(there):
        item = waiting[index]
        if not isinstance(item, bytes) or size_bytes > PIECE_BYTES:
            break
        found.append(item)
        size_bytes += len(item)
    return found


class LineHandler(logging.Handler):
    """Formats a record once, where it was logged, and hands the line to every output.

    Args:
        formatter: Of all outputs.
        targets: What is written to.
    """

    def __init__(self, formatter: logging.Formatter, targets: Iterable[Target]) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._sinks: dict[str, LogSink] = {}
        for target in targets:
            self._sinks[target.name] = LogSink(target, self._notice, partial(self._tell_others, target.name))

    def createLock(self) -> None:  # noqa: N802  # logging's name
        """None: the outputs have reentrant ones of their own.

        Whoever waited for an output while they held this one would wait for ever, where a finalizer logs in the thread
        that holds the output.
        """
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`; never waits for an output."""
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001  # what cannot be shown must not end who wanted to show it
            # Not `handleError`: it would print the record as it is, secrets too, and wait for who reads that.
            where = f"{record.name}:{record.lineno}"
            line = self._line("a log record cannot be shown", {"where": where, "error": type(error).__name__})
        for sink in self._sinks.values():
            sink.put(line)

    def renew(self) -> None:
        """Open the file again; may be called from a signal handler."""
        for sink in self._sinks.values():
            sink.renew()

    def flush(self) -> None:
        """Wait until all lines are written, at most 2 s: an output that stands must not hold up the end."""
        until_s = time.monotonic() + FLUSH_S
        # A copy, as `close` is called in the end.
        for sink in list(self._sinks.values()):
            sink.flush(max(0.0, until_s - time.monotonic()))

    def close(self) -> None:
        """End the threads."""
        sinks, self._sinks = self._sinks, {}
        for sink in sinks.values():
            sink.close(CLOSE_S)
        super().close()

    def _notice(self, lines: int, reason: str) -> str:
        return self._line(f"{lines} log lines are missing here: {reason}", {"dropped": lines})

    def _tell_others(self, name: str, reason: str) -> None:
        line = self._line(f"the log output {name} cannot be written, its lines wait: {reason}", {"output": name})
        for other, sink in self._sinks.items():
            if other != name:
                sink.put(line)

    def _line(self, message: str, fields: dict[str, object]) -> str:
        record = logging.LogRecord("app.log", logging.WARNING, __file__, 0, message, None, None)
        record.__dict__.update(fields)
        return self.format(record)
