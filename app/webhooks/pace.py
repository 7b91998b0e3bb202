"""How many attempts a webhook may have at one time, and how fast (architecture 5, Slots and Pace).

Pure: times are seconds of a monotonic clock and come in as arguments. All of it is memory of the owner; after a restart
or a move it is learnt again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FIRST_SLOTS", "GlobalSlots", "Pace", "PaceRules", "Result", "Slots", "TokenBucket"]

FIRST_SLOTS: Final = 4
FIRST_GAP_S: Final = 1.0
# From here on a webhook that only fails shares `FAILING_PER_S` with the others that do, until it is paced. To give each
# of them a gap of its own would starve one that fails most of its deliveries for good, and takes the others.
STEADY_AFTER_S: Final = 1.0
FAILING_PER_S: Final = 100
# A timer that fires so much too late costs a rate limit nothing.
LATENESS_S: Final = 0.05


class Result(Enum):
    """How an attempt ended, as far as capacity is concerned."""

    SUCCESS = auto()
    SLOW = auto()
    """A success that took long."""
    FAILURE = auto()
    TIMEOUT = auto()
    NOTHING = auto()
    """There was no attempt after all."""


class Slots:
    """The cap of one webhook on attempts in flight: it grows with success and shrinks with time-outs."""

    __slots__ = ("cap", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.cap = min(FIRST_SLOTS, limit)

    def resize(self, limit: int) -> None:
        """The webhook was configured anew."""
        self.limit = limit
        self.cap = max(1, min(self.cap, limit))

    def grow(self) -> None:
        """An attempt succeeded."""
        self.cap = min(self.cap * 2, self.limit)

    def shrink(self) -> None:
        """An attempt timed out."""
        self.cap = max(1, self.cap // 2)


@dataclass(frozen=True, slots=True)
class PaceRules:
    """When a webhook is paced; `after_failures` 0: never."""

    after_failures: int = 10
    after_s: float = 10.0
    max_gap_s: float = 30.0


class Pace:
    """Slows a webhook down that only fails: one attempt in flight, with a growing gap between attempts.

    Unlike a breaker it never stops: a receiver that fails the first attempts of each delivery gets through, because of
    every two attempts one is of the row with most of them.
    """

    __slots__ = ("_failures", "_first_s", "_gap_s", "_last_s", "_next_s", "_rules")

    def __init__(self, rules: PaceRules) -> None:
        self._rules = rules
        self._failures = 0
        self._first_s = 0.0
        self._last_s = 0.0
        self._gap_s: float | None = None
        self._next_s = 0.0

    @property
    def paced(self) -> bool:
        """Whether attempts go one by one."""
        return self._gap_s is not None

    @property
    def prefers_retries(self) -> bool:
        """Whether the one that was tried most goes next.

        Every second one of a paced webhook: one that fails the first attempts of each delivery gets through by these,
        and one that always fails some of its deliveries by the others.
        """
        return self._gap_s is not None and self._failures % 2 == 0

    @property
    def steady(self) -> bool:
        """Whether it fails as often as `paced` asks for, and for a second, but not yet for as long."""
        enough = 0 < self._rules.after_failures <= self._failures
        return enough and self._gap_s is None and self._last_s - self._first_s >= STEADY_AFTER_S

    @property
    def troubled(self) -> bool:
        """Whether there was no success since the last failure."""
        return self._failures > 0

    @property
    def calm(self) -> bool:
        """Whether it does what a new one would."""
        return not self._failures and self._gap_s is None

    @property
    def next_s(self) -> float:
        """While paced: no attempt before this time."""
        return self._next_s

    def succeeded(self) -> None:
        """One success ends it."""
        self._failures = 0
        self._gap_s = None

    def failed(self, now_s: float, *, last: bool = True) -> None:
        """An attempt failed; `last`: none is in flight any more.

        Those that were under way when the pace began say nothing that the first failures did not say, so that the gap
        of a receiver that is away for a moment stays short.
        """
        if self._failures == 0:
            self._first_s = now_s
        self._last_s = now_s
        self._failures += 1
        rules = self._rules
        if self._gap_s is not None:
            if not last:
                return
            self._gap_s = min(self._gap_s * 2, rules.max_gap_s)
        elif 0 < rules.after_failures <= self._failures and now_s - self._first_s >= rules.after_s:
            self._gap_s = min(FIRST_GAP_S, rules.max_gap_s)
        else:
            return
        self._next_s = now_s + self._gap_s


class TokenBucket:
    """The rate limit of one webhook: in any t seconds at most 1 + rate x (t + 0.05) attempts, and on average its rate.

    So they come one by one, in even steps; those 0.05 s make up for timers that are late.
    """

    __slots__ = ("_at_s", "_burst", "_rate_per_s", "_tokens")

    def __init__(self, rate_per_s: float, now_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = 1 + rate_per_s * LATENESS_S
        self._tokens = self._burst
        self._at_s = now_s

    def ready_at_s(self, now_s: float) -> float:
        """When the next token is there; `now_s` or earlier if one is."""
        self._refill(now_s)
        return now_s if self._tokens >= 1 else now_s + (1 - self._tokens) / self._rate_per_s

    def full(self, now_s: float) -> bool:
        """Whether it does what a new one would."""
        self._refill(now_s)
        return self._tokens >= self._burst

    def take(self, now_s: float) -> None:
        """Use one token."""
        self._refill(now_s)
        self._tokens -= 1

    def give_back(self) -> None:
        """It was not used after all."""
        self._tokens = min(self._burst, self._tokens + 1)

    def _refill(self, now_s: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._rate_per_s)
        self._at_s = now_s


class GlobalSlots:
    """The worker's cap on attempts in flight, shared by all its numbers.

    Receivers that hang must not be the whole worker, whether or not they answer in the end. So webhooks in *trouble*
    (no success since the last failure, a slow answer, or no answer for a second with attempts in flight)
    hold at most half of it together. And one webhook never gets a slot beyond as many as are free, so that something
    is left for others even while nobody knows yet who hangs.

    Nor must those that fail at once be all that the worker does: each attempt costs it more than one that succeeds. So
    those that fail *steadily* and are not paced yet share `FAILING_PER_S` attempts a second.

    Args:
        max_concurrent: `WEBHOOKS__MAX_CONCURRENT`.
    """

    def __init__(self, max_concurrent: int) -> None:
        self._free = max_concurrent
        self._troubled_limit = max(1, max_concurrent // 2)
        self._held: dict[str, int] = {}
        self._troubled: set[str] = set()
        self._troubled_held = 0
        # When each failed last, the longest ago first.
        self._steady: dict[str, float] = {}
        # Those that found no slot free, and those that found the troubled half taken.
        self._waiting: deque[Callable[[], None]] = deque()
        self._waiting_troubled: deque[Callable[[], None]] = deque()

    @property
    def free(self) -> int:
        """How many are not held."""
        return self._free

    def available(self, webhook_id: str) -> bool:
        """Whether this webhook would get one now."""
        return self._free > 0 and self.fair(webhook_id) and self._has_half(webhook_id)

    def fair(self, webhook_id: str) -> bool:
        """Whether it holds fewer than are free; if not, it holds some, and may ask again when one of them ends."""
        return self._held.get(webhook_id, 0) < max(1, self._free)

    def _has_half(self, webhook_id: str) -> bool:
        return webhook_id not in self._troubled or self._troubled_held < self._troubled_limit

    def take(self, webhook_id: str) -> None:
        """Hold one more; the caller has asked `available` in the same breath."""
        self._free -= 1
        self._held[webhook_id] = self._held.get(webhook_id, 0) + 1
        self._troubled_held += webhook_id in self._troubled

    def give_back(self, webhook_id: str) -> None:
        """Hold one less, and wake whoever waits longest."""
        self._free += 1
        self._troubled_held -= webhook_id in self._troubled
        left = self._held[webhook_id] - 1
        if left:
            self._held[webhook_id] = left
        else:
            del self._held[webhook_id]
        self.wake()

    def troubled(self, webhook_id: str) -> bool:
        """What was noted by `mark`."""
        return webhook_id in self._troubled

    def mark(self, webhook_id: str, *, troubled: bool) -> None:
        """Note whether a webhook is in trouble."""
        if troubled == (webhook_id in self._troubled):
            return
        held = self._held.get(webhook_id, 0)
        if troubled:
            self._troubled.add(webhook_id)
            self._troubled_held += held
        else:
            self._troubled.discard(webhook_id)
            self._troubled_held -= held
        self.wake()

    def mark_steady(self, webhook_id: str, now_s: float, *, steady: bool) -> None:
        """Note whether a webhook fails steadily."""
        self._steady.pop(webhook_id, None)
        if steady:
            self._steady[webhook_id] = now_s

    def forgive(self, webhook_id: str) -> None:
        """Nothing is known against a webhook."""
        self.mark(webhook_id, troubled=False)
        self._steady.pop(webhook_id, None)

    def failing_gap_s(self, now_s: float) -> float:
        """From one attempt of a webhook that fails steadily to its next; 0 where no other one does.

        Never more than the first gap of a pace. One that has not failed for two of those has nothing to try.
        """
        while self._steady and next(iter(self._steady.values())) < now_s - 2 * FIRST_GAP_S:
            del self._steady[next(iter(self._steady))]
        return min(max(0, len(self._steady) - 1) / FAILING_PER_S, FIRST_GAP_S)

    def wait(self, call: Callable[[], None]) -> None:
        """Call this once when a slot may be free for one that just found none; who does not use it calls `wake`."""
        waiting = self._waiting if self._free <= 0 else self._waiting_troubled
        if call not in waiting:
            waiting.append(call)

    def forget(self, call: Callable[[], None]) -> None:
        """Whoever waits by this call is gone; woken in its place, another one would wait on."""
        for waiting in (self._waiting, self._waiting_troubled):
            if call in waiting:
                waiting.remove(call)

    def wake(self) -> None:
        """Wake the one who has waited longest for what is free now."""
        if self._free <= 0:
            return
        if self._waiting:
            self._waiting.popleft()()
        if self._waiting_troubled and self._troubled_held < self._troubled_limit:
            self._waiting_troubled.popleft()()
