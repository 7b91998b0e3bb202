"""An output of the log that can be shut and broken, and waiting with a deadline in threads."""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from app.observability.log_output import Target

DEADLINE_S: Final = 60.0


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


def within_deadline(work: Callable[[], Any], what: str) -> None:
    """In a thread of its own, so that what would wait for ever is a failure and not the end of all tests."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    assert not thread.is_alive(), f"not within {DEADLINE_S:.0f} s: {what}"
