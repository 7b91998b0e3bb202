"""How far the restores of a process are: rows done and to do, by table, and how long the rest may take."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Progress", "Recovery", "Restoring"]

# The pace of the last half minute says more of the rest than that of the beginning, when the disk was idle.
WINDOW_S = 30.0
SAMPLE_EVERY_S = 0.5
# Before, the first answer of the broker is all that there is.
KNOWN_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """At one moment.

    Attributes:
        restored: Rows read, by table; also of numbers that are done, until the last one is.
        remaining: Rows to read, by table, at most: what was compacted away is only known to be gone once it is passed.
        left_s: Until none remain, at the pace of the last half minute; None while that is not known.
    """

    restored: Mapping[str, int]
    remaining: Mapping[str, int]
    left_s: float | None

    def to_json(self) -> dict[str, Any]:
        """`{restored_rows, remaining_rows, tables: {name: {restored_rows, remaining_rows}}, left_s}`."""
        tables = {
            name: {"restored_rows": self.restored.get(name, 0), "remaining_rows": rows}
            for name, rows in sorted(self.remaining.items())
        }
        return {
            "restored_rows": sum(self.restored.values()),
            "remaining_rows": sum(self.remaining.values()),
            "tables": tables,
            "left_s": None if self.left_s is None else round(self.left_s, 1),
        }

    def __str__(self) -> str:
        restored = sum(self.restored.values())
        left = "" if self.left_s is None else f", about {self.left_s:.0f} s left"
        return f"recovering: {restored} rows restored, {sum(self.remaining.values())} remaining{left}"


class Restoring:
    """The restore of one number, from `Recovery.begin`."""

    def __init__(self, recovery: Recovery, rows: Mapping[str, int]) -> None:
        self._recovery = recovery
        self._remaining = Counter(rows)

    def moved(self, table: str, restored: int, passed: int) -> None:
        """Some more is done.

        Args:
            restored: Rows that were read.
            passed: By how much the position moved; more where rows were compacted away.
        """
        self._remaining[table] -= passed
        self._recovery.moved(table, restored, passed)

    def end(self) -> None:
        """It is done, or given up: nothing of it remains."""
        self._recovery.ended(self, self._remaining)
        self._remaining = Counter()


class Recovery:
    """All restores of a process.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._active: set[Restoring] = set()
        self._restored: Counter[str] = Counter()
        self._remaining: Counter[str] = Counter()
        self._passed = 0
        self._samples: deque[tuple[float, int]] = deque()

    def begin(self, rows: Mapping[str, int]) -> Restoring:
        """A number is to read so many rows of each table."""
        if not self._active:
            self._restored, self._remaining, self._passed = Counter(), Counter(), 0
            self._samples = deque([(self._clock(), 0)])
        restoring = Restoring(self, rows)
        self._active.add(restoring)
        self._remaining.update(rows)
        return restoring

    def moved(self, table: str, restored: int, passed: int) -> None:
        """See `Restoring.moved`."""
        self._restored[table] += restored
        self._remaining[table] -= passed
        self._passed += passed
        now = self._clock()
        if now - self._samples[-1][0] >= SAMPLE_EVERY_S:
            self._samples.append((now, self._passed))
        while len(self._samples) > 1 and now - self._samples[1][0] >= WINDOW_S:
            self._samples.popleft()

    def ended(self, restoring: Restoring, left: Mapping[str, int]) -> None:
        """See `Restoring.end`."""
        if restoring in self._active:
            self._active.remove(restoring)
            self._remaining.subtract(left)

    def progress(self) -> Progress | None:
        """How far they are; None while nothing is restored."""
        if not self._active:
            return None
        return Progress(dict(self._restored), {t: max(0, n) for t, n in self._remaining.items()}, self._left_s())

    def _left_s(self) -> float | None:
        began, passed_then = self._samples[0]
        took_s, passed = self._clock() - began, self._passed - passed_then
        if took_s < KNOWN_AFTER_S or passed <= 0:
            return None
        return max(0, self._remaining.total()) * took_s / passed
