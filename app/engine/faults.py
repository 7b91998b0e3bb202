"""Named points at which a test may kill, stop or fail the process.

`VAULT_STREAM_FAULT=<point>[:nth][:kill|stop|raise]`.

The points are the steps of unit, checkpoint, restore and revoke; `POINTS` lists them. Without an armed fault a point
costs one comparison.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

__all__ = ["POINTS", "Fault", "FaultInjected", "arm", "parse", "point"]

POINTS = (
    "unit:processed",
    "unit:sent",
    "unit:flushed",
    "unit:done",
    "checkpoint:frozen",
    "checkpoint:begun",
    "checkpoint:sending",
    "checkpoint:sent",
    "checkpoint:committed",
    "checkpoint:stored",
    "checkpoint:offsets",
    "open:confirmed",
    "open:asked",
    "restore:fenced",
    "restore:rows",
    "restore:done",
    "restore:placed",
    "revoke:draining",
    "revoke:drained",
    "revoke:checkpointed",
    "revoke:dropped",
)


class FaultInjected(Exception):  # it is not an error of ours
    """What the action `raise` raises."""


@dataclass(slots=True)
class Fault:
    """One armed point; `left` passes until it acts, once."""

    name: str
    left: int = 1
    action: str = "kill"


_armed: list[Fault] = []


def parse(text: str) -> Fault:
    """Read `<point>[:nth][:kill|stop|raise]`.

    Raises:
        ValueError: Names the part that is wrong.
    """
    name = next((p for p in POINTS if text == p or text.startswith(p + ":")), None)
    if name is None:
        raise ValueError(f"no fault point in {text!r}; one of {', '.join(POINTS)}")
    fault = Fault(name)
    for part in text[len(name) + 1 :].split(":") if len(text) > len(name) else []:
        if part.isdigit() and int(part) > 0:
            fault.left = int(part)
        elif part in ("kill", "stop", "raise"):
            fault.action = part
        else:
            raise ValueError(f"fault {text!r}: {part!r} is neither a count nor kill, stop or raise")
    return fault


def arm(fault: Fault | None) -> None:
    """Arm one fault for this process, or none."""
    _armed[:] = [] if fault is None else [fault]


def point(name: str) -> None:
    """Pass a named point; act if the armed fault says so.

    Raises:
        FaultInjected: The armed action is `raise`.
    """
    if not _armed or _armed[0].name != name:
        return
    fault = _armed[0]
    fault.left -= 1
    if fault.left:
        return
    _armed.clear()
    if fault.action == "raise":
        raise FaultInjected(name)
    os.kill(os.getpid(), signal.SIGKILL if fault.action == "kill" else signal.SIGSTOP)
