"""When quarantining must stop: a bad deploy, or an upstream that refuses everything, is not poison."""

from __future__ import annotations

import traceback
from collections import Counter

from app.engine.errors import OutputTooLarge, RowTooLarge
from app.engine.unit import Unit

__all__ = ["POISON_LIMITS", "PoisonWatch", "place_of", "reason_of", "told"]

# In a row, by reason; other reasons are the record's own fault, and there may be any number of them.
POISON_LIMITS = {"handler_error": 100, "rejected_upstream": 20}


class PoisonWatch:
    """Counts quarantined records of one runner, between records that were done."""

    def __init__(self, agent: str) -> None:
        self._agent = agent
        self._in_a_row: Counter[str] = Counter()

    def judge(self, unit: Unit) -> str | None:
        """Look at a unit that is done; why its runner must stop, or None."""
        if not unit.quarantined:
            if unit.progressed:
                self._in_a_row.clear()
            return None
        self._in_a_row.update(unit.quarantined)
        for reason, limit in POISON_LIMITS.items():
            if self._in_a_row[reason] > limit:
                return f"{self._agent}: more than {limit} records in a row quarantined as {reason}"
        return None


def reason_of(error: BaseException) -> tuple[str, str]:
    """The reason and detail (contracts 9.2) under which a record is quarantined whose handling raised this."""
    if isinstance(error, RowTooLarge | OutputTooLarge):
        return "too_large", str(error)
    return "handler_error", place_of(error)


def place_of(error: BaseException) -> str:
    """Class and place of an exception; its text may hold values of fields."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


def told(error: BaseException) -> str:
    """An exception for the log: its class and stack, and those it came from, without their texts (see `place_of`)."""
    parts = []
    cause: BaseException | None = error
    while cause is not None:
        frames = "".join(traceback.format_list(traceback.extract_tb(cause.__traceback__)))
        parts.append(f"{type(cause).__name__}\n{frames}")
        cause = cause.__cause__
    return "from ".join(parts).rstrip()
