"""Children that end with their parent, however it ends.

`leashed` wraps a command so that the kernel kills it (SIGKILL) when the process that started it is gone, `kill -9`
included. The wrapper is this very file, run as a script: it asks the kernel, then becomes the command, so the process
id is the command's. It imports nothing of ours. On systems without `prctl` the command simply runs.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

__all__ = ["leashed"]

PR_SET_PDEATHSIG: Final = 1


def leashed(command: Sequence[str]) -> list[str]:
    """The command that runs `command` until this process ends. Start it from the main thread: the kernel watches that.

    Args:
        command: program and arguments.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def _become(parent_pid: int, command: list[str]) -> None:
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it ended before the kernel was asked
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - the command is the caller's own; a shell would only be in the way


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
