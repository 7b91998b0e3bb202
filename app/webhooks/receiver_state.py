"""What a scheduler knows of one webhook: its limits, what waits for it, and what stands in the way of a start."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple

from app.webhooks.backlog import Backlog
from app.webhooks.model import Ordering, Reason
from app.webhooks.pace import Pace, PaceRules, Slots, TokenBucket

__all__ = ["Block", "Learnt", "Limits", "Now", "Receiver", "learnt_of"]


class Now(NamedTuple):
    """One moment on both clocks."""

    wall_ms: int
    monotonic_s: float


@dataclass(frozen=True, slots=True)
class Limits:
    """What a webhook's configuration says about its capacity."""

    max_in_flight: int
    rate_per_s: float | None = None
    ordering: Ordering = Ordering.BEST_EFFORT
    hold_until_ms: int | None = None


class Block(NamedTuple):
    """Why a webhook cannot start anything, and until when; None: until something else ends."""

    reason: Reason
    until_s: float | None = None


# Between two tries of a proxy that fails, doubled each time.
PROXY_RETRY_S: Final = 1.0
PROXY_RETRY_MAX_S: Final = 30.0
_NO_SLOT: Final = Block(Reason.SLOT)


class Learnt(NamedTuple):
    """What is kept of a webhook that was put away: its slots, and whether it was in trouble (`GlobalSlots`)."""

    cap: int
    troubled: bool


# There may be ten thousand, and few kinds of them.
learnt_of = cache(Learnt)


class Receiver:
    """One webhook: what waits for it, and what it may have in flight."""

    __slots__ = (
        "backlog", "bucket", "classes", "hold_until_ms", "in_flight", "limits", "no_key_until_s", "no_proxy_s",
        "no_proxy_until_s", "pace", "progress_s", "slots", "spaced_until_s", "stops", "webhook_id",
    )  # fmt: skip

    def __init__(self, webhook_id: str, limits: Limits, rules: PaceRules, now: Now) -> None:
        self.webhook_id = webhook_id
        self.limits = limits
        self.backlog = Backlog(strict=limits.ordering is Ordering.STRICT)
        self.slots = Slots(limits.max_in_flight)
        self.pace = Pace(rules)
        self.bucket = None if limits.rate_per_s is None else TokenBucket(limits.rate_per_s, now.monotonic_s)
        self.hold_until_ms = limits.hold_until_ms or 0
        self.no_key_until_s = 0.0
        self.no_proxy_until_s = 0.0
        self.no_proxy_s = 0.0
        self.in_flight = 0
        self.stops = 0
        self.progress_s = 0.0
        self.spaced_until_s = 0.0
        self.classes = 0

    def block(self, now: Now) -> Block | None:
        """What stands in the way of any start, the worker's slots aside."""
        if (timed := self._timed_block(now)) is not None:
            return timed
        if self.stops:
            return Block(Reason.HOLD)
        if self.pace.paced and self.in_flight:
            return Block(Reason.PACE)
        return _NO_SLOT if self.in_flight >= self.cap else None

    @property
    def cap(self) -> int:
        """How many attempts may be in flight."""
        # Behind a proxy that failed one tells whether it is back.
        return 1 if self.no_proxy_s else self.slots.cap

    def without_proxy(self, now_s: float) -> None:
        """An attempt did not get past our own proxy; those that started with it say nothing more."""
        if now_s >= self.no_proxy_until_s:
            self.no_proxy_s = min(PROXY_RETRY_MAX_S, max(PROXY_RETRY_S, 2 * self.no_proxy_s))
            self.no_proxy_until_s = now_s + self.no_proxy_s

    @property
    def pause_s(self) -> float:
        """As long as it fails: no attempt before this time."""
        if self.pace.paced:
            return self.pace.next_s
        return self.spaced_until_s if self.pace.steady else 0.0

    def spare(self, now: Now) -> bool:
        """Whether a new one would do the same, with these slots: nothing of it is under way, waits or counts."""
        return (
            not self.in_flight
            and not self.stops
            and self.backlog.empty
            and self.pace.calm
            and (self.bucket is None or self.bucket.full(now.monotonic_s))
            and self.hold_until_ms <= now.wall_ms
            and self.no_key_until_s <= now.monotonic_s
            and self.no_proxy_until_s <= now.monotonic_s
        )

    def _timed_block(self, now: Now) -> Block | None:
        now_s = now.monotonic_s
        if self.no_key_until_s > now_s:
            return Block(Reason.NO_KEY, self.no_key_until_s)
        if self.no_proxy_until_s > now_s:
            return Block(Reason.SLOT, self.no_proxy_until_s)
        if self.hold_until_ms > now.wall_ms:
            return Block(Reason.HOLD, now_s + (self.hold_until_ms - now.wall_ms) / 1000)
        if self.pause_s > now_s:
            return Block(Reason.PACE, self.pause_s)
        if self.bucket is not None and (ready_s := self.bucket.ready_at_s(now_s)) > now_s:
            return Block(Reason.RATE, ready_s)
        return None
