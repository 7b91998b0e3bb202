"""What an evaluation ends with when there is no decision."""

from __future__ import annotations

__all__ = ["NotOwner", "NotRecorded", "PolicyUnavailable"]


class PolicyUnavailable(Exception):
    """There is no decision: access is denied for now, and nothing of it is kept.

    Every way in which an engine can fail ends here: no connection, a time-out, a redirect, any status but 200, an
    answer that is cut, too large, malformed or incomplete.

    Attributes:
        recorded: Another worker has written this down already.
    """

    def __init__(self, message: str, *, recorded: bool = False) -> None:
        super().__init__(message)
        self.recorded = recorded


class NotRecorded(PolicyUnavailable):
    """What cannot be written down is not given: the log is full, or this worker stops."""


class NotOwner(Exception):
    """The question was passed on to this worker, which does not own it (any more), or cannot act as its owner."""
